"""One method, one criterion for each head: ``r3f`` becomes ``r3f_label_smoothed`` and so on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Callable, Tuple, Type, TypeVar

from fairseq.criterions import register_criterion

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.heads.head import Head
from fairseq_adv.criterions.heads.sentence import SentenceHead
from fairseq_adv.criterions.heads.translation import TranslationHead

HEADS: Tuple[Type[Head], ...] = (TranslationHead, SentenceHead)

Method = TypeVar("Method", bound=Type[AdversarialCriterion])


def register_method(name: str, config: Type[Any]) -> Callable[[Method], Method]:
    """Decorate the class of a method, whose own options are *config*, with its names: ``NAME_SUFFIX`` for each head.

    The classes that fairseq gets are put beside the method's in its module, where pickle looks for them.
    """

    def register(method: Method) -> Method:
        for head in HEADS:
            ending = "".join(word.capitalize() for word in head.suffix.split("_"))
            stem = method.__name__[: -len("Criterion")]
            options = with_head_options(config, head, f"{stem}{ending}Config", method.__module__)
            criterion = type(
                f"{stem}{ending}", (method,), {"head_type": head, "method": name, "__doc__": method.__doc__}
            )
            register_criterion(f"{name}_{head.suffix}", dataclass=_placed(options, method))(_placed(criterion, method))
        return method

    return register


def with_head_options(config: Type[Any], head: Type[Head], name: str, module: str) -> Type[Any]:
    """The dataclass of the method's options *config* and of fairseq's own for *head*; the method's defaults hold."""
    return dataclass(type(name, (config, head.options), {"__module__": module, "__doc__": config.__doc__}))


def _placed(cls: Any, method: Any) -> Any:
    cls.__module__ = method.__module__
    setattr(sys.modules[method.__module__], cls.__name__, cls)
    return cls

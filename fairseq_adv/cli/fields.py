"""Options of a sub-command from the fields of a dataclass: name, type, default, help and check stand in one place.

A field's metadata are keywords of ``add_argument``: ``help``, and where needed ``choices``, ``metavar`` or ``type`` (of
one word). ``positional: True`` makes an argument without dashes of it. What may not be is refused by the dataclass's
``__post_init__``, with a ``ValueError`` that names the option and its value.
"""

from __future__ import annotations

import argparse
import typing
from dataclasses import MISSING, Field, fields
from typing import Any, Dict, Sequence, Type, TypeVar

Options = TypeVar("Options")


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """One argument of *parser* for each field of the dataclass *options*."""
    hints = typing.get_type_hints(options)
    for field in fields(options):
        keywords = _keywords(field, hints[field.name])
        if keywords.pop("positional", False):
            parser.add_argument(field.name, **keywords)
        else:
            keywords["required"] = _default(field) is MISSING
            parser.add_argument(f"--{field.name.replace('_', '-')}", dest=field.name, **keywords)


def from_arguments(options: Type[Options], args: argparse.Namespace) -> Options:
    """The dataclass *options* filled from what the arguments of :func:`add_options` were given."""
    return options(**{field.name: getattr(args, field.name) for field in fields(options)})  # type: ignore[arg-type]


def _keywords(field: Field, hint: Any) -> Dict[str, Any]:
    keywords: Dict[str, Any] = {"help": "", **field.metadata}
    default = _default(field)
    if default is not MISSING:
        keywords["default"] = default
    if hint is bool:
        keywords["action"] = "store_true"
        return keywords
    keywords.setdefault("type", _word_type(hint))
    if typing.get_origin(hint) in _SEQUENCES:
        keywords.setdefault("nargs", "+")
    if default not in (MISSING, None, "", ()) and "(default: " not in keywords["help"]:
        shown = " ".join(map(str, default)) if isinstance(default, (tuple, list)) else str(default)
        keywords["help"] += f" (default: {shown})"
    keywords["help"] = keywords["help"].replace("%", "%%")
    return keywords


_SEQUENCES = (typing.get_origin(Sequence[int]), list, tuple)


def _default(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _word_type(hint: Any) -> Any:
    """What makes a value of one word: ``int`` for ``int``, ``Optional[int]`` and ``Sequence[int]``."""
    inner = [part for part in typing.get_args(hint) if part is not type(None) and part is not ...]
    return _word_type(inner[0]) if inner else hint

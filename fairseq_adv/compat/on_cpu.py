"""What passes ask of a batch, answered while it is still on the CPU: a question to a GPU waits for all its work."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, Set, Tuple

import torch
from torch import Tensor, nn

from fairseq_adv.compat.patch import replaces

PADDED = "padded"  # on a tensor of tokens: {padding index: whether it occurs in there}
ON_CPU = "on_cpu"  # on a tensor of sample ids that was moved: what it was moved from


@replaces("fairseq.trainer.Trainer._prepare_sample")
def ask_before_the_gpu(original: Callable[..., Any]) -> Callable[..., Any]:
    """Whether a batch has padding is decided once, on the CPU, and not in each layer of each pass on the GPU.

    Fairseq's encoders ask ``encoder_padding_mask.any()`` as a Python bool for every layer, its decoders once, and each
    time the CPU waits until the GPU has done all that was queued before. The answer is noted on the tensors of tokens,
    as is where the sample ids came from. Encoders and decoders of the trainer's model find it there; tokens without it
    are asked once for all their passes. The numbers are the same, bit for bit.
    """

    def prepare(self: Any, sample: Any, is_dummy: bool = False) -> Any:
        pads = hook_once(self)
        prepared, dummy = original(self, sample, is_dummy)
        if isinstance(sample, dict) and isinstance(prepared, dict):
            note(sample, prepared, pads)
        return prepared, dummy

    return prepare


def note(before: Dict[str, Any], after: Dict[str, Any], pads: Set[int]) -> None:
    """Write on the tensors of *after* what those of *before*, the same batch on the CPU, have to say."""
    for key, value in before.items():
        if isinstance(value, dict) and isinstance(after.get(key), dict):
            note(value, after[key], pads)
        elif torch.is_tensor(value) and value.device.type == "cpu" and value.dtype == torch.int64:
            if value.dim() == 2:
                setattr(after[key], PADDED, {pad: bool(value.eq(pad).any()) for pad in pads})
            elif after[key] is not value:
                setattr(after[key], ON_CPU, value)


# ---- where encoders and decoders ask ----------------------------------------------------------------------


def hook_once(trainer: Any) -> Set[int]:
    """Let the encoders and decoders of *trainer*'s model find the answers; their padding indices."""
    if not hasattr(trainer, "_pads_that_are_asked_for"):
        asking = list(modules_that_ask(trainer._model))
        for module in asking:
            module.register_forward_pre_hook(_hand_over_answers, with_kwargs=True)
        trainer._pads_that_are_asked_for = {int(module.padding_idx) for module in asking}
    return trainer._pads_that_are_asked_for


def modules_that_ask(model: nn.Module) -> Iterator[Any]:
    """The parts of *model* whose first argument are tokens, and which ask in the way of fairseq's transformer."""
    from fairseq.models.lightconv import LightConvEncoder
    from fairseq.models.transformer import TransformerDecoderBase, TransformerEncoderBase

    kinds = (TransformerEncoderBase, TransformerDecoderBase, LightConvEncoder)
    return (module for module in model.modules() if isinstance(module, kinds) and module.padding_idx is not None)


def _hand_over_answers(module: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    if kwargs.get("incremental_state") is not None:  # a decoder that looks at its last token alone
        return None
    if args:
        return (answering(args[0], module.padding_idx), *args[1:]), kwargs
    name = "src_tokens" if "src_tokens" in kwargs else "prev_output_tokens"
    if name not in kwargs:
        return None
    return args, {**kwargs, name: answering(kwargs[name], module.padding_idx)}


def answering(tokens: Tensor, pad: int) -> Tensor:
    """The same tokens in another tensor, whose mask ``tokens.eq(pad)`` knows the value of its ``any()``."""
    answers = getattr(tokens, PADDED, {})
    if pad not in answers:
        answers = {**answers, pad: bool(tokens.eq(pad).any())}
        setattr(tokens, PADDED, answers)
    alias: Any = tokens.detach()
    alias.eq = _Equality(tokens, answers)
    return alias


class _Equality:
    """``tokens.eq`` of a tensor whose padding is known; it holds another tensor of the same tokens, so no circle."""

    def __init__(self, tokens: Tensor, answers: Dict[int, bool]) -> None:
        self._tokens, self._answers = tokens, answers

    def __call__(self, other: Any) -> Tensor:
        mask: Any = self._tokens.eq(other)
        if isinstance(other, int) and other in self._answers:
            known = self._answers[other]
            mask.any = lambda: KnownBool(known)
        return mask


class KnownBool:
    """Stands for the tensor that ``mask.any()`` would be, as far as fairseq asks it."""

    def __init__(self, value: bool) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value

    def type_as(self, _: Tensor) -> float:
        """As a factor of tensors."""
        return float(self._value)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.tensor(self._value), name)

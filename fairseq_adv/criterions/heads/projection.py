"""Where a model's logits are a plain linear projection of features that it can be asked for by themselves."""

from __future__ import annotations

from inspect import signature
from typing import Any, Optional, Tuple, Type

from fairseq.models import BaseFairseqModel, FairseqDecoder
from fairseq.models.transformer import TransformerDecoderBase, TransformerModelBase
from torch import nn

_PLAIN_PROBABILITIES = (
    BaseFairseqModel.get_normalized_probs,
    TransformerModelBase.get_normalized_probs,
)


def plain_projection(model: nn.Module) -> Tuple[Optional[nn.Linear], str]:
    """The last layer of the bare *model* if its log-probs are those of ``layer(model(…, features_only=True))``.

    Else ``None``, and the reason: an adaptive softmax, a model that is no Transformer of fairseq's or that has an
    output of its own, a layer with hooks or a parametrisation, or one of another kind.
    """
    decoder: Any = getattr(model, "decoder", None)
    layer = getattr(decoder, "output_projection", None)
    if getattr(decoder, "adaptive_softmax", None) is not None:
        return None, "the model has an adaptive softmax"
    if decoder is None or not _gives_features(type(model), type(decoder)):
        return None, f"the output of {type(model).__name__} is not that of fairseq's Transformer"
    if type(layer) is not nn.Linear or layer._forward_hooks or layer._forward_pre_hooks or _patched(decoder, layer):
        return None, "the model's output projection is no plain linear layer"
    return layer, ""


def _patched(*modules: nn.Module) -> bool:
    """Whether one of *modules* has got a way of its own from input to output, as an attribute of the instance."""
    return any(name in vars(module) for module in modules for name in ("forward", "output_layer"))


def _gives_features(model: Type[Any], decoder: Type[Any]) -> bool:
    """Whether both classes leave the way from features to log-probs as fairseq wrote it."""
    return (
        "features_only" in signature(model.forward).parameters
        and issubclass(decoder, TransformerDecoderBase)
        and decoder.forward is TransformerDecoderBase.forward
        and decoder.output_layer is TransformerDecoderBase.output_layer
        and decoder.get_normalized_probs is FairseqDecoder.get_normalized_probs
        and decoder.get_normalized_probs_scriptable is FairseqDecoder.get_normalized_probs_scriptable
        and model.get_normalized_probs in _PLAIN_PROBABILITIES
        and model.get_normalized_probs_scriptable is BaseFairseqModel.get_normalized_probs_scriptable
    )

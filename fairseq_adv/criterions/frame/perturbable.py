"""Whether a model can be perturbed: asked once, before the first update, of each model that a run trains."""

from __future__ import annotations

from typing import Dict, List

import torch
from fairseq.models import FairseqMultiModel
from fairseq.models.lstm import LSTMEncoder
from torch import nn

from fairseq_adv.perturb import EmbeddingHook


def bare_model(model: nn.Module) -> nn.Module:
    """The model inside the wrappers for distributed training (each keeps it under ``module``)."""
    while isinstance(getattr(model, "_modules", {}).get("module"), nn.Module):
        model = model._modules["module"]  # type: ignore[assignment]
    return model


def models_inside(model: nn.Module) -> List[nn.Module]:
    """The models that batches go through: *model* itself, or one for each language pair."""
    bare = bare_model(model)
    return list(bare.models.values()) if isinstance(bare, FairseqMultiModel) else [bare]


def hook_on(model: nn.Module, pads: Dict[str, int], other_rows: str) -> EmbeddingHook:
    """The hook on the word embeddings of *model*; raises ``ValueError`` that names what of it cannot be perturbed.

    *other_rows* is the option, if there is one, that runs passes over more or fewer rows than the batch has.
    """
    refuse_unrepeatable(model)
    if other_rows:
        refuse_other_rows(model, other_rows)
    hook = EmbeddingHook(model, pads)
    for side in sorted(set(pads) - set(hook.dims)):
        raise ValueError(
            f"cannot perturb side {side!r} of {type(model).__name__}: its embed_tokens is no table of word embeddings "
            "and tells no embedding_dim; choose the other side with --adv-sides, or a model with word embeddings there"
        )
    return hook


def refuse_unrepeatable(model: nn.Module) -> None:
    """Raise ``ValueError`` for what makes two passes differ by more than δ and dropout: quantisation noise."""
    for module in model.modules():
        hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        if any(getattr(hook, "__module__", "") == "fairseq.modules.quant_noise" for hook in hooks):
            raise ValueError(
                "--quant-noise-pq changes weights at random inside each pass, so the effect of a perturbation "
                "cannot be told from it; train with --quant-noise-pq 0"
            )
        if type(module).__module__.startswith("fairseq.modules.quantization.scalar"):
            raise ValueError(
                "--quant-noise-scalar changes weights at random inside each pass and counts the passes to choose its "
                "scale, so the effect of a perturbation cannot be told from it; train with --quant-noise-scalar 0"
            )


def refuse_other_rows(model: nn.Module, option: str) -> None:
    """Raise ``ValueError`` for an encoder whose rows must come sorted, with one that fills all columns: no other rows.

    A batch twice over is not sorted; some of its rows may all be shorter than its columns.
    """
    if isinstance(getattr(model, "encoder", None), LSTMEncoder):
        raise ValueError(
            f"{option} runs passes over more or fewer rows than a batch has, but {type(model).__name__} needs them "
            "sorted by length and the longest among them; leave the option out"
        )


def refuse_kept_dropout_state(model: nn.Module) -> None:
    """Raise ``ValueError`` for dropout whose masks no pass can replay: between the layers of cuDNN's recurrences.

    cuDNN keeps a state for them that it seeds once in a process and that no generator resets (``get_dropout_state`` of
    torch's ``RNN.cpp``), so an ascent would climb the difference of two masks.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.RNNBase) and module.num_layers > 1 and module.dropout > 0 and runs_on_cudnn(module):
            raise ValueError(
                f"the dropout of {module.dropout:g} between the layers of {name} cannot be replayed: cuDNN draws it "
                "from a state of its own, so the passes of this method would differ by their masks; train with "
                "--encoder-dropout-out 0, with --encoder-layers 1 --decoder-layers 1, or with a method whose passes "
                "share no masks, such as r3f"
            )


def runs_on_cudnn(module: nn.Module) -> bool:
    """Whether *module*, a recurrence, computes with cuDNN's kernels."""
    return torch.backends.cudnn.is_acceptable(next(module.parameters()))

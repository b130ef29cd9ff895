"""The word embeddings of a trained fairseq model, without building the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Union

import torch
from torch import Tensor

from fairseq_adv import compat

# side -> where the models of translation, and of sentence tasks, keep it
_PARAMETERS = {
    "src": ("encoder.embed_tokens.weight", "encoder.sentence_encoder.embed_tokens.weight"),
    "tgt": ("decoder.embed_tokens.weight",),
}


def read_checkpoint_embeddings(path: Union[str, Path], side: str, dictionary_size: int) -> Tensor:
    """Embedding matrix (``dictionary_size x D``, fp32) of the encoder (``"src"``) or the decoder (``"tgt"``).

    Nothing but tensors and plain containers is unpickled. Raises ``FileNotFoundError`` without a file and
    ``ValueError`` for one that is no fairseq checkpoint, has no such matrix, or belongs to another dictionary.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    model = _read_safely(path)
    parameter = next((name for name in _PARAMETERS[side] if name in model), None)
    if parameter is None:
        names = " or ".join(_PARAMETERS[side])
        raise ValueError(f"checkpoint {path} has no parameter {names}: choose other --{side}-embeddings")
    weight = model[parameter]
    if weight.size(0) != dictionary_size:
        raise ValueError(
            f"checkpoint {path} has {weight.size(0)} embeddings in {parameter}, but the {side} dictionary has "
            f"{dictionary_size} symbols: it was trained on data with another dictionary"
        )
    return weight.float()


def _read_safely(path: Path) -> Any:
    compat.apply()  # registers the plain classes that fairseq stores beside tensors
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"cannot read {path} as a fairseq checkpoint: {reason}") from error
    model = state.get("model") if isinstance(state, dict) else None
    if not isinstance(model, dict):
        raise ValueError(f"{path} is no fairseq checkpoint: it holds no model parameters")
    return model

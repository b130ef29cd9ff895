"""The parameters of a BERT or RoBERTa of transformers under the names, and in the order, of fairseq's RoBERTa."""

from __future__ import annotations

from typing import Dict, Iterator, List, Sequence, Tuple

import torch
from torch import Tensor

SENTENCE_ENCODER = "encoder.sentence_encoder."
LM_HEAD = "encoder.lm_head."
POSITION_OFFSET = 2  # fairseq's position 0 has row pad + 1
_BERT_LAYER = "encoder.layer.{}."
# transformers' name inside a layer -> fairseq's
_LAYER = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "output.LayerNorm": "final_layer_norm",
}
# the head for masked words: BERT's name and RoBERTa's -> fairseq's
_MASKED_WORDS = {
    ("cls.predictions.transform.dense", "lm_head.dense"): "dense",
    ("cls.predictions.transform.LayerNorm", "lm_head.layer_norm"): "layer_norm",
}
_BIASES = ("cls.predictions.bias", "lm_head.bias", "cls.predictions.decoder.bias", "lm_head.decoder.bias")


def converted(
    parameters: Dict[str, Tensor], rows: Sequence[int], num_layers: int, position_rows: slice
) -> Dict[str, Tensor]:
    """Fairseq's state of the model (fp32) for transformers' *parameters*, the first *num_layers* layers of it.

    *rows*: the row of the old word embeddings for each symbol of fairseq's dictionary, −1 for a row of zeros.
    *position_rows*: the old rows of positions 0, 1, …. The embedding of segment 0 is added to them, since fairseq's
    model has no segments. Without a head for masked words there is one that does nothing: loading asks for it.

    Raises ``ValueError`` naming the parameter that is missing.
    """
    old = _Parameters(parameters)
    words = _take_rows(old["embeddings.word_embeddings.weight"], rows)
    positions = old["embeddings.position_embeddings.weight"][position_rows]
    if "embeddings.token_type_embeddings.weight" in old:
        positions = positions + old["embeddings.token_type_embeddings.weight"][0]
    state = {
        f"{SENTENCE_ENCODER}version": torch.tensor([3.0]),
        f"{SENTENCE_ENCODER}embed_tokens.weight": words,
        f"{SENTENCE_ENCODER}embed_positions.weight": torch.cat(
            [positions.new_zeros(POSITION_OFFSET, positions.size(1)), positions]
        ),
    }
    state.update(_pair(f"{SENTENCE_ENCODER}layernorm_embedding", old, "embeddings.LayerNorm"))
    for layer in range(num_layers):
        for name, fairseq_name in _LAYER.items():
            prefix = f"{SENTENCE_ENCODER}layers.{layer}.{fairseq_name}"
            state.update(_pair(prefix, old, _BERT_LAYER.format(layer) + name))
    state.update(_masked_words(old, words, rows))
    state = {name: tensor.float().clone() for name, tensor in state.items()}
    state[f"{LM_HEAD}weight"] = state[f"{SENTENCE_ENCODER}embed_tokens.weight"]  # stored once
    return state


class _Parameters:
    """Parameters by their name inside the encoder, whatever the model around it puts before (``bert.``, …)."""

    def __init__(self, parameters: Dict[str, Tensor]) -> None:
        self._parameters = {_modern(name): tensor for name, tensor in parameters.items()}
        anchor = "embeddings.word_embeddings.weight"
        found = next((name for name in self._parameters if name == anchor or name.endswith(f".{anchor}")), anchor)
        self._prefix = found[: -len(anchor)]

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._parameters or name in self._parameters

    def __getitem__(self, name: str) -> Tensor:
        for full in (self._prefix + name, name):
            if full in self._parameters:
                return self._parameters[full]
        raise ValueError(f"the model has no parameter {self._prefix}{name}: it is no BERT or RoBERTa")


def _modern(name: str) -> str:
    """Early files of BERT call the parameters of LayerNorms gamma and beta."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _pair(fairseq_name: str, old: _Parameters, name: str) -> Iterator[Tuple[str, Tensor]]:
    for kind in ("weight", "bias"):
        yield f"{fairseq_name}.{kind}", old[f"{name}.{kind}"]


def _take_rows(matrix: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows of *matrix* (``V x D`` or ``V``) in another order; zeros where the row is −1."""
    order = torch.as_tensor(rows, dtype=torch.long)
    taken = matrix[order.clamp(min=0)].clone()
    taken[order < 0] = 0
    return taken


def _masked_words(old: _Parameters, words: Tensor, rows: Sequence[int]) -> Dict[str, Tensor]:
    dim = words.size(1)
    state = {f"{LM_HEAD}bias": words.new_zeros(len(words))}
    nothing: Dict[str, List[Tensor]] = {
        "dense": [torch.eye(dim), torch.zeros(dim)],
        "layer_norm": [torch.ones(dim), torch.zeros(dim)],
    }
    for names, fairseq_name in _MASKED_WORDS.items():
        found = next((name for name in names if f"{name}.weight" in old), None)
        values = [old[f"{found}.weight"], old[f"{found}.bias"]] if found else nothing[fairseq_name]
        state.update({f"{LM_HEAD}{fairseq_name}.{kind}": v for kind, v in zip(("weight", "bias"), values)})
    bias = next((name for name in _BIASES if name in old), None)
    if bias:
        state[f"{LM_HEAD}bias"] = _take_rows(old[bias], rows)
    return state

"""Folders of small BERT-like models of transformers with random parameters, and a slow, plain forward pass of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Dict, List, Sequence

import torch
from safetensors.torch import save_file
from torch import Tensor

WORDS = ["the", "a", "dog", "##s", "bark", "run", ".", ",", "quiet", "##ly"]
# specials neither first nor in fairseq's order, as in BERT's own vocabulary
VOCABULARY = ["[PAD]", "the", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS[1:]]
DIM, FFN, HEADS, POSITIONS = 16, 24, 4, 12


def config(**changes: Any) -> Dict[str, Any]:
    own = dict(model_type="bert", vocab_size=len(VOCABULARY), hidden_size=DIM, intermediate_size=FFN)
    own.update(num_hidden_layers=3, num_attention_heads=HEADS, hidden_act="gelu", layer_norm_eps=1e-3)
    own.update(max_position_embeddings=POSITIONS, type_vocab_size=2, position_embedding_type="absolute")
    return {**own, **changes}


def parameters(settings: Dict[str, Any], seed: int = 1) -> Dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / 2

    found = {
        "embeddings.word_embeddings.weight": draw(settings["vocab_size"], DIM),
        "embeddings.position_embeddings.weight": draw(settings["max_position_embeddings"], DIM),
        "embeddings.token_type_embeddings.weight": draw(settings["type_vocab_size"], DIM),
        "embeddings.LayerNorm.weight": 1 + draw(DIM),
        "embeddings.LayerNorm.bias": draw(DIM),
    }
    for layer in range(settings["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}"
        shapes = {f"attention.self.{name}": (DIM, DIM) for name in ("query", "key", "value")}
        shapes.update(
            {"attention.output.dense": (DIM, DIM), "intermediate.dense": (FFN, DIM), "output.dense": (DIM, FFN)}
        )
        for name, shape in shapes.items():
            found[f"{prefix}.{name}.weight"], found[f"{prefix}.{name}.bias"] = draw(*shape), draw(shape[0])
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found[f"{prefix}.{name}.weight"], found[f"{prefix}.{name}.bias"] = 1 + draw(DIM), draw(DIM)
    return found


def write_model(folder: Path, prefix: str = "bert.", words: Sequence[str] = VOCABULARY, **changes: Any) -> Path:
    """A folder as transformers writes it, with a tokenizer of *words*."""
    settings = config(**{"vocab_size": len(words), **changes})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="BertTokenizer", do_lower_case=True)))
    save_file({prefix + name: value for name, value in parameters(settings).items()}, folder / "model.safetensors")
    return folder


def features(p: Dict[str, Tensor], settings: Dict[str, Any], ids: List[int], first: int, num_layers: int) -> Tensor:
    """Features (``L x D``) of one sentence of *ids* with its specials, after Devlin et al., head by head, in double."""
    p = {name: value.double() for name, value in p.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + settings["layer_norm_eps"]).sqrt()
        return centred / scale * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    x = p["embeddings.word_embeddings.weight"][ids]
    x = x + p["embeddings.position_embeddings.weight"][first : first + len(ids)]
    x = norm(x + p["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(num_layers):
        at = f"encoder.layer.{layer}"
        query, key, value = (linear(x, f"{at}.attention.self.{name}") for name in ("query", "key", "value"))
        heads = []
        for columns in torch.arange(DIM).split(DIM // HEADS):
            scores = query[:, columns] @ key[:, columns].T / math.sqrt(len(columns))
            heads.append(scores.softmax(-1) @ value[:, columns])
        x = norm(x + linear(torch.cat(heads, -1), f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        hidden = linear(x, f"{at}.intermediate.dense")
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        x = norm(x + linear(hidden, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x

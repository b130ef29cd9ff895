"""A BERT or RoBERTa of transformers as a folder that fairseq trains from.

DIR/model.pt          checkpoint of fairseq's RoBERTa; tensors and plain containers only
DIR/dict.txt          dictionary
DIR/train-options     what fairseq-train needs: $(cat DIR/train-options)
DIR/encoder.json      where it came from and what it is
DIR/tokenizer/        files of its tokenizer
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch

from fairseq_adv.encoders.bert_parameters import POSITION_OFFSET, converted
from fairseq_adv.encoders.vocabulary import Vocabulary, load_tokenizer
from fairseq_adv.neighbors.model_files import find_file, read_parameters

FACTS, OPTIONS, CHECKPOINT, DICTIONARY, TOKENIZER = "encoder.json", "train-options", "model.pt", "dict.txt", "tokenizer"
# transformers' model_type -> row of its position 0
_FIRST_POSITION = {"bert": 0, "roberta": POSITION_OFFSET, "camembert": POSITION_OFFSET, "xlm-roberta": POSITION_OFFSET}
_ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "tanh": "tanh", "gelu_new": "gelu_accurate"}


def convert_bert(source: str, output: Path, num_layers: Optional[int] = None) -> Dict[str, Any]:
    """Write the model *source* (``hf:PATH_OR_NAME``) to the folder *output*; the facts of ``encoder.json``.

    *num_layers* takes the first layers only. Raises ``ValueError`` for what cannot be converted.
    """
    kind, _, name = source.partition(":")
    if kind != "hf" or not name:
        raise ValueError(f"unknown model {source!r}: give hf:PATH_OR_NAME, a BERT or RoBERTa of transformers")
    config = _config(name)
    _check(name, config)
    num_layers = _layers(config, num_layers)
    tokenizer = load_tokenizer(name)
    vocabulary = Vocabulary(tokenizer)
    first = _FIRST_POSITION[config["model_type"]]
    max_positions = config["max_position_embeddings"] - first
    positions = slice(first, config["max_position_embeddings"])
    state = converted(read_parameters(name), vocabulary.rows, num_layers, positions)
    options = train_options(config, num_layers, max_positions)
    facts = {"source": source, "layers": num_layers, "symbols": len(vocabulary.symbols), "options": options}
    facts.update(model_type=config["model_type"], max_positions=max_positions, dim=config["hidden_size"])
    output.mkdir(parents=True, exist_ok=True)
    vocabulary.write(output / DICTIONARY)
    tokenizer.save_pretrained(str(output / TOKENIZER))
    torch.save(checkpoint(state), output / CHECKPOINT)
    (output / OPTIONS).write_text(" ".join(options) + "\n", encoding="utf-8")
    (output / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts


def train_options(config: Dict[str, Any], num_layers: int, max_positions: int) -> List[str]:
    """The architecture, as options of ``fairseq-train``; BERT's rates of dropout stay with the caller."""
    options = {
        "--arch": "adv_roberta",
        "--adv-layernorm-eps": f"{config['layer_norm_eps']:g}",
        "--encoder-layers": num_layers,
        "--encoder-embed-dim": config["hidden_size"],
        "--encoder-ffn-embed-dim": config["intermediate_size"],
        "--encoder-attention-heads": config["num_attention_heads"],
        "--activation-fn": _ACTIVATIONS[config["hidden_act"]],
        "--max-positions": max_positions,
        "--init-token": 0,  # <s>: the head for sentences reads the first column
    }
    if config["model_type"] != "bert":
        options["--separator-token"] = 2  # RoBERTa puts </s></s> between the sentences of a pair
    return [str(word) for pair in options.items() for word in pair]


def checkpoint(state: Dict[str, torch.Tensor]) -> Dict[str, Any]:
    """What ``--finetune-from-model`` reads: parameters, and a training that has not begun."""
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}
    return {"model": state, "extra_state": {}, "optimizer_history": [history], "last_optimizer_state": None}


def read_facts(folder: Path) -> Dict[str, Any]:
    """``encoder.json`` of a converted model; ``FileNotFoundError`` says how to make one."""
    path = folder / FACTS
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no converted encoder: fairseq-adv convert-bert hf:MODEL --output {folder}"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def _config(name: str) -> Dict[str, Any]:
    path = find_file(name, "config.json")
    if path is None:
        raise ValueError(
            f"cannot read hf:{name}: there is no config.json; give a folder with a model, or a name on the hub"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def _check(name: str, config: Dict[str, Any]) -> None:
    kind, activation = config.get("model_type"), config.get("hidden_act")
    if kind not in _FIRST_POSITION:
        raise ValueError(f"hf:{name} is of type {kind!r}: only {', '.join(_FIRST_POSITION)} can be converted")
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f"hf:{name} has the activation {activation!r}: fairseq's RoBERTa has {', '.join(_ACTIVATIONS)}"
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"hf:{name} has {config['position_embedding_type']} positions, which fairseq's RoBERTa has not"
        )


def _layers(config: Dict[str, Any], wanted: Optional[int]) -> int:
    there = config["num_hidden_layers"]
    if wanted is not None and not 1 <= wanted <= there:
        raise ValueError(f"--layers must be in [1, {there}], the layers of the model, got {wanted}")
    return wanted or there

"""Small real RoBERTa-like encoders with a head for sentences, and batches for them, for unit tests."""

from __future__ import annotations

from argparse import Namespace
from typing import Any, Dict, Sequence

import torch
from fairseq.data import Dictionary, data_utils
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY

from tests.unit.toy_models import dictionary

HEAD = "sentence_classification_head"
DIM = 16


def sentence_task(classes: int = 3) -> Any:
    """As much of a sentence task as models and criterions read."""
    words, labels = dictionary(), Dictionary()
    for label in range(classes):
        labels.add_symbol(str(label))

    class SentenceTask:
        source_dictionary = target_dictionary = dictionary = words
        label_dictionary = labels

        def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
            raise NotImplementedError

        def begin_epoch(self, epoch: int, model: Any) -> None:
            pass

    return SentenceTask()


def sentence_model(classes: int = 3, dropout: float = 0.0, seed: int = 1, **overrides: Any) -> Any:
    """RoBERTa with two layers and a head for *classes* (1: regression), in training mode."""
    args = Namespace(
        encoder_layers=2,
        encoder_embed_dim=DIM,
        encoder_ffn_embed_dim=32,
        encoder_attention_heads=2,
        dropout=dropout,
        attention_dropout=dropout,
        pooler_dropout=dropout,
        max_positions=64,
        tokens_per_sample=64,
        **overrides,
    )
    ARCH_CONFIG_REGISTRY["roberta"](args)
    torch.manual_seed(seed)
    model = ARCH_MODEL_REGISTRY["roberta"].build_model(args, sentence_task())
    model.register_classification_head(HEAD, num_classes=classes)
    for parameter in model.parameters():  # weights of BERT's size hardly tell one input from another
        parameter.data.mul_(3.0) if parameter.dim() > 1 else None
    return model.train()


def sentence_batch(
    lengths: Sequence[int] = (5, 3, 1, 7), classes: int = 3, seed: int = 1, first_id: int = 0
) -> Dict[str, Any]:
    """A batch as the sentence task collates it, right-padded; lengths without ``<s>``, ``</s>``. 1 class: numbers."""
    words = dictionary()
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for length in lengths:
        body = torch.randint(words.nspecial, len(words), (length,), generator=generator)
        rows.append(torch.cat([torch.tensor([words.bos()]), body, torch.tensor([words.eos()])]))
    labels = torch.randint(0, classes, (len(rows), 1), generator=generator)
    return {
        "id": torch.arange(first_id, first_id + len(rows)),
        "nsentences": len(rows),
        "ntokens": sum(len(row) for row in rows),
        "net_input": {
            "src_tokens": data_utils.collate_tokens(rows, words.pad()),
            "src_lengths": torch.tensor([len(row) for row in rows]),
        },
        "target": labels if classes > 1 else torch.randn(len(rows), 1, generator=generator),
    }

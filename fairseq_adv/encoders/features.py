"""Vectors of sentences by a converted encoder as it is, before any training on the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Sequence, Tuple

import torch
from torch import Tensor

from fairseq_adv.encoders.convert import CHECKPOINT, DICTIONARY, OPTIONS, TOKENIZER, read_facts
from fairseq_adv.encoders.vocabulary import Vocabulary, load_tokenizer

BATCH = 64  # sentences of a pass


def load_encoder(folder: Path) -> Tuple[Any, Any]:
    """The model that ``fairseq-train`` would start from, in evaluation, and its dictionary.

    The plugin has to be registered (``fairseq_adv.register()``). ``FileNotFoundError`` for another folder.
    """
    from fairseq import checkpoint_utils, options
    from fairseq.models import ARCH_MODEL_REGISTRY
    from fairseq.tasks.sentence_prediction import SentencePredictionTask

    read_facts(folder)
    words = (folder / OPTIONS).read_text(encoding="utf-8").split()
    task = ["--task", "sentence_prediction", "--criterion", "sentence_prediction", "--num-classes", "1"]
    args = options.parse_args_and_arch(options.get_training_parser(), [str(folder), *task, *words])
    dictionary = SentencePredictionTask.load_dictionary(str(folder / DICTIONARY))
    model = ARCH_MODEL_REGISTRY[args.arch].build_model(args, _Words(dictionary))
    model.load_state_dict(checkpoint_utils.load_checkpoint_to_cpu(str(folder / CHECKPOINT))["model"])
    return model.eval(), dictionary


class _Words:
    """What RoBERTa asks of a task when it is built."""

    def __init__(self, dictionary: Any) -> None:
        self.source_dictionary = dictionary


def rows_of(dictionary: Any, vocabulary: Vocabulary, sentences: Sequence[str], max_positions: int) -> List[Tensor]:
    """Each sentence as a row of symbols, ``<s> … </s>``, cut to *max_positions*."""
    rows = []
    for symbols in vocabulary.split(sentences, max_positions - 2):
        line = dictionary.encode_line(" ".join(symbols), add_if_not_exist=False).long()
        rows.append(torch.cat([line.new_tensor([dictionary.bos()]), line]))
    return rows


def mean_vectors(folder: Path, sentences: Sequence[str]) -> Tensor:
    """N x D: the mean of each sentence's features, specials included, as sentence-transformers pools MiniLM's."""
    model, dictionary = load_encoder(folder)
    rows = rows_of(
        dictionary, Vocabulary(load_tokenizer(str(folder / TOKENIZER))), sentences, read_facts(folder)["max_positions"]
    )
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    vectors: List[Tensor] = [torch.empty(0)] * len(rows)
    with torch.no_grad():
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            tokens = torch.nn.utils.rnn.pad_sequence([rows[row] for row in chosen], True, dictionary.pad())
            features, _ = model(tokens, features_only=True)  # B x T x D
            real = tokens.ne(dictionary.pad()).unsqueeze(-1)
            for row, vector in zip(chosen, (features * real).sum(1) / real.sum(1)):
                vectors[row] = vector
    return torch.stack(vectors)


def cosines(folder: Path, firsts: Sequence[str], seconds: Sequence[str]) -> List[float]:
    """Cosine of the untuned vectors of each pair."""
    vectors = torch.nn.functional.normalize(mean_vectors(folder, [*firsts, *seconds]), dim=-1)
    return (vectors[: len(firsts)] * vectors[len(firsts) :]).sum(-1).tolist()

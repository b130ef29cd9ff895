"""Hidden source words: how many, which ones, and what stays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fairseq_adv.data.source_augmentation import read_sources
from fairseq_adv.data.source_cutoff import SourceCutoff
from tests.integration.running import build_trainer, default_args

UNKNOWN, END = 3, 2


class Sentences(list):
    sizes = [51] * 200


def sentences() -> Sentences:
    return Sentences(torch.cat([torch.arange(10, 60), torch.tensor([END])]) for _ in range(200))


def test_the_share_of_words_and_the_end() -> None:
    cut = SourceCutoff(sentences(), 0.2, UNKNOWN, END, seed=1)
    rows = torch.stack([cut[i] for i in range(200)])
    hidden = rows.eq(UNKNOWN)
    assert hidden[:, :-1].float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert rows[:, -1].eq(END).all() and rows[~hidden].eq(torch.stack(list(sentences()))[~hidden]).all()


def test_seed_epoch_and_sentence_decide() -> None:
    cut, again, other = (SourceCutoff(sentences(), 0.2, UNKNOWN, END, seed) for seed in (1, 1, 2))
    assert torch.equal(cut[5], again[5]) and not torch.equal(cut[5], cut[6]) and not torch.equal(cut[5], other[5])
    first = cut[5]
    cut.set_epoch(2)
    assert not torch.equal(cut[5], first)
    cut.set_epoch(1)
    assert torch.equal(cut[5], first)


def test_every_seed_that_fairseq_takes_will_do() -> None:
    """Such as a date; numpy's are of 32 bits."""
    first, second = (SourceCutoff(sentences(), 0.2, UNKNOWN, END, seed) for seed in (20221125, 2**32 - 2))
    second.set_epoch(1000)
    assert first[5].eq(UNKNOWN).any() and not torch.equal(first[5], second[5])


def test_a_data_set_passes_the_epoch_on() -> None:
    dataset = SimpleNamespace(src=sentences())
    read_sources(dataset, SourceCutoff(dataset.src, 0.5, UNKNOWN, END, 1))
    first = dataset.src[0]
    dataset.set_epoch(2)
    assert not torch.equal(dataset.src[0], first)


def test_training_pairs_only_and_every_epoch_anew(tiny_corpus: Path, tmp_path: Path) -> None:
    words = [*default_args(tiny_corpus, tmp_path), "--task", "adversarial_translation", "--adv-source-cutoff", "0.3"]
    training = build_trainer(words)
    unknown = training.task.source_dictionary.unk()

    def hidden(epoch: int) -> list:
        iterator = training.trainer.get_train_iterator(epoch).next_epoch_itr(shuffle=False)
        return [sample["net_input"]["src_tokens"].eq(unknown).sum().item() for sample in iterator]

    one, two = hidden(1), hidden(2)
    assert sum(one) > 0 and one != two
    training.task.load_dataset("valid")
    valid = training.task.dataset("valid")
    assert not isinstance(valid.src, SourceCutoff)


def test_a_share_that_cannot_be(tiny_corpus: Path, tmp_path: Path) -> None:
    words = [*default_args(tiny_corpus, tmp_path), "--task", "adversarial_translation", "--adv-source-cutoff", "1"]
    with pytest.raises(ValueError, match=r"--adv-source-cutoff must be in \[0, 1\), got 1"):
        build_trainer(words)

"""BPE-dropout: against sentencepiece without it, against every outcome's probability with it, and in a training."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset

from fairseq_adv.criterions.frame.arch_setup import refuse_unknown_samples
from fairseq_adv.data.bpe_dropout import BpeDropout, merge_ranks, split_word
from fairseq_adv.data.source_augmentation import read_sources
from tests.integration.running import build_trainer, default_args

sentencepiece = pytest.importorskip("sentencepiece")
SENTENCES = ["lower lowest slow slower", "newer newest wide wider widest", "the slowest news widen the lower end"] * 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("model"), "bpe", 40)


def trained(folder: Path, kind: str, size: int) -> Path:
    (folder / "text").write_text("\n".join(SENTENCES))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / kind), vocab_size=size, model_type=kind, minloglevel=2
    )
    return folder / f"{kind}.model"


def pieces_of(model: Path, sentence: str) -> List[str]:
    return sentencepiece.SentencePieceProcessor(model_file=str(model)).encode(sentence, out_type=str)


def dictionary(model: Path) -> Dictionary:
    words = Dictionary()
    for piece in merge_ranks(model):
        words.add_symbol(piece)
    return words


class Sentences(list):
    sizes = [9] * len(SENTENCES)


def rows(words: Dictionary, model: Path) -> Sentences:
    lines = (" ".join(pieces_of(model, sentence)) for sentence in SENTENCES)
    return Sentences(words.encode_line(line, add_if_not_exist=False).long() for line in lines)


def test_without_dropout_it_is_the_segmentation_of_sentencepiece(model: Path) -> None:
    words = dictionary(model)
    data = rows(words, model)
    cut = BpeDropout(data, 0.0, merge_ranks(model), words, 100, seed=1)
    assert all(torch.equal(cut[index], data[index]) for index in range(len(data)))
    assert split_word("▁slowest", merge_ranks(model), lambda: False) == pieces_of(model, "slowest")


def outcomes(pieces: Tuple[str, ...], ranks: Dict[str, int], share: float) -> Dict[Tuple[str, ...], float]:
    """The probability of every segmentation, over all sets of merges that each step can leave out."""
    possible = [i for i in range(len(pieces) - 1) if pieces[i] + pieces[i + 1] in ranks]
    found: Dict[Tuple[str, ...], float] = {}
    for kept in itertools.product((True, False), repeat=len(possible)):
        probability = (1 - share) ** sum(kept) * share ** (len(kept) - sum(kept))
        left = [place for place, stays in zip(possible, kept) if stays]
        if not left:
            ends = {pieces: 1.0}
        else:
            place = min(left, key=lambda i: (ranks[pieces[i] + pieces[i + 1]], i))
            merged = (*pieces[:place], pieces[place] + pieces[place + 1], *pieces[place + 2 :])
            ends = outcomes(merged, ranks, share)
        for end, rest in ends.items():
            found[end] = found.get(end, 0.0) + probability * rest
    return found


def test_every_segmentation_is_as_frequent_as_its_probability(model: Path) -> None:
    ranks, share, draws = merge_ranks(model), 0.3, 6000
    expected = outcomes(tuple("▁slowest"), ranks, share)
    generator = torch.Generator().manual_seed(3)
    uniform: Iterator[float] = iter(torch.rand(draws * 64, generator=generator).tolist())
    found = Counter(tuple(split_word("▁slowest", ranks, lambda: next(uniform) < share)) for _ in range(draws))
    assert len(expected) > 4 and set(found) <= set(expected)
    for pieces, probability in expected.items():
        deviation = (probability * (1 - probability) / draws) ** 0.5
        assert abs(found[pieces] / draws - probability) < 4 * deviation + 1e-9, pieces


def test_the_text_stays_and_seed_epoch_and_sentence_decide(model: Path) -> None:
    words = dictionary(model)
    data = rows(words, model)
    cut, again, other = (BpeDropout(data, 0.5, merge_ranks(model), words, 100, seed) for seed in (1, 1, 2))
    text = [words.string(cut[index], "sentencepiece") for index in range(len(data))]
    assert text == [words.string(row, "sentencepiece") for row in data]
    assert all(cut[index][-1] == words.eos() for index in range(len(data)))
    assert torch.equal(cut[0], again[0]) and [*map(len, cut)] != [*map(len, other)]
    first = [row.tolist() for row in cut]
    cut.set_epoch(2)
    assert [row.tolist() for row in cut] != first
    cut.set_epoch(1)
    assert [row.tolist() for row in cut] == first


def test_what_cannot_be_cut_stays(model: Path) -> None:
    words = dictionary(model)
    data = rows(words, model)
    every = merge_ranks(model)
    longest = max(map(len, data))
    short = BpeDropout(data, 0.99, every, words, longest, seed=1)
    assert all(len(short[index]) <= longest for index in range(len(data)))
    few = Dictionary()  # no letters: nothing else can be told in its symbols
    for piece in sorted({piece for sentence in SENTENCES for piece in pieces_of(model, sentence)}):
        few.add_symbol(piece) if len(piece) > 1 else None
    known = rows(few, model)
    kept = BpeDropout(known, 0.99, every, few, 100, seed=1)
    before = [few.string(row) for row in known]
    assert any("<unk>" in row for row in before)
    assert sum("<unk>" in few.string(kept[i]) for i in range(len(known))) == sum("<unk>" in row for row in before)


def test_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no model of byte-pair encoding"):
        merge_ranks(trained(tmp_path, "unigram", 24))
    with pytest.raises(FileNotFoundError, match=r"--adv-source-bpe-model .*there is no such file"):
        merge_ranks(tmp_path / "absent.model")


def test_batches_have_the_lengths_of_what_was_drawn(model: Path) -> None:
    words = dictionary(model)
    data = rows(words, model)
    sizes = [len(row) for row in data]
    pairs = LanguagePairDataset(data, sizes, words, data, sizes, words)
    read_sources(pairs, BpeDropout(pairs.src, 0.9, merge_ranks(model), words, 100, seed=1))
    drawn = [len(pairs.src[index]) for index in range(4)]
    batch = pairs.collater([pairs[index] for index in range(4)])
    lengths = dict(zip(batch["id"].tolist(), batch["net_input"]["src_lengths"].tolist()))
    assert [lengths[index] for index in range(4)] == drawn and max(drawn) > max(sizes[:4])
    assert batch["net_input"]["src_tokens"].ne(words.pad()).sum(1).sum() == sum(drawn)
    assert batch["ntokens"] == sum(sizes[:4]), "targets stay"


def test_arch_refuses_what_changes_the_tokens_that_it_keeps_perturbations_of() -> None:
    task = SimpleNamespace(cfg=SimpleNamespace(adv_source_bpe_dropout=0.1), has_sharded_data=lambda split: False)
    options = SimpleNamespace(dataset=SimpleNamespace(train_subset="train", valid_subset="valid"))
    with pytest.raises(ValueError, match=r"--adv-source-bpe-dropout 0.1 cuts a sentence into other pieces"):
        refuse_unknown_samples(task, SimpleNamespace(cfg=options))


def training(data: Path, folder: Path, *options: Any) -> Any:
    return build_trainer([*default_args(data, folder), "--task", "adversarial_translation", *map(str, options)])


def test_options_that_do_not_go_together(tiny_corpus: Path, tmp_path: Path, model: Path) -> None:
    share = ("--adv-source-bpe-dropout", 0.1)
    for options, message in (
        ((share[0], 1), r"--adv-source-bpe-dropout must be in \[0, 1\), got 1"),
        (share, "--adv-source-bpe-dropout needs --adv-source-bpe-model"),
        ((*share, "--adv-source-bpe-model", model, "--num-batch-buckets", 2), "--num-batch-buckets 2 pads sources"),
    ):
        with pytest.raises(ValueError, match=message):
            training(tiny_corpus, tmp_path, *options)

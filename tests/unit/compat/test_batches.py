"""A resumed epoch has the batches that were left, coming ones are told of, and no filler is among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import torch

from tests.integration.running import build_trainer, default_args, epoch_batches, save_checkpoint
from tests.unit.compat.unpatched import unpatched


def batch_ids(batches: Iterator[List[Dict[str, Any]]]) -> List[List[int]]:
    return [sample["id"].tolist() for samples in batches for sample in samples]


def all_ids(batches: List[List[int]]) -> List[int]:
    return sorted(i for batch in batches for i in batch)


def second_epoch(args: List[Any], stop_after: int) -> List[List[int]]:
    """Ids of the batches of epoch 2, with a checkpoint and a new trainer after *stop_after* of them (0: none)."""
    trainer = build_trainer([*args, "--max-epoch", 3]).trainer
    batch_ids(epoch_batches(trainer, 1))
    if stop_after == 0:
        return batch_ids(epoch_batches(trainer, 2))
    batches = epoch_batches(trainer, 2)
    seen = batch_ids(iter([next(batches) for _ in range(stop_after)]))
    save_checkpoint(trainer)
    return seen + batch_ids(epoch_batches(build_trainer([*args, "--max-epoch", 3]).trainer, 2))


def test_resumed_epoch_has_the_same_batches(tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fairseq.tasks.fairseq_task import FairseqTask

    args = default_args(tiny_corpus, tmp_path / "save")
    whole = second_epoch(args, stop_after=0)
    assert all_ids(whole) == list(range(160))
    assert second_epoch(args, stop_after=4) == whole

    monkeypatch.setattr(
        FairseqTask, "get_batch_iterator", unpatched("fairseq.tasks.fairseq_task.FairseqTask.get_batch_iterator")
    )
    elsewhere = [*args, "--save-dir", tmp_path / "unpatched"]
    assert second_epoch(elsewhere, stop_after=0) == whole, "uninterrupted runs must not change"
    assert all_ids(second_epoch(elsewhere, stop_after=4)) != list(range(160))


def test_batches_that_change_in_each_epoch_resume_too(tiny_corpus: Path, tmp_path: Path) -> None:
    args = [*default_args(tiny_corpus, tmp_path), "--grouped-shuffling", "--update-ordered-indices-seed"]
    assert second_epoch(args, stop_after=4) == second_epoch([*args, "--save-dir", tmp_path / "whole"], stop_after=0)


@pytest.mark.parametrize(("before", "now", "twice"), [(1, 2, 0), (2, 1, 0), (4, 2, 0), (2, 3, 0), (1, 4, 2)])
def test_other_ranks_go_on_with_the_batches_that_are_left(before: int, now: int, twice: int) -> None:
    from fairseq.data.iterators import EpochBatchIterator

    class Numbers(torch.utils.data.Dataset):
        def __getitem__(self, index: int) -> int:
            return index

    def iterators(ranks: int) -> List[EpochBatchIterator]:
        options = dict(batch_sampler=[[index] for index in range(27)], num_shards=ranks, persistent_workers=False)
        return [EpochBatchIterator(Numbers(), list, shard_id=rank, **options) for rank in range(ranks)]

    taken, left, left_by_fairseq = [], [], []
    for iterator in iterators(before):
        batches = iterator.next_epoch_itr()
        taken += [next(batches)[0] for _ in range(6)]
        state = iterator.state_dict()
    for iterator in iterators(now):
        iterator.load_state_dict(state)
        left += [batch[0] for batch in iterator.next_epoch_itr() if batch]
        unpatched("fairseq.data.iterators.EpochBatchIterator.load_state_dict")(iterator, state)
        left_by_fairseq += [batch[0] for batch in iterator.next_epoch_itr() if batch]
    assert set(taken) | set(left) == set(range(27))
    assert len(taken) + len(left) == 27 + twice
    assert len(taken) + len(left_by_fairseq) != 27 + twice


@pytest.mark.parametrize("buffer_size", [0, 3])
def test_coming_batches_are_told_of_two_ahead(buffer_size: int) -> None:
    from fairseq.data.iterators import EpochBatchIterator

    from fairseq_adv.compat.ahead import AHEAD

    class Numbers(torch.utils.data.Dataset):
        def __getitem__(self, index: int) -> int:
            return index

    def iterator(drop: bool = False) -> EpochBatchIterator:
        options = dict(batch_sampler=[[index] for index in range(9)], buffer_size=buffer_size, persistent_workers=False)
        return EpochBatchIterator(Numbers(), list, skip_remainder_batch=drop, **options)

    told: List[List[int]] = []
    telling, plain = iterator(), iterator()
    telling.foreseer = lambda: told.append
    wanted = list(plain.next_epoch_itr())
    for number, batch in enumerate(telling.next_epoch_itr(), start=1):
        assert batch == wanted[number - 1] and told == wanted[: number + AHEAD]
        assert telling.iterations_in_epoch == number
        if number == 4:
            state = telling.state_dict()
    resumed = iterator()
    resumed.load_state_dict(state)
    resumed.foreseer = lambda: told.append  # after the checkpoint was loaded, as an epoch's criterion does
    told.clear()
    assert list(resumed.next_epoch_itr()) == wanted[4:] == told
    shorter = iterator(drop=True)
    shorter.foreseer = lambda: told.append
    assert len(list(shorter.next_epoch_itr())) == len(wanted) - 1
    unknown = unpatched("fairseq.data.iterators.EpochBatchIterator._get_iterator_for_epoch")
    told.clear()
    assert list(unknown(telling, 2, False)) and told == []


def test_a_filler_beside_batches_is_left_out() -> None:
    from fairseq.data.iterators import GroupedIterator

    shard = [{"id": 1}, {"id": 2}, {"id": 3}, {}, {}, {}]
    groups = GroupedIterator(shard, 2)
    assert len(groups) == 3 and list(groups) == [[{"id": 1}, {"id": 2}], [{"id": 3}], [{}]]
    by_fairseq = unpatched("fairseq.data.iterators._chunk_iterator")(shard, 2)
    assert list(by_fairseq)[1] == [{"id": 3}, {}]
    assert list(GroupedIterator([1.5, 2.5], 2)) == [[1.5, 2.5]]  # items of other kinds pass

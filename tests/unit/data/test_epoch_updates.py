"""Epochs of whole updates: every sentence once, the same global batches on any number of ranks, resumed anywhere."""

from __future__ import annotations

from typing import Any, List

import numpy as np
import pytest
import torch
from fairseq.data import data_utils
from fairseq.data.iterators import EpochBatchIterator, GroupedIterator

import fairseq_adv
from fairseq_adv.data.batch_tokens import BatchTokensSchedule, parse_batch_tokens
from fairseq_adv.data.epoch_updates import UpdateEpochIterator, UpdatePlan
from fairseq_adv.data.update_groups import Replays

fairseq_adv.register()
SIZES = np.random.RandomState(1).randint(2, 30, size=300)
TOKENS = BatchTokensSchedule((0,), (200,))


class Sentences(torch.utils.data.Dataset):
    """Sample i is the number i; a batch is the list of its ids."""

    tgt_sizes = SIZES

    def __getitem__(self, index):
        return int(index)

    def __len__(self):
        return len(SIZES)

    def collater(self, samples):
        return {"id": samples} if samples else {}


def batches_of_epoch(dataset, epoch):
    """Up to 60 target tokens each, cut anew in each epoch as fairseq's tasks do."""
    with data_utils.numpy_seed(epoch):
        order = np.random.permutation(len(dataset))
    batches: List[List[Any]] = [[]]
    filled = 0
    for index in order:
        if filled + SIZES[index] > 60:
            batches, filled = [*batches, []], 0
        batches[-1].append(int(index))
        filled += SIZES[index]
    return batches


class Training:
    """An iterator with what the trainer does around it: it counts updates and goes from epoch to epoch."""

    def __init__(self, plan, rank=0, ranks=1, updates=0, **options):
        self.updates, dataset = updates, Sentences()
        self.skip = options.get("skip_remainder_batch", False)
        options = {"seed": 1, "num_shards": ranks, "shard_id": rank, "skip_remainder_batch": False, **options}
        plain = EpochBatchIterator(dataset, dataset.collater, batches_of_epoch, **options)
        self.epochs = UpdateEpochIterator.adopting(plain, plan, lambda: self.updates)
        self.current = None

    def epoch(self, stop=None, update_freq=1):
        """Sample ids of the rest of the epoch by update and micro-batch, or of the next *stop* updates."""
        groups = GroupedIterator(self.epochs.next_epoch_itr(), update_freq, skip_remainder_batch=self.skip)
        assert groups.n == self.epochs.iterations_in_epoch
        result: List[Any] = []
        while groups.has_next() and len(result) != stop:
            result.append([batch.get("id", []) for batch in next(groups)])
            self.updates += 1
        self.current = groups
        return result


def flat(updates):
    return [sample for update in updates for batch in update for sample in batch]


PLANS = {
    "tokens": UpdatePlan(TOKENS),
    "schedule": UpdatePlan(parse_batch_tokens("100@0,400@10,150@30")),
    "replays": UpdatePlan(replays=Replays(3)),
    "replays later": UpdatePlan(parse_batch_tokens("100@0,300@20"), replays=Replays(2, 7)),
    "look ahead": UpdatePlan(update_freq=[3], look_ahead=True),
    "tokens and look ahead": UpdatePlan(TOKENS, look_ahead=True),
}


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_global_batches_are_the_same_on_any_number_of_ranks(ranks):
    plan = PLANS["schedule"]
    one, several = Training(plan), [Training(plan, rank, ranks) for rank in range(ranks)]
    for _ in range(2):
        expected = one.epoch()
        parts = [training.epoch() for training in several]
        assert {len(part) for part in parts} == {len(expected)}
        for update, shares in zip(expected, zip(*parts)):
            assert sorted(flat([update])) == sorted(flat(shares))
            assert all(len(batch) > 0 for share in shares for batch in share[:-1])  # a dummy batch is alone
        assert sorted(flat(expected)) == list(range(len(SIZES)))


def test_order_changes_with_the_epoch_and_not_without_shuffling():
    training = Training(PLANS["tokens"])
    first, second = training.epoch(), training.epoch()
    assert first != second
    fixed = Training(PLANS["tokens"], disable_shuffling=True)
    assert flat(fixed.epoch()) == flat([batches_of_epoch(Sentences(), 1)])


def test_schedule_counts_the_updates_of_the_whole_training():
    training = Training(UpdatePlan(parse_batch_tokens("100@0,400@50")))
    first, second = training.epoch(), training.epoch()
    tokens = [SIZES[flat([update])].sum() for update in first + second]
    assert len(first) < 50
    assert all(abs(t - 100) <= 60 for t in tokens[:50]) and all(abs(t - 400) <= 60 for t in tokens[50:])


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_resume_at_any_update(name, ranks):
    plan, rank = PLANS[name], ranks - 1
    whole = Training(plan, rank, ranks)
    epochs = [whole.epoch(), whole.epoch()]
    for stop in range(1, len(epochs[1])):
        before = Training(plan, rank, ranks)
        before.epoch()
        start = before.epoch(stop)
        state = before.epochs.state_dict()
        after = Training(plan, rank, ranks, updates=before.updates, epoch=2)
        after.epochs.load_state_dict(state)
        assert start + after.epoch() == epochs[1]
        assert after.epochs.end_of_epoch()
    ended = whole.epochs.state_dict()
    assert ended["iterations_in_epoch"] == 0 and ended["epoch"] == 3
    after = Training(plan, rank, ranks, updates=whole.updates, epoch=3)
    after.epochs.load_state_dict(ended)
    assert after.epoch() == whole.epoch()


def test_data_loading_workers_and_buffer_change_nothing():
    plan = PLANS["replays later"]
    before = Training(plan, num_workers=1, buffer_size=5)
    result = before.epoch(11)
    after = Training(plan, num_workers=1, buffer_size=5, updates=11)
    after.epochs.load_state_dict(before.epochs.state_dict())
    assert result + after.epoch() == Training(plan).epoch()


def test_each_group_is_replayed_in_a_row():
    training, single = Training(PLANS["replays"]), Training(UpdatePlan(look_ahead=True))
    assert training.epoch() == [update for update in single.epoch() for _ in range(3)]
    assert training.current is not None
    assert len(training.current) == training.current.n == training.updates


def test_upcoming_is_the_next_update_and_empty_at_the_end():
    training = Training(PLANS["look ahead"])
    groups = training.epochs.next_epoch_itr()
    told = []
    for group in groups:
        told.append((group, training.epochs.upcoming))
        assert training.epochs.present_size == len(group)
        assert training.epochs.upcoming is training.epochs.upcoming
    assert [group for group, _ in told[1:]] == [upcoming for _, upcoming in told[:-1]]
    assert told[-1][1] == [] and len(told) > 10
    assert Training(PLANS["tokens"]).epochs.upcoming == []


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("skip", [False, True])
def test_groups_of_update_freq_are_those_of_fairseq(ranks, skip):
    """Apart from a dummy batch beside others, for which fairseq's trainer leaves the whole group out."""
    for rank in range(ranks):
        options = {"rank": rank, "ranks": ranks, "skip_remainder_batch": skip}
        ours = Training(UpdatePlan(update_freq=[3, 4], look_ahead=True), **options)
        theirs = Training(UpdatePlan(), **options)
        for frequency in (3, 4):
            expected = theirs.epoch(update_freq=frequency)
            assert ours.epoch() == [[batch for batch in update if batch] or [[]] for update in expected]


def test_remainder_is_left_out_if_asked():
    whole, short = (Training(PLANS["tokens"], skip_remainder_batch=skip).epoch() for skip in (False, True))
    left_out = SIZES.sum() - SIZES[flat(short)].sum()
    assert 0 < left_out < 200 + 60 and len(flat(whole)) == len(SIZES)


def test_without_need_for_a_plan_nothing_changes():
    ours, dataset = Training(UpdatePlan(update_freq=[3])), Sentences()
    theirs = EpochBatchIterator(dataset, dataset.collater, batches_of_epoch, seed=1)
    expected = [[batch["id"] for batch in group] for group in GroupedIterator(theirs.next_epoch_itr(), 3)]
    assert ours.epoch(update_freq=3) == expected
    assert ours.epochs.state_dict() == theirs.state_dict()


@pytest.mark.parametrize("old", [UpdatePlan(), PLANS["tokens"]])
def test_a_position_in_an_epoch_that_was_cut_otherwise_is_refused(old):
    before = Training(old)
    before.epoch(3)
    after = Training(PLANS["tokens"] if old is not PLANS["tokens"] else UpdatePlan())
    with pytest.raises(ValueError, match="--reset-dataloader"):
        after.epochs.load_state_dict(before.epochs.state_dict())


def test_what_depends_on_the_ranks_is_refused():
    with pytest.raises(ValueError, match="--grouped-shuffling"):
        Training(PLANS["tokens"], grouped_shuffling=True)


def test_a_later_target_below_one_micro_batch_is_refused_at_once():
    training = Training(UpdatePlan(parse_batch_tokens("200@0,40@1000")))
    with pytest.raises(ValueError, match=r"target of 40 tokens per update .*below one micro-batch"):
        training.epoch()
    passed = Training(UpdatePlan(parse_batch_tokens("40@0,200@1000")), updates=1000)
    assert len(passed.epoch()) > 10

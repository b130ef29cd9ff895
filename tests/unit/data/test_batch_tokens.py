"""The batch schedule's text form and the planner's promises, over random epochs."""

from __future__ import annotations

import random

import pytest

from fairseq_adv.data.batch_tokens import BatchTokensSchedule, batch_tokens_schedule, parse_batch_tokens, plan_updates


def random_epoch(rng, max_tokens):
    """Micro-batches of a corpus cut at ``max_tokens`` padded tokens, as target-token counts."""
    return [rng.randint(max(1, max_tokens // 2), max_tokens) for _ in range(rng.randint(1, 400))]


def cut_corpus(sentences, max_tokens):
    """Fill batches with sentences, in order, up to ``max_tokens`` target tokens each."""
    batches = [0]
    for length in sentences:
        if batches[-1] and batches[-1] + length > max_tokens:
            batches.append(0)
        batches[-1] += length
    return batches


def tokens_per_update(plan, batch_tokens):
    return [sum(batch_tokens[i] for rank in update for i in rank) for update in plan]


# schedule


def test_parse_reads_units_and_steps():
    schedule = parse_batch_tokens("32k@0, 128K@2000,1.5m@6000,7@6001")
    assert [schedule.at(u) for u in (0, 1, 1999, 2000, 5999, 6000, 6001, 10**9)] == [
        32_000,
        32_000,
        32_000,
        128_000,
        128_000,
        1_500_000,
        7,
        7,
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "cannot read ''"),
        ("32k", "cannot read '32k'"),
        ("32k@0,", "cannot read ''"),
        ("32g@0", "cannot read '32g@0'"),
        ("32k@0;64k@10", "cannot read '32k@0;64k@10'"),
        ("-5@0", "cannot read '-5@0'"),
        ("32k@-1", "cannot read '32k@-1'"),
        ("32k@1.5", "cannot read"),
        ("0@0", "positive whole number"),
        ("1.0005k@0", "positive whole number"),
        ("32k@5", "hold from update 0, got 5"),
        ("32k@0,64k@100,128k@100", "must ascend, got 100 after 100"),
        ("32k@0,64k@100,128k@50", "must ascend, got 50 after 100"),
    ],
)
def test_parse_names_what_is_malformed(text, complaint):
    with pytest.raises(ValueError, match="--batch-tokens-schedule") as error:
        parse_batch_tokens(text)
    assert complaint in str(error.value)


def test_schedule_refuses_a_negative_update():
    with pytest.raises(ValueError, match="update must be >= 0"):
        parse_batch_tokens("32k@0").at(-1)


def test_options_together():
    assert batch_tokens_schedule(0, "") is None
    fixed, growing = batch_tokens_schedule(5000), batch_tokens_schedule(0, "1k@0,2k@3")
    assert fixed is not None and fixed.at(17) == 5000
    assert growing is not None and growing.at(3) == 2000
    with pytest.raises(ValueError, match="drop one"):
        batch_tokens_schedule(5000, "1k@0")
    with pytest.raises(ValueError, match="--target-batch-tokens must be >= 0"):
        batch_tokens_schedule(-1)


# planner


@pytest.mark.parametrize("skip_remainder", [False, True])
def test_every_micro_batch_once_in_order_and_dealt_evenly(skip_remainder):
    for seed in range(60):
        rng = random.Random(seed)
        epoch = random_epoch(rng, max_tokens=rng.randint(1, 4000))
        world_size, target = rng.choice([1, 2, 3, 4, 8]), rng.randint(max(epoch), 20 * max(epoch))
        plan = plan_updates(epoch, world_size, target, skip_remainder=skip_remainder)
        print(f"seed {seed}: {len(epoch)} micro-batches, {len(plan)} updates on {world_size} ranks")
        flat = [sorted(i for rank in update for i in rank) for update in plan]
        used = [i for update in flat for i in update]
        assert used == list(range(len(used)))
        assert len(epoch) - len(used) == 0 or skip_remainder
        assert sum(epoch[len(used) :]) < target
        for update, indices in zip(plan, flat):
            counts = [len(rank) for rank in update]
            assert len(update) == world_size and indices and max(counts) - min(counts) <= 1
            assert all(rank == sorted(rank) for rank in update)
        assert plan == plan_updates(list(epoch), world_size, target, skip_remainder=skip_remainder)


def test_mean_batch_is_within_3_percent_of_the_target():
    for seed in range(60):
        rng = random.Random(seed)
        sentences = [rng.randint(2, 60) for _ in range(20_000)]
        target = rng.randint(5000, sum(sentences) // 17)
        for max_tokens in (500, 1900, 5000):
            epoch = cut_corpus(sentences, max_tokens)
            batches = tokens_per_update(plan_updates(epoch, rng.choice([1, 2, 4]), target), epoch)
            mean = sum(batches) / len(batches)
            print(f"seed {seed}: target {target}, max tokens {max_tokens}, mean {mean:.0f} over {len(batches)}")
            assert abs(mean / target - 1) < 0.03
            assert max(abs(batch - mean) for batch in batches) <= max(epoch) + 1


def test_skip_remainder_keeps_the_mean_in_a_short_epoch():
    epoch = [100] * 54  # 5.4 targets
    batches = tokens_per_update(plan_updates(epoch, 2, 1000, skip_remainder=True), epoch)
    assert batches == [1000] * 5
    assert tokens_per_update(plan_updates(epoch, 2, 1000), epoch) == [1100, 1100, 1000, 1100, 1100]


def test_updates_and_global_batches_do_not_depend_on_the_ranks_nor_the_count_on_max_tokens():
    for seed in range(30):
        rng = random.Random(seed)
        sentences = [rng.randint(2, 60) for _ in range(5000)]
        target = rng.randint(2500, 40_000)
        counts = []
        for max_tokens in (200, 900, 2500):
            epoch = cut_corpus(sentences, max_tokens)
            plans = [plan_updates(epoch, world_size, target) for world_size in (1, 2, 4)]
            global_batches = [[sorted(i for rank in update for i in rank) for update in plan] for plan in plans]
            assert global_batches[0] == global_batches[1] == global_batches[2]
            counts.append(len(plans[0]))
        print(f"seed {seed}: target {target}, updates {counts}")
        assert max(counts) - min(counts) <= 2


def test_schedule_changes_the_batch_at_the_stated_update_also_in_a_later_epoch():
    schedule = parse_batch_tokens("1k@0,4k@10")
    epoch = [100] * 500
    batches = tokens_per_update(plan_updates(epoch, 2, schedule), epoch)
    assert batches == [1000] * 10 + [4000] * 10
    assert tokens_per_update(plan_updates([100] * 460, 2, schedule, first_update=4), epoch) == [1000] * 6 + [4000] * 10


def test_fewer_micro_batches_than_ranks_leaves_empty_ranks():
    assert plan_updates([100, 100, 100], 4, 200) == [[[0], [1], [], []], [[2], [], [], []]]


def test_ranks_share_tokens_evenly():
    assert plan_updates([100, 100, 60, 50], 2, 310) == [[[0, 2], [1, 3]]]
    for seed in range(40):
        rng = random.Random(seed)
        epoch = random_epoch(rng, max_tokens=1000)
        for update in plan_updates(epoch, 4, 8000):
            loads = [sum(epoch[i] for i in rank) for rank in update]
            print(f"seed {seed}: {loads}")
            assert max(loads) - min(loads) <= max(epoch)


@pytest.mark.parametrize(
    ("epoch", "world_size", "target", "complaint"),
    [
        ([100, 300], 1, 299, r"--target-batch-tokens.*below one micro-batch of 300.*--max-tokens to at most 299"),
        ([100, 300], 1, BatchTokensSchedule((0, 1), (300, 50)), "at least 300"),
        ([], 1, 100, "at least one micro-batch"),
        ([10, 0], 1, 100, "at least one target token"),
        ([10], 0, 100, "world_size must be >= 1"),
    ],
)
def test_planner_refuses(epoch, world_size, target, complaint):
    with pytest.raises(ValueError, match=complaint):
        plan_updates(epoch, world_size, target)

"""ARCH on 1, 2 and 4 ranks with the same global batches, and on another number after a resume inside a refresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch

from fairseq_adv.cache import open_cache
from fairseq_adv.neighbors import choose_cache_set
from tests.faults.rank_process import recorded
from tests.integration.forked_ranks import train_on_ranks, validation_loss
from tests.integration.running import default_args

STOP = 10  # an update in the middle of epoch 3
GLOBAL = 4  # micro-batches in an update, over all ranks
MEMBERS = choose_cache_set(160, 0.3, 1).tolist()


def job(data: Path, folder: Path, save_dir: Path, ranks: int, *more: Any) -> Dict[str, Any]:
    """Three epochs, refreshes in the first and the third, four updates in each.

    15 micro-batches: in the last update two ranks have two and one, and of four ranks one has a dummy batch.
    """
    words = f"""--criterion arch_label_smoothed --cache-interval 2 --cache-proportion 0.3 --cache-ema 0.3
        --cache-dtype fp32 --dropout 0 --max-epoch 3 --max-tokens 150 --update-freq {GLOBAL // ranks}
        --save-interval-updates 1000 --distributed-backend gloo"""
    args = [*default_args(data, save_dir), *words.split(), *more]
    return {"args": args, "ranks": ranks, "folder": folder}


@pytest.fixture(scope="module")
def runs(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``1``, ``2``, ``4`` (ranks) and ``2to1``, ``1to2`` (stopped within the second refresh) of trainings."""
    root = tmp_path_factory.mktemp("ranks")
    jobs: List[Dict[str, Any]] = [job(tiny_corpus, root / f"{n}", root / f"{n}/save", n) for n in (1, 2, 4)]
    for before, after in ((2, 1), (1, 2)):
        folder = root / f"{before}to{after}"
        jobs.append(job(tiny_corpus, folder, folder / "save", before, "--max-update", STOP))
        jobs.append(job(tiny_corpus, folder, folder / "save", after))
    train_on_ranks(jobs, root)
    return root


STOP = 10  # an update in the middle of epoch 3


def cached(folder: Path) -> Dict[str, Dict[int, torch.Tensor]]:
    reader = open_cache(folder / "save/perturbations")
    return {side: dict(zip(reader.ids.tolist(), reader.read(reader.ids, side))) for side in reader.sides}


def written(folder: Path) -> List[int]:
    """The ids of all records that the last generation's ranks sealed, as often as they were sealed."""
    reader = open_cache(folder / "save/perturbations")
    return sorted(sample_id for shard in reader.shards for sample_id in shard.ids.tolist())


def assert_like_one_rank(runs: Path, name: str) -> None:
    one, other = runs / "1", runs / name
    values = cached(one), cached(other)
    for side in ("src", "tgt"):
        assert list(values[0][side]) == list(values[1][side]) == MEMBERS
        for sample_id, rows in values[0][side].items():
            torch.testing.assert_close(rows, values[1][side][sample_id], rtol=1e-3, atol=1e-4)
    assert validation_loss(other) == pytest.approx(validation_loss(one), abs=1e-4)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_cache_what_one_rank_caches_and_learn_the_same(runs: Path, ranks: int) -> None:
    manifest = open_cache(runs / str(ranks) / "save/perturbations").manifest
    assert len({entry["writer"] for entry in manifest.shards}) == ranks
    assert written(runs / str(ranks)) == MEMBERS
    assert_like_one_rank(runs, str(ranks))


@pytest.mark.parametrize("name", ["2to1", "1to2"])
def test_another_number_of_ranks_goes_on_inside_a_refresh(runs: Path, name: str) -> None:
    updates = [int(row["update"]) for row in recorded(runs / name / "sums-0")]
    assert updates == list(range(1, len(list(recorded(runs / "1/sums-0"))) + 1))
    assert STOP in updates
    shards = open_cache(runs / name / "save/perturbations").manifest.shards
    assert {entry["attempt"] for entry in shards} == {0, 1}, "the run did not stop inside a refresh"
    assert written(runs / name) == MEMBERS
    assert_like_one_rank(runs, name)

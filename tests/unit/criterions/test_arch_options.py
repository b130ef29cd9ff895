"""Each option of ARCH's cache changes what is trained on, or where its bytes lie and nothing else."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
import torch

from fairseq_adv.cache import PerturbationCache
from fairseq_adv.criterions.arch import ArchConfig
from fairseq_adv.criterions.frame.config import AscentConfig
from fairseq_adv.data.neighbor_means import NeighborMeans
from fairseq_adv.data.trained_pairs import training_fingerprint
from fairseq_adv.neighbors import NeighborFileWriter, choose_cache_set, random_neighbors
from tests.unit.criterions.updates import SEED, make_criterion, run_update
from tests.unit.toy_models import as_namespace, toy_batch, toy_model, toy_task

PAIRS, EPOCHS = 24, 3
SHAPES = [((5, 3, 1, 4, 2, 6), (4, 2, 6, 3, 5, 1)), ((2, 7, 3, 3, 1, 4), (3, 3, 2, 5, 8, 1))] * 2
FEW = {"cache_proportion": 0.5, "cache_interval": 2.0}
# option -> its value, and what has to be set beside it (in both trainings) for it to mean something
TRAINED: Dict[str, Tuple[Any, Dict[str, Any]]] = {
    "cache_interval": (1.0, {}),
    "cache_ema": (0.5, {"cache_train_on_average": True}),
    "cache_proportion": (0.25, {}),
    "cache_neighbors": ("FILE", {}),
    "cache_num_neighbors": (2, {}),
    "cache_dtype": ("int8", {}),
    "cache_train_on_average": (True, {"cache_ema": 0.5}),
    "neighbor_rescale": (True, {}),
    "cache_refresh": ("cached", {}),
}
# option -> its value and the name of the cache's argument that it is
PLACED: Dict[str, Tuple[Any, str]] = {
    "cache_dir": ("FOLDER", "directory"),
    "cache_placement": ("node-local", "placement"),
}
PLACED["cache_takeover"] = (True, "takeover")


class Pairs:
    """As much of a training set as the cache looks at."""

    def __init__(self) -> None:
        self.batches = [
            toy_batch(src, tgt, seed=number, first_id=6 * number) for number, (src, tgt) in enumerate(SHAPES)
        ]
        self.src_sizes = np.array([n + 1 for src, _ in SHAPES for n in src])
        self.tgt_sizes = np.array([n + 1 for _, tgt in SHAPES for n in tgt])

    def __len__(self) -> int:
        return PAIRS

    def ordered_indices(self) -> np.ndarray:
        return np.arange(PAIRS)


def losses(folder: Path, **options: Any) -> List[float]:
    """The loss of each update of three epochs; refreshes in the first and the third unless *options* say otherwise."""
    pairs, model, task = Pairs(), toy_model(), toy_task()
    task.dataset = lambda split: pairs
    task.has_sharded_data = lambda split: False
    task.max_positions = lambda: None
    model.max_positions = lambda: None
    if options.get("cache_neighbors"):
        options["cache_neighbors"] = str(other_neighbors(folder / "lists", task, pairs))
    if options.get("cache_dir"):
        options["cache_dir"] = str(folder / "elsewhere")
    criterion = make_criterion("arch_label_smoothed", task, **{**FEW, "adv_eps": 2.0, **options})
    trainer = as_namespace(
        cfg=as_namespace(
            dataset=as_namespace(train_subset="train", valid_subset="valid", max_tokens=None),
            checkpoint=as_namespace(save_dir=str(folder / "save")),
            distributed_training=as_namespace(ddp_backend="legacy_ddp"),
        ),
        get_model=lambda: model,
        get_num_updates=lambda: 0,
        data_parallel_world_size=1,
        data_parallel_rank=0,
        device=torch.device("cpu"),
    )
    criterion.begin_training(trainer, None)
    result: List[float] = []
    for epoch in range(1, EPOCHS + 1):
        criterion.begin_epoch(epoch)
        for batch in pairs.batches:
            result.append(run_update(criterion, model, [batch], len(result)).loss.item())
        criterion.before_save(end_of_epoch=True)
    criterion.perturbations.cache.close()
    return result


SOURCES = {"src": "random", "tgt": "random"}


def other_neighbors(path: Path, task: Any, pairs: Pairs) -> Path:
    """A file whose lists differ from those that are drawn without one."""
    cache_ids = choose_cache_set(PAIRS, FEW["cache_proportion"], SEED)
    lists = random_neighbors(PAIRS, FEW["cache_proportion"], 1, SEED + 1).lookup(np.arange(PAIRS), "src")
    lists = cache_ids[np.searchsorted(cache_ids, lists) % len(cache_ids)]
    settings: Dict[str, Any] = dict(sources=SOURCES, proportion=FEW["cache_proportion"], seed=SEED)
    settings["fingerprint"] = training_fingerprint(task, pairs)
    with NeighborFileWriter(path, PAIRS, cache_ids, 1, **settings) as writer:
        for side in ("src", "tgt"):
            writer.write(side, lists, np.zeros(lists.shape, dtype=np.float32))
    return path


@functools.cache
def default_losses(root: Path, beside: Tuple[Tuple[str, Any], ...]) -> List[float]:
    return losses(root / f"default{abs(hash(beside))}", **dict(beside))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arch")


@pytest.mark.parametrize("option", TRAINED)
def test_an_option_of_the_cache_changes_the_training(root, tmp_path, option):
    value, beside = TRAINED[option]
    default, changed = default_losses(root, tuple(beside.items())), losses(tmp_path, **beside, **{option: value})
    assert default[:4] == changed[:4]  # the first refresh, before anything was cached
    assert default != changed


@pytest.mark.parametrize("option", PLACED)
def test_an_option_of_the_place_reaches_the_cache_and_changes_no_loss(root, tmp_path, monkeypatch, option):
    opened: Dict[str, Any] = {}
    original = PerturbationCache.__init__

    def noted(self, directory, *args, **kwargs):
        opened.update(kwargs, directory=directory)
        original(self, directory, *args, **kwargs)

    monkeypatch.setattr(PerturbationCache, "__init__", noted)
    value, argument = PLACED[option]
    assert losses(tmp_path, **{option: value}) == default_losses(root, ())
    assert opened[argument] == (str(tmp_path / "elsewhere") if value == "FOLDER" else value)
    assert (tmp_path / "elsewhere" / "CURRENT").exists() == (value == "FOLDER")


def test_means_without_memory_are_read_for_each_batch(root, tmp_path, monkeypatch):
    sides, original = [], NeighborMeans.tables

    def noted(self, reader):
        tables = original(self, reader)
        sides.append(len(tables))
        return tables

    monkeypatch.setattr(NeighborMeans, "tables", noted)
    default = losses(tmp_path / "default")
    assert set(sides) == {2}
    sides.clear()
    assert losses(tmp_path / "none", cache_means_memory=0.0) == default
    assert set(sides) == {0}


def test_every_option_of_the_cache_is_walked():
    own = {f.name for f in dataclasses.fields(ArchConfig)} - {f.name for f in dataclasses.fields(AscentConfig)}
    elsewhere = {"cache_train_on_last_pass"}  # integration/test_arch_oracle.py: it takes a real trainer
    assert own == {*TRAINED, *PLACED, *elsewhere, "cache_means_memory"}


def test_trainings_are_repeated_bit_for_bit(root, tmp_path):
    """Without this every option would seem to change something."""
    assert losses(tmp_path) == default_losses(root, ())

"""Training on nodes that share no file system: as with a shared one, bit for bit, and through the loss of a disk."""

from __future__ import annotations

import json

import pytest
import torch

from fairseq_adv.cache import open_cache
from fairseq_adv.cache.verify import verify_generation
from fairseq_adv.cli.main import main
from tests.integration.running import command_path, default_args
from tests.integration.two_nodes import run_on_two_nodes, train_on_two_nodes

ARCH = ["--criterion", "arch_label_smoothed", "--cache-interval", 2, "--cache-proportion", 0.4, "--dropout", 0.2]
EPOCHS = 3  # refreshes in the first and the last


@pytest.fixture(scope="module")
def outcomes(tiny_corpus, tmp_path_factory):
    root, jobs = tmp_path_factory.mktemp("nodes"), []
    for name, placement, stop in [("shared", "shared", None), ("local", "node-local", None)] + [
        (f"lost{node}", "node-local", (3, 2)) for node in (0, 1)
    ]:
        args = [*default_args(tiny_corpus, root / name), *ARCH, "--max-epoch", EPOCHS, "--cache-ema", 0.3]
        dirs = [root / f"{name}-cache{0 if placement == 'shared' else node}" for node in (0, 1)]
        lost = dirs[int(name[-1])] if stop else None
        options = ["--cache-placement", placement, "--save-interval-updates", 1 if stop else 0]
        job = {"args": [*args, *options], "cache_dirs": dirs, "stop": stop, "lost": lost, "epochs": EPOCHS}
        jobs.append(json.loads(json.dumps(job, default=str)))
    for job in jobs:
        job["args"] = [str(word) for word in job["args"]]
    return dict(zip(("shared", "local", "lost0", "lost1"), train_on_two_nodes(jobs, root))), root


@pytest.mark.parametrize("name", ["local", "lost0", "lost1"])
def test_losses_and_parameters_are_those_of_a_shared_directory(outcomes, name):
    results, _ = outcomes
    assert len(results["shared"]["losses"]) > 9 and len(set(results["shared"]["losses"])) > 9
    assert results[name]["losses"] == results["shared"]["losses"]
    for key, values in results["shared"]["parameters"].items():
        assert torch.equal(results[name]["parameters"][key], values), key


@pytest.mark.parametrize("name", ["local", "lost0", "lost1"])
def test_every_node_holds_the_whole_cache(outcomes, name):
    _, root = outcomes
    want = open_cache(root / "shared-cache0")
    for node in (0, 1):
        got = open_cache(root / f"{name}-cache{node}")
        assert verify_generation(got.directory, got.manifest) == []
        assert got.manifest.generation == 2 and got.ids.tolist() == want.ids.tolist()
        for side in want.sides:
            assert all(map(torch.equal, got.read(want.ids, side), want.read(want.ids, side)))


def test_fairseq_train_on_two_nodes(tiny_corpus, tmp_path, capsys):
    args = [*default_args(tiny_corpus, tmp_path / "save"), *ARCH, "--distributed-backend", "gloo"]
    train = ["--no-python", command_path("fairseq-train"), *args, "--cache-placement", "node-local"]
    run_on_two_nodes([[*train, "--cache-dir", tmp_path / f"node{node}"] for node in (0, 1)])
    for node in (0, 1):
        assert main(["cache", "verify", str(tmp_path / f"node{node}"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["damaged"] == []

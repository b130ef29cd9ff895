"""docs/architecture.md: its rooms are the package's, both ways are those of a real training, and its example trains."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import torch

from fairseq_adv.perturb import BatchPasses, EmbeddingHook
from tests.integration.running import Run, build_trainer, default_args, epoch_batches, save_checkpoint
from tests.unit.criterions import reference as ref
from tests.unit.test_import_rule import EXCEPTIONS, MAY_IMPORT
from tests.unit.toy_models import toy_batch, toy_model

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "fairseq_adv"
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
Call = Tuple[str, str]  # file and function


# ---- the rooms ------------------------------------------------------------------------------------------------


def first_sentence(room: str) -> str:
    path = PACKAGE / room / "__init__.py"
    source = (path if path.is_file() else PACKAGE / f"{room}.py").read_text(encoding="utf-8")
    text = " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[^ .]\.) (?=[A-Z])", text)[0]


def shown_rooms() -> List[str]:
    return re.findall(r"^\| `(\w+)`", PAGE, flags=re.M)


def test_the_rooms_are_the_packages_with_their_first_sentences() -> None:
    assert set(shown_rooms()) == set(MAY_IMPORT) - {"__init__", "version"}
    lines = [f"| `{room}` | {first_sentence(room)} |" for room in shown_rooms()]
    table = "\n".join(["| room | what it holds |", "|---|---|", *lines])
    assert table in PAGE, f"the rooms are now:\n{table}"


def test_a_room_imports_only_what_lies_below() -> None:
    order = {room: place for place, room in enumerate(shown_rooms())}
    for room, others in MAY_IMPORT.items():
        if room in order:
            assert all(order[other] > order[room] for other in others if other in order), room
    for path, others in EXCEPTIONS.items():
        assert all(order[other] > order[path.split("/")[0]] for other in others), path


# ---- the two ways ---------------------------------------------------------------------------------------------


def way(heading: str) -> List[Call]:
    block = re.search(rf"^## {heading}\n.*?^```text\n(.*?)^```", PAGE, re.S | re.M)
    assert block is not None
    found = re.findall(r"^([a-z_/]+\.py) +(\w+)", block[1], re.M)
    assert len(found) == len(block[1].splitlines())
    return found


@pytest.fixture(scope="module")
def calls(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> List[Call]:
    """Every call within the package in a refresh epoch of ARCH and the one after it, in order."""
    options = ["--criterion", "arch_label_smoothed", "--task", "adversarial_translation", "--max-epoch", 2]
    options += ["--cache-interval", 2, "--cache-proportion", 0.3, "--max-tokens", 1000]
    trainer = build_trainer([*default_args(tiny_corpus, tmp_path_factory.mktemp("run")), *options]).trainer
    seen: List[Call] = []

    def record(frame: types.FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(PACKAGE)):
            seen.append((file[len(str(PACKAGE)) + 1 :], frame.f_code.co_name))

    threading.setprofile(record)
    sys.setprofile(record)
    try:
        for epoch in (1, 2):
            for samples in epoch_batches(trainer, epoch):
                trainer.train_step(samples)
            save_checkpoint(trainer)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return seen


@pytest.mark.parametrize(
    "heading", ["The way of a batch through an update of ARCH", "The way of a perturbation through the cache"]
)
def test_a_real_training_goes_that_way(calls: List[Call], heading: str) -> None:
    following = iter(calls)
    for step in way(heading):
        assert step in following, f"{heading}: {step} is not called after the line before it"


# ---- the example ----------------------------------------------------------------------------------------------


def example() -> Dict[str, str]:
    """Path -> source of the files that the page says to write."""
    return dict(re.findall(r"^`(fairseq_adv/[a-z_/]+\.py)`.*?^```python\n(.*?)^```", PAGE, re.S | re.M))


def test_the_examples_mathematics() -> None:
    module: Dict[str, Any] = {}
    exec(example()["fairseq_adv/methods/fgsm.py"], module)
    model, batch = toy_model().double(), toy_batch()
    inputs = batch["net_input"]

    def run() -> torch.Tensor:
        return torch.log_softmax(model(**inputs)[0], dim=-1)

    tokens = {"src": inputs["src_tokens"], "tgt": inputs["prev_output_tokens"]}
    passes: Any = BatchPasses(run, run, EmbeddingHook(model, {"src": 1, "tgt": 1}), tokens, batch["id"], False)
    passes.clean()
    delta, broken = module["sign_perturbation"](passes, lambda log_p: ref.cross_entropy(log_p, batch), 0.3)
    gradient = ref.gradient_at(
        ref.zeros(model, batch), lambda shift: ref.cross_entropy(ref.output(model, batch, shift), batch)
    )
    assert not broken.any()
    for side, rows in ref.each_sentence(gradient, batch, lambda words: 0.3 * words.sign()).items():
        for b, columns in enumerate(ref.real_columns(tokens[side])):
            assert torch.equal(delta.sentences(side)[b], rows[b, columns].float())  # δ is fp32 always


def test_the_example_trains_from_two_files(tiny_corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "fairseq_adv", ignore=shutil.ignore_patterns("__pycache__"))
    assert set(example()) == {"fairseq_adv/methods/fgsm.py", "fairseq_adv/criterions/fgsm.py"}
    for name, source in example().items():
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(source)
    words = default_args(tiny_corpus, tmp_path / "run", user_dir=tmp_path / "fairseq_adv")
    words += ["--criterion", "fgsm_label_smoothed", "--fgsm-eps", "0.01", "--max-update", "2"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "fairseq_cli.train", *words]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = Run(command, 0, done.stdout, done.stderr)
    assert len(run.column("loss")) == 2 and min(run.column("adv_norm_src")) > 0.01 and min(run.column("adv_loss")) > 0
    told = subprocess.run(
        [sys.executable, "-m", "fairseq_adv.cli.main", "options", "fgsm_sentence_prediction"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "--fgsm-eps" in told.stdout, told.stderr

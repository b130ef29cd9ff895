"""ConAdv with half of the ranks perturbing for the other half: the losses of the look-ahead on one device."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest
import torch

from tests.integration.resume_on_ranks import in_parts, train_on_ranks
from tests.integration.running import run_fairseq_train
from tests.integration.test_freeat_conadv import SGD, TOKENS, job
from tests.integration.training import default_args

SPARE = ["--conadv-placement", "spare", "--dropout", "0"]
# name -> options, updates after which the run is stopped and gone on with
CASES: Dict[str, Any] = {
    "legacy_ddp": (["--ddp-backend", "legacy_ddp"], []),
    "pytorch_ddp": (["--ddp-backend", "pytorch_ddp"], []),
    "resumed": (["--ddp-backend", "legacy_ddp"], [2, 4]),
    "two updates old": (["--ddp-backend", "legacy_ddp", "--conadv-delay", "2"], []),
}


@pytest.fixture(scope="module")
def on_spare_ranks(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Dict[str, Any]]:
    directory = tmp_path_factory.mktemp("spare")
    jobs = [
        {"args": job(tiny_corpus, directory / f"run{n}", "lookahead", *SGD, *TOKENS, *SPARE, *options), "stops": stops}
        for n, (options, stops) in enumerate(CASES.values())
    ]
    return dict(zip(CASES, train_on_ranks(2, jobs, directory)))


def on_one_rank(data: Path, folder: Path, *options: str) -> Dict[str, Any]:
    return in_parts(job(data, folder, "lookahead", *SGD, *TOKENS, "--dropout", "0", *options), [])


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_one_rank_that_looks_ahead(tiny_corpus, tmp_path, on_spare_ranks, case):
    options = ["--conadv-delay", "2"] if case == "two updates old" else []
    one, two = on_one_rank(tiny_corpus, tmp_path, *options), on_spare_ranks[case]
    assert two["batch_tokens"] == one["batch_tokens"] and len(one["losses"]) > 4
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-4)
    for name, value in one["parameters"].items():
        torch.testing.assert_close(two["parameters"][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_another_delay_is_another_training(on_spare_ranks):
    assert on_spare_ranks["two updates old"]["losses"][2:] != on_spare_ranks["legacy_ddp"]["losses"][2:]


def test_one_rank_has_no_spare(tiny_corpus, tmp_path):
    words = [*default_args(tiny_corpus, tmp_path), "--task", "adversarial_translation"]
    words += ["--criterion", "conadv_label_smoothed", *SPARE]
    run = run_fairseq_train(words, check=False)
    assert run.returncode != 0 and "needs an even number of ranks" in run.stdout + run.stderr

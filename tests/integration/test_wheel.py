"""The wheel holds the whole package, and what it installs works where there is no checkout."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.integration.installed import Environment, built_wheel, installed
from tests.integration.running import ROOT, default_args

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return installed(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def run(environment: Environment, tiny_corpus: Path) -> Path:
    """One update of ARCH with the installed plugin, translated and scored as the documentation shows."""
    user_dir = environment.run("fairseq-adv", "user-dir").strip()
    words = default_args(tiny_corpus, environment.work / "arch-seed1", user_dir=None)
    words += ["--user-dir", user_dir, "--criterion", "arch_label_smoothed", "--task", "adversarial_translation"]
    log = environment.run("python", "-m", "fairseq_cli.train", *words, "--max-update", 1)
    (environment.work / "arch-seed1/train.log").write_text(log)
    checkpoint = environment.work / "arch-seed1/checkpoint_last.pt"
    more = ["--path", checkpoint, "--user-dir", user_dir, "--cpu", "--required-batch-size-multiple", 1]
    generated = environment.run("python", "-m", "fairseq_cli.generate", tiny_corpus, *more)
    (environment.work / "test.out").write_text(generated)
    return environment.work / "arch-seed1"


def test_every_file_of_the_package_is_in_the_wheel_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = (ROOT / "fairseq_adv").rglob("*")
    expected = {path.relative_to(ROOT).as_posix() for path in package if path.suffix in (".py", ".sh", ".html")}
    assert found == expected


@SLOW
def test_the_package_comes_from_the_wheel(environment: Environment) -> None:
    where = environment.run("python", "-c", "import fairseq_adv; print(fairseq_adv.__file__)")
    assert str(environment.folder) in where
    assert environment.run("fairseq-adv", "user-dir").strip() == str(Path(where).parent)


@SLOW
def test_doctor_and_options(environment: Environment) -> None:
    facts = json.loads(environment.run("fairseq-adv", "doctor", "--json"))
    assert not [package for package in facts["packages"] if package["needed"] and not package["version"]]
    assert not [patch for patch in facts["patches"] if not patch["applied"]] and not facts["patches_error"]
    assert "--cache-dir" in environment.run("fairseq-adv", "options", "arch_label_smoothed")


@SLOW
def test_one_update_is_trained_and_translated(environment: Environment, run: Path) -> None:
    assert '"adv_refresh": "1"' in (run / "train.log").read_text()
    assert (environment.work / "test.out").read_text().count("\nD-") == 16


@SLOW
def test_score_compare_and_report(environment: Environment, run: Path) -> None:
    scored = json.loads(environment.run("fairseq-adv", "score", "test.out", "--lang", "de", "--output", run, "--json"))
    assert scored["sentences"] == 16 and (run / "score.json").is_file()
    compared = environment.run("fairseq-adv", "compare", f"one={run}", f"two={run}", "--samples", 20, "--json")
    rows = {row["method"]: row for row in json.loads(compared)["systems"]}
    assert rows["two"]["paired"]["1"]["bleu"]["difference"] == 0
    environment.run("fairseq-adv", "report", run, "--output", "report")
    assert "arch" in (environment.work / "report/index.html").read_text()


@SLOW
def test_bad_input_ends_with_status_2(environment: Environment) -> None:
    environment.run("fairseq-adv", "score", "absent.out", expect=2)

"""``fairseq-adv reproduce``: which runs belong to which table, and what is published from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.experiments.grid_corpora import PreparedFolder, parse_variant
from fairseq_adv.experiments.reproduce import Reproduction, planned
from fairseq_adv.experiments.reproduce_results import publish, set_value
from fairseq_adv.papers.results import Batch, by_name, results
from fairseq_adv.report.runs import load_run
from tests.unit.report.fake_runs import write_run

NAMES = [result.name for result in results(Batch())]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    for name in ("bin", "raw"):
        (tmp_path / "en-de-9" / name).mkdir(parents=True)
    for seed in (1, 2):
        (tmp_path / f"en-de-9/neighbors-seed{seed}.safetensors").touch()
    return tmp_path / "en-de-9"


def options(prepared: Path, *names: str, **more: Any) -> Reproduction:
    return Reproduction(names=names, corpus=str(prepared), seeds=(1, 2), epochs=4, **more)


def test_list_names_every_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "LIST"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == NAMES


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "arch-fig9"]) == 2
    assert "unknown result 'arch-fig9': choose among arch-table2" in capsys.readouterr().err


def test_runs_of_several_figures_are_trained_once(prepared: Path) -> None:
    runs, cells = planned(options(prepared, "arch-fig2a", "arch-fig2b"), ())
    names = [run.folder.name for run in runs]
    assert len(set(names)) == len(names) == 2 * 6
    first = ["smart", "arch", "arch-ema0", "arch-ema0.1", "arch-tc5", "arch-tcinf"]
    assert names[:6] == [f"{name}-seed1" for name in first]
    of_second_seed = [variant.name for variant, seed, _ in cells["arch-fig2b"] if seed == 2]
    assert of_second_seed == ["smart", "arch", "arch-tc5", "arch-tcinf"]


def test_options_for_all_come_first_then_the_results_then_the_variants(prepared: Path) -> None:
    runs, _ = planned(options(prepared, "arch-fig2d", evaluate="--beam 1"), ["--max-tokens", "256"])
    (run,) = [run for run in runs if run.folder.name == "arch-p0.01-seed2"]
    commands = iter(run.commands())
    train = [str(word) for word in next(iter(commands))]
    file = prepared / "neighbors-proportion0.01-seed2.safetensors"
    cut = train.index("--")
    expected = "--max-tokens 256 --log-interval 1 --adv-divergence kl --cache-proportion 0.01 --cache-neighbors"
    assert train[cut + 1 :] == [*expected.split(), str(file)]
    run.folder.mkdir(parents=True)
    (run.folder / "done").touch()
    assert [str(word) for word in next(iter(commands))][-2:] == ["--beam", "1"]


def test_a_proportion_of_its_own_is_built_from_the_file_that_there_is(prepared: Path, monkeypatch: Any) -> None:
    class Stored:
        source = {"src": "hf:model"}

    monkeypatch.setattr("fairseq_adv.neighbors.load_neighbors", lambda *_, **__: Stored)
    corpus = PreparedFolder(prepared, 4, [], prepared / "runs")
    variants = [parse_variant(text) for text in by_name(Batch())["arch-fig2d"].variants]
    commands = [[str(word) for word in command] for command in corpus.prepare(variants, [1])]
    built = [(c[c.index("--proportion") + 1], Path(c[c.index("--output") + 1]).name) for c in commands]
    assert built == [
        ("0.01", "neighbors-proportion0.01-seed1.safetensors"),
        ("1", "neighbors-proportion1-seed1.safetensors"),
    ]
    assert all("hf:model" in command for command in commands)


def test_batches_grow_with_their_rate_and_warm_up() -> None:
    assert Batch(256, 0.003, 100).options(4) == "--target-batch-tokens 1024 --lr 0.006 --warmup-updates 25"


def test_other_batches_and_radii(prepared: Path) -> None:
    wanted = options(prepared, "conadv-table5", factors=(1, 16), radii=(0.3,)).wanted[0].variants
    assert [text.partition("=")[0] for text in wanted] == [
        f"{name}-x{factor}"
        for factor in (1, 16)
        for name in ("plain", "conadv-p0.3", "plain-cutoff", "conadv-p0.1-cutoff")
    ]
    assert wanted[5] == (
        "conadv-p0.3-x16=conadv --target-batch-tokens 4096 --lr 0.012 --warmup-updates 6 --conadv-alpha 0.3"
    )
    for name, value in (("factors", (0, 1)), ("radii", (0.0,))):
        with pytest.raises(ValueError, match=f"--{name} must be > 0, got 0"):
            options(prepared, "conadv-table5", **{name: value})


def test_a_gap_needs_the_losses_of_three_sets(prepared: Path) -> None:
    result = options(prepared, "conadv-table4", "conadv-table5")
    (run,) = [run for run in planned(result, ())[0] if run.folder.name == "plain-x4-seed1"]
    (run.folder / "checkpoints").mkdir(parents=True)
    for name in ("done", "score.json", "checkpoints/checkpoint_best.pt"):
        (run.folder / name).touch()
    last = [[str(word) for word in command] for command in run.commands()][-1]
    assert "train,valid,test" in last and str(run.folder / "losses.log") in last
    (run.folder / "losses.log").touch()
    assert len(list(run.commands())) == 1


@pytest.mark.parametrize("result", results(Batch()), ids=NAMES)
def test_every_variant_parses_and_every_option_exists(result: Any) -> None:
    from fairseq_adv.cli.options import own_components

    components = {component.name: {option.name for option in component.options} for component in own_components()}
    task = components["adversarial_translation"]
    fairseqs = {"--lr", "--warmup-updates", "--log-interval", "--report-accuracy"}
    for text in result.variants:
        variant = parse_variant(text)
        method = components.get(f"{variant.method}_label_smoothed", set())
        asked = {word for word in [*variant.options, *result.train_options] if word.startswith("--")}
        assert asked <= method | task | fairseqs, text
        assert variant.method == "plain" or method
    assert len({parse_variant(text).name for text in result.variants}) == len(result.variants)


def cells_of(result: Any, folder: Path, scores: Dict[str, float]) -> List[Any]:
    cells = []
    for place, text in enumerate(result.variants):
        variant = parse_variant(text)
        for seed in (1, 2):
            score = {"bleu": scores.get(variant.name, 10.0) + seed, "tokenized_bleu": 9.0}
            method = "plain" if variant.method == "plain" else variant.method
            run = write_run(folder / f"{variant.name}-seed{seed}", method, seed, score=score, eps=0.1 * (1 + place))
            cells.append((variant, seed, run))
    return cells


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_published(tmp_path: Path, name: str) -> None:
    result = by_name(Batch())[name]
    text = publish(result, cells_of(result, tmp_path / "runs", {}), tmp_path / name)
    assert (tmp_path / name / f"{name}.md").read_text() in text
    assert all(f"| {parse_variant(variant).name} | 2 |" in text for variant in result.variants)
    if result.show in ("gradients", "batches"):
        assert (tmp_path / name / f"{name}.png").stat().st_size > 0


def test_accuracy_of_a_set(tmp_path: Path) -> None:
    run = load_run(str(write_run(tmp_path / "run")))
    record = {"epoch": 1, "train_nll_loss": "1.5", "train_accuracy": "80.5"}
    (tmp_path / "run/losses.log").write_text(f"DATE | INFO | train | {json.dumps(record)}\n")
    assert set_value(run, "train", "accuracy") == 80.5
    assert set_value(run, "test", "accuracy") != set_value(run, "test", "accuracy")  # NaN

"""``fairseq-hydra-train`` with the recipes' YAML files: the same options, the same losses, sweeps without leaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import pytest

import fairseq_adv
from fairseq_adv.report.runs import load_run
from tests.integration.hydra_runs import CONFIG, FOLDER, composed, flat, parsed, shell_words
from tests.integration.running import ROOT, Run, command_path, run_command, run_fairseq_train
from tests.integration.training import METHODS as CRITERIONS

RECIPES = sorted(path.stem for path in FOLDER.glob("*-*-*.sh") if not path.stem.startswith("debian-"))
METHODS = sorted(path.stem for path in (CONFIG / "method").glob("*.yaml"))
SECTIONS = "common dataset optimization checkpoint criterion optimizer lr_scheduler task distributed_training"


@pytest.fixture(autouse=True)
def registered() -> None:
    fairseq_adv.register()


# ---- the same options as the shell recipes ----------------------------------------------------------------


def test_every_recipe_and_every_method_has_a_file() -> None:
    assert len(RECIPES) == 4 and {f"{name}.yaml" for name in RECIPES} <= {path.name for path in CONFIG.iterdir()}
    assert [*sorted(f"{name}_label_smoothed" for name in METHODS if name != "plain")] == CRITERIONS


def transformer(model: Any) -> Dict[str, Any]:
    """All that fairseq's Transformer takes from *model*, an --arch on the command line or a nested section."""
    from dataclasses import asdict

    from fairseq.models import ARCH_CONFIG_REGISTRY
    from fairseq.models.transformer import TransformerConfig
    from omegaconf import OmegaConf, open_dict

    if OmegaConf.is_config(model):
        with open_dict(model):
            ARCH_CONFIG_REGISTRY[model._name](model)
    return without_names(asdict(TransformerConfig.from_namespace(model)))


def without_names(values: Dict[str, Any]) -> Dict[str, Any]:
    """An --arch is known to each part of the model by its name."""
    return {
        name: without_names(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if name != "_name"
    }


@pytest.mark.parametrize(
    ("recipe", "method"),
    [*((recipe, "plain") for recipe in RECIPES), *((RECIPES[0], method) for method in METHODS if method != "plain")],
)
def test_yaml_means_what_the_shell_recipe_means(recipe: str, method: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    shell = parsed(shell_words(recipe, method, tmp_path))
    (yaml,) = composed(monkeypatch, recipe, f"method={method}")
    for section in SECTIONS.split():
        expected, found = flat(shell[section]), flat(yaml[section])
        if section == "common":
            assert Path(expected.pop("user_dir")).name == found.pop("user_dir")
        if section == "checkpoint":  # a folder for each way of running
            assert Path(found.pop("save_dir")).name == Path(expected.pop("save_dir")).name == "checkpoints"
        if section == "task":
            assert Path(expected.pop("data")) == Path(found.pop("data")).resolve()
        if method == "arch" and section == "criterion":
            assert Path(expected.pop("cache_neighbors")) == Path(found.pop("cache_neighbors")).resolve()
        assert found == expected, section
    assert transformer(yaml.model) == transformer(shell.model)


def test_a_method_must_be_chosen(monkeypatch: Any, capfd: Any) -> None:
    with pytest.raises(SystemExit):
        composed(monkeypatch, RECIPES[0])
    assert "You must specify 'method'" in capfd.readouterr().err


def test_folders_tell_a_sweep_apart_and_find_it_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["method=arch", "criterion.adv_eps=0.2", "common.cpu=true"]
    sweep = ["--multirun", *command, "common.seed=1,2", "criterion.cache_ema=0,0.1"]
    place = tmp_path / "work/iwslt14-de-en/hydra/de-en"
    folders = [Path(cfg.checkpoint.save_dir).parent for cfg in composed(monkeypatch, "iwslt14-de-en", *sweep)]
    first = "common.seed=1,criterion.adv_eps=0.2,criterion.cache_ema=0,method=arch"
    assert folders[0] == place / first and len(set(folders)) == 4 and {folder.parent for folder in folders} == {place}
    (alone,) = composed(monkeypatch, "iwslt14-de-en", *command, "common.seed=1", "criterion.cache_ema=0")
    assert Path(alone.checkpoint.save_dir).parent == folders[0]
    (other,) = composed(monkeypatch, "iwslt14-de-en", "method=plain", "task.source_lang=en", "task.target_lang=de")
    assert Path(other.checkpoint.save_dir).parent == place.parent / "en-de/method=plain"


# ---- the same losses as fairseq-train ---------------------------------------------------------------------

TINY = """common.cpu=true common.fp16=false common.log_interval=1 task.source_lang=en task.target_lang=de
    task.target_batch_tokens=400 task.eval_bleu=false checkpoint.best_checkpoint_metric=loss
    checkpoint.maximize_best_checkpoint_metric=false dataset.max_tokens=300 dataset.num_workers=0
    optimization.max_epoch=2 lr_scheduler.warmup_updates=10 criterion.cache_neighbors=''
    model.encoder.layers=1 model.encoder.embed_dim=16 model.encoder.ffn_embed_dim=32 model.encoder.attention_heads=2
    model.decoder.layers=1 model.decoder.embed_dim=16 model.decoder.ffn_embed_dim=32 model.decoder.attention_heads=2
    hydra.sweep.subdir=${criterion.cache_interval}-${common.seed}"""
# the same words of the command line; a later word wins, and what a switch turns on is taken out
TINY_SHELL = """--cpu --log-interval 1 --source-lang en --target-lang de --target-batch-tokens 400 --max-tokens 300
    --num-workers 0 --max-epoch 2 --warmup-updates 10 --best-checkpoint-metric loss --encoder-layers 1
    --encoder-embed-dim 16 --encoder-ffn-embed-dim 32 --encoder-attention-heads 2 --decoder-layers 1
    --decoder-embed-dim 16 --decoder-ffn-embed-dim 32 --decoder-attention-heads 2"""
SWITCHES = {"--fp16", "--eval-bleu", "--maximize-best-checkpoint-metric"}
Losses = Dict[str, List[Dict[str, float]]]


def run_hydra(data: Path, folder: Path, *words: str) -> Run:
    own = ["--config-dir", CONFIG, "--config-name", "iwslt14-de-en", "--multirun"]
    if not any("," in word for word in words):
        own.remove("--multirun")
    here = ["method=arch", f"task.data={data}", f"hydra.sweep.dir={folder}"]
    return run_command([command_path("fairseq-hydra-train"), *own, *here, *TINY.split(), *words], cwd=ROOT)


def losses(run: Path) -> Losses:
    """What the run logged, without what depends on the clock."""
    log, clock = load_run(str(run)).log, {"wall", "train_wall", "wps", "ups"}
    streams = {"updates": log.updates, "epochs": log.epochs, "validations": log.validations}
    return {
        name: [{key: value for key, value in record.items() if key not in clock} for record in stream]
        for name, stream in streams.items()
    }


def by_shell(data: Path, folder: Path, interval: int, seed: int) -> Losses:
    """The same training by fairseq-train, with the options of the shell recipe."""
    words = [word for word in shell_words("iwslt14-de-en", "arch", folder) if word not in SWITCHES]
    own = ["--save-dir", folder / "checkpoints", "--cache-interval", interval, "--seed", seed, "--cache-neighbors", ""]
    run = run_fairseq_train([data, *words[1:], *TINY_SHELL.split(), *own], cwd=ROOT)
    (folder / "train.log").write_text(run.stdout, encoding="utf-8")
    return losses(folder)


def folder_of(base: Path, interval: int, seed: int) -> Path:
    return base / f"{interval}-{seed}"


@pytest.fixture(scope="module")
def swept(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two values × two seeds, trained one after the other in one process."""
    folder = tmp_path_factory.mktemp("swept")
    run_hydra(tiny_corpus, folder, "criterion.cache_interval=1,2", "common.seed=1,2")
    return folder


@pytest.mark.parametrize(("interval", "seed"), [(1, 1), (2, 2)])
def test_each_job_of_a_sweep_trains_as_fairseq_train_alone(
    interval: int, seed: int, swept: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    found, expected = losses(folder_of(swept, interval, seed)), by_shell(tiny_corpus, tmp_path, interval, seed)
    assert found == expected
    assert len(found["updates"]) > 6 and len(found["validations"]) == 2
    assert [epoch["adv_refresh"] for epoch in found["epochs"]] == [1, 1 if interval == 1 else 0]
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {path.name for path in (folder_of(swept, interval, seed) / "checkpoints").iterdir()}
    assert "checkpoint_best.pt" in names


def test_a_single_run_goes_on_where_its_job_of_the_sweep_ended(swept: Path, tiny_corpus: Path) -> None:
    run = folder_of(swept, 2, 1)
    before = losses(run)
    run_hydra(tiny_corpus, swept, "criterion.cache_interval=2", "common.seed=1", "optimization.max_epoch=3")
    after = losses(run)
    assert [epoch["epoch"] for epoch in after["epochs"]] == [1, 2, 3]
    assert all(after[name][: len(before[name])] == before[name] for name in before)


def test_report_draws_the_parameter_study_of_a_sweep(swept: Path, tmp_path: Path) -> None:
    folders = [folder_of(swept, interval, seed) for interval in (1, 2) for seed in (1, 2)]
    done = run_command([command_path("fairseq-adv"), "report", *folders, "--output", tmp_path / "report"])
    assert done.stdout.splitlines()[1].split()[:2] == ["arch", "4"]
    assert (tmp_path / "report/parameter_study.png").is_file()

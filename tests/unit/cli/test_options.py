"""``fairseq-adv options`` shows what the command line really takes, and our options keep to the project's policy."""

from __future__ import annotations

import argparse
import json
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.cli.options import Component, Option, own_components

# shared families of options; beside them a component may use each word of its own name as a prefix
FAMILIES = {
    "criterion": {"adv", "cache", "neighbor"},
    "task": {"adv", "cache", "batch", "target"},
    "lr-scheduler": {"lr"},
}
# architectures and tasks whose options a run may combine with ours
ARCHITECTURES = ("transformer", "lstm", "fconv", "lightconv", "transformer_align")


@pytest.fixture(scope="module")
def components() -> List[Component]:
    return own_components()


def own_options(components: List[Component]) -> Iterator[Tuple[Component, Option]]:
    for component in components:
        yield from ((component, option) for option in component.options if not option.inherited)


def test_lists_every_kind_that_we_register(components: List[Component]) -> None:
    assert {component.kind for component in components} >= {"criterion", "task"}
    assert all(component.summary for component in components)
    names = [(component.kind, component.name) for component in components]
    assert ("task", "adversarial_translation") in names and len(set(names)) == len(names)


def test_default_and_choices_are_those_that_fairseq_parses(components: List[Component]) -> None:
    from fairseq import options

    words = ["data", "--arch", "transformer_tiny", "--optimizer", "adam", "--lr-scheduler", "fixed"]
    for component in components:
        if component.kind not in ("criterion", "task"):
            continue
        parser = options.get_training_parser()
        parsed = options.parse_args_and_arch(parser, [*words, f"--{component.kind}", component.name])
        for option in component.options:
            if not option.inherited:
                value = getattr(parsed, option.name[2:].replace("-", "_"))
                assert value == option.default and type(value) is type(option.default), (component.name, option.name)


def test_one_name_shows_what_it_inherits(capsys: pytest.CaptureFixture[str], components: List[Component]) -> None:
    name = next(component.name for component in components if component.kind == "criterion")
    assert main(["options", name, "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    by_name: Dict[str, Any] = {option["name"]: option for option in shown["options"]}
    assert by_name["--label-smoothing"]["inherited"] and by_name["--label-smoothing"]["default"] == 0.0
    assert by_name["--adv-sides"]["choices"] == ["both", "src", "tgt"] and not by_name["--adv-sides"]["inherited"]
    assert by_name["--adv-detach-clean"]["flag"] and by_name["--adv-detach-clean"]["default"] is False


def test_text(capsys: pytest.CaptureFixture[str], components: List[Component]) -> None:
    assert main(["options"]) == 0
    everything = capsys.readouterr().out
    for component, option in own_options(components):
        assert f"--{component.kind} {component.name}" in everything
        assert f"    {option.name}" in everything
    assert "--label-smoothing" not in everything
    name = next(component.name for component in components if component.kind == "criterion")
    assert main(["options", name]) == 0
    assert "--label-smoothing VALUE  (default: 0.0, fairseq's own)" in capsys.readouterr().out


def test_unknown_name_lists_the_known_ones(capsys: pytest.CaptureFixture[str], components: List[Component]) -> None:
    assert main(["options", "arhc"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("fairseq-adv options: unknown name 'arhc': choose one of ")
    assert all(component.name in message for component in components)


# ---- policy: fairseq drops an option without a word if its name is taken ------------------------------------


def test_own_options_start_with_a_prefix_of_ours(components: List[Component]) -> None:
    for component, option in own_options(components):
        allowed = FAMILIES.get(component.kind, set()) | set(component.name.split("_"))
        assert option.name[2:].split("-")[0] in allowed, f"{component.name}: {option.name}"


def test_own_options_are_explained_and_flags_are_off(components: List[Component]) -> None:
    for component, option in own_options(components):
        assert len(option.help) > 15, f"{component.name}: {option.name} needs a help text"
        assert not (option.flag and option.default), f"{component.name}: {option.name} would become --no-… in disguise"


def test_own_options_clash_with_none_of_fairseq(components: List[Component]) -> None:
    from fairseq import options
    from fairseq.models import ARCH_MODEL_REGISTRY
    from fairseq.tasks import TASK_REGISTRY

    parsers = [options.get_training_parser()]
    for user in [*(ARCH_MODEL_REGISTRY[arch] for arch in ARCHITECTURES), TASK_REGISTRY["translation"]]:
        parsers.append(argparse.ArgumentParser(add_help=False))
        user.add_args(parsers[-1])
    taken = {name for parser in parsers for action in parser._actions for name in action.option_strings}
    assert {"--lr", "--dropout", "--source-lang"} <= taken
    assert {option.name for _, option in own_options(components)} & taken == set()


def test_kinds_that_are_used_together_share_no_option(components: List[Component]) -> None:
    kinds: Dict[str, set] = {}
    for component, option in own_options(components):
        kinds.setdefault(option.name, set()).add(component.kind)
    assert {name: used for name, used in kinds.items() if len(used) > 1} == {}


def test_every_documented_option_is_accepted_by_the_training_command(components: List[Component]) -> None:
    """An option whose default is filled in from another one and that has no help text vanishes from the parser."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    words = ["data", "--arch", "transformer_tiny", "--optimizer", "adam", "--lr-scheduler", "fixed", "--seed", "5"]
    examples = {"target_batch_tokens": "32k", "batch_tokens_schedule": "32k@0", "adv_radius_schedule": "1@0,2@9"}
    examples.update(target_batch_sentences="32", batch_sentences_schedule="32@0,1k@9")
    # this task takes options of its criterion
    criterions = {"adversarial_sentence_prediction": ["--criterion", "sentence_prediction"]}
    for component in components:
        own = [option for option in component.options if not option.inherited and option.name.startswith("--")]
        given: List[str] = []
        for option in own:
            dest = option.name[2:].replace("-", "_")
            value = (option.choices or [examples.get(dest, "1")])[-1]
            given += [option.name] if option.flag else [option.name, value]
        parsed = options.parse_args_and_arch(
            options.get_training_parser(),
            [*words, *criterions.get(component.name, []), f"--{component.kind}", component.name, *given],
        )
        config = convert_namespace_to_omegaconf(parsed)
        node = config[component.kind.replace("-", "_")]
        assert all(option.name[2:].replace("-", "_") in node for option in own), component.name
        if "--adv-seed" in given:
            assert node.adv_seed == 1

"""``fairseq-adv options``: the options of our criterions, tasks and optimizers, absent from fairseq's ``--help``."""

from __future__ import annotations

import argparse
import inspect
import json
import textwrap
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Dict, List, Optional, Tuple

HELP = "list the options of this plugin's criterions, tasks, optimizers and learning rate schedules"
EXAMPLE = "fairseq-adv options arch_label_smoothed"


@dataclass(frozen=True)
class Option:
    """One option as the command line takes it. ``inherited``: fairseq's own, not of this plugin."""

    name: str
    default: Any
    choices: Optional[List[str]]
    help: str
    flag: bool
    inherited: bool


@dataclass(frozen=True)
class Component:
    """What a name like ``arch_label_smoothed`` registers; ``kind`` is the option that selects it, without dashes."""

    kind: str
    name: str
    summary: str
    options: List[Option] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this one only, with what it takes from fairseq")
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args: argparse.Namespace) -> int:
    components = own_components()
    if args.name is not None:
        chosen = [component for component in components if component.name == args.name]
        if not chosen:
            known = ", ".join(dict.fromkeys(component.name for component in components))
            raise ValueError(f"unknown name {args.name!r}: choose one of {known}")
        components = chosen
    if args.json:
        print(json.dumps([asdict(component) for component in components], indent=2))
    else:
        print("\n\n".join(as_text(component, with_inherited=args.name is not None) for component in components))
    return 0


def own_components() -> List[Component]:
    """Everything that modules of this package registered with fairseq, in the order criterion, task, the others."""
    import fairseq_adv

    fairseq_adv.register()

    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY

    registries: Dict[str, Tuple[Dict[str, Any], Dict[str, Any]]] = {"criterion": ({}, {})}
    registries["task"] = (TASK_REGISTRY, TASK_DATACLASS_REGISTRY)
    for kind, registry in REGISTRIES.items():
        registries[kind] = (registry["registry"], registry["dataclass_registry"])
    return [
        Component(kind.replace("_", "-"), name, _summary(cls), _options(dataclasses.get(name)))
        for kind, (classes, dataclasses) in registries.items()
        for name, cls in classes.items()
        if cls.__module__.startswith("fairseq_adv.")
    ]


def _summary(cls: type) -> str:
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())


def _options(config: Optional[type]) -> List[Option]:
    """The options that fairseq makes of the dataclass *config*, own ones first."""
    if config is None:
        return []
    from fairseq.dataclass.utils import gen_parser_from_dataclass

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    gen_parser_from_dataclass(parser, config())
    own = _own_fields(config)
    options = [_option(action, config, action.dest not in own) for action in parser._actions]
    return sorted(options, key=lambda option: option.inherited)


def _own_fields(config: type) -> set:
    """Names of the fields that classes of this package declare or give a new default."""
    own = [base for base in config.__mro__ if base.__module__.startswith("fairseq_adv.")]
    return {name for base in own for name in vars(base).get("__annotations__", {})}


def _option(action: argparse.Action, config: Any, inherited: bool) -> Option:
    default, flag = action.default, action.nargs == 0
    if default is None:
        declared = {f.name: f.default for f in fields(config)}.get(action.dest)
        if isinstance(declared, str) and declared.startswith("${"):  # filled in from another option
            default = "as --" + declared.strip("${}").rpartition(".")[2].replace("_", "-")
    name = action.option_strings[0] if action.option_strings else action.dest.upper()
    choices = None if action.choices is None else [str(choice) for choice in action.choices]
    return Option(name, default, choices, " ".join((action.help or "").split()), flag, inherited)


def as_text(component: Component, with_inherited: bool) -> str:
    lines = [f"--{component.kind} {component.name}", textwrap.fill(component.summary, 110, initial_indent="  ")]
    hidden = 0
    for option in component.options:
        if option.inherited and not with_inherited:
            hidden += 1
            continue
        values = "" if option.flag else " {" + ",".join(option.choices) + "}" if option.choices else " VALUE"
        default = "off" if option.flag and not option.default else option.default
        origin = ", fairseq's own" if option.inherited else ""
        lines.append(f"    {option.name}{values}  (default: {default}{origin})")
        lines.append(textwrap.fill(option.help, 110, initial_indent=" " * 8, subsequent_indent=" " * 8))
    if hidden:
        lines.append(f"    and {hidden} of fairseq's own: fairseq-adv options {component.name}")
    return "\n".join(line for line in lines if line.strip())

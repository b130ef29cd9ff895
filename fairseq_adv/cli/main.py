"""Entry point of ``fairseq-adv``: picks the sub-command and turns bad input into one clear line.

A new sub-command is a file of this folder, or of a group's folder (``study/``), and its name in :data:`COMMANDS`.
The file has ``HELP`` (one line), ``EXAMPLE`` (command lines), ``add_arguments(parser)`` and ``run(args)``, which
returns the exit status. If it says ``REST`` (what may follow ``--``), those words come as ``args.rest``.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import textwrap
from typing import Any, Dict, List, Optional, Sequence, Tuple

from fairseq_adv.version import __version__

# In the order of --help. "study large-batch" is study/large_batch.py; its group's HELP is in study/__init__.py. Only
# what is asked for is imported.
COMMANDS = (
    "user-dir",
    "doctor",
    "options",
    "neighbors",
    "convert-bert",
    "sentences fetch",
    "sentences binarise",
    "sentences baselines",
    "sentences evaluate",
    "sentences table",
    "cache",
    "corpus fetch",
    "corpus unpack",
    "corpus text",
    "corpus tokenize",
    "corpus clean",
    "corpus subwords",
    "corpus home-assistant",
    "corpus debian",
    "average",
    "evaluate",
    "score",
    "compare",
    "grid",
    "sweep",
    "study large-batch",
    "study large-batch-sentences",
    "study regime",
    "study sentences",
    "report",
    "probe",
    "reproduce",
)


def module_of(name: str) -> Any:
    """The module that implements the sub-command, or describes the group, *name*."""
    return importlib.import_module("fairseq_adv.cli." + name.replace("-", "_").replace(" ", "."))


def asked_for(argv: Sequence[str]) -> List[str]:
    """The sub-commands that *argv* can mean: one, those of a group, or all."""
    for words in (" ".join(argv[:2]), *argv[:1]):
        found = [name for name in COMMANDS if name == words or name.startswith(f"{words} ")]
        if found:
            return found
    return list(COMMANDS)


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for *argv*; only what is asked for there is imported."""
    parser = argparse.ArgumentParser(prog="fairseq-adv", description="Tools beside the fairseq plugin fairseq_adv.")
    parser.add_argument("--version", action="version", version=f"fairseq-adv {__version__}")
    levels: Dict[str, Any] = {"": parser.add_subparsers(dest="command", required=True, metavar="COMMAND")}
    for name in asked_for(argv):
        group, _, word = name.rpartition(" ")
        if group not in levels:
            words = module_of(group).HELP
            described = levels[""].add_parser(group, help=words, description=words)
            levels[group] = described.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
        module = module_of(name)
        subparser = levels[group].add_parser(
            word,
            help=module.HELP,
            description=textwrap.fill(module.HELP, 100),
            epilog="example:\n" + textwrap.indent(module.EXAMPLE, "  "),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(carry_out=module.run, full_name=name)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Arguments of the sub-command in *argv*, its name (``args.full_name``) and what does it (``args.carry_out``)."""
    asked = asked_for(argv)
    words, rest = list(argv), None
    if len(asked) == 1 and hasattr(module_of(asked[0]), "REST"):
        words, rest = cut_rest(argv)
    args = build_parser(words).parse_args(words)
    args.rest = rest
    return args


def cut_rest(argv: Sequence[str]) -> Tuple[List[str], List[str]]:
    """What stands before and after the first ``--``."""
    cut = list(argv).index("--") if "--" in argv else len(argv)
    return list(argv[:cut]), list(argv[cut + 1 :])


def warn_alone() -> None:
    """Log warnings and worse, or what ``LOGLEVEL`` says: fairseq asks for INFO on import where nothing was asked."""
    logging.basicConfig(level=os.environ.get("LOGLEVEL", "WARNING").upper(), format="%(levelname)s: %(message)s")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one sub-command and return its exit status: 0 fine, 1 found something wrong, 2 bad input."""
    warn_alone()
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        return args.carry_out(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"fairseq-adv {args.full_name}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

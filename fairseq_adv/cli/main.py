"""Entry point of ``fairseq-adv``: picks the sub-command and turns bad input into one clear line."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Optional, Sequence

from fairseq_adv.version import __version__

# name of the sub-command -> module that implements it; imported only when it is asked for
COMMANDS = {
    "user-dir": "fairseq_adv.cli.user_dir",
    "doctor": "fairseq_adv.cli.doctor",
    "options": "fairseq_adv.cli.options",
    "neighbors": "fairseq_adv.cli.neighbors",
    "cache": "fairseq_adv.cli.cache",
    "report": "fairseq_adv.cli.report",
}


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for *argv*; only the module of the sub-command named there is imported in full."""
    parser = argparse.ArgumentParser(prog="fairseq-adv", description="Tools beside the fairseq plugin fairseq_adv.")
    parser.add_argument("--version", action="version", version=f"fairseq-adv {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wanted = next((word for word in argv if word in COMMANDS), None)
    for name, module_name in COMMANDS.items():
        if wanted is not None and name != wanted:
            continue
        module = importlib.import_module(module_name)
        subparser = subparsers.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one sub-command and return its exit status: 0 fine, 1 found something wrong, 2 bad input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser(argv).parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"fairseq-adv {args.command}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

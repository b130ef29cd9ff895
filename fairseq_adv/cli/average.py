"""``fairseq-adv average``: the mean of checkpoints of one training."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import List

from fairseq_adv.scoring.averaging import EPOCH_FILE, UPDATE_FILE, last_checkpoints, write_average

HELP = "average the parameters of fairseq checkpoints into one, as papers do before they score"
EXAMPLE = """\
fairseq-adv average --last-epochs 5 --inputs run/checkpoints --output run/checkpoints/average.pt
fairseq-adv average --inputs run/checkpoints/checkpoint8.pt run/checkpoints/checkpoint9.pt --output average.pt"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--inputs", type=Path, nargs="+", required=True, help="checkpoint files, or one folder of them")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    count = parser.add_mutually_exclusive_group()
    count.add_argument("--last-epochs", type=int, metavar="N", help="the last N checkpointEPOCH.pt of the folder")
    count.add_argument("--last-updates", type=int, metavar="N", help="the last N checkpoint_EPOCH_UPDATE.pt")
    parser.add_argument("--json", action="store_true", help="print a JSON object of what was averaged")


def run(args: argparse.Namespace) -> int:
    paths = chosen(args)
    write_average(paths, args.output)
    names = [path.name for path in paths]
    told = {"output": str(args.output), "inputs": names}
    print(json.dumps(told) if args.json else f"{args.output}: mean of {', '.join(names)}")
    return 0


def chosen(args: argparse.Namespace) -> List[Path]:
    """The checkpoints that the options name. Raises ``ValueError`` where they name none."""
    count, pattern = args.last_epochs, EPOCH_FILE
    if args.last_updates is not None:
        count, pattern = args.last_updates, UPDATE_FILE
    if count is None:
        return args.inputs
    if count < 1 or len(args.inputs) != 1 or not args.inputs[0].is_dir():
        raise ValueError("--last-epochs and --last-updates need a positive number and --inputs FOLDER")
    return last_checkpoints(args.inputs[0], pattern, count)

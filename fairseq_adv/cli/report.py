"""``fairseq-adv report``: figures, tables and one page from the logs and scores of runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "write a page with figures and tables from the logs and scores of runs"
EXAMPLE = "fairseq-adv report runs/plain-seed1 runs/arch-seed1 --output report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder with train.log or hydra_train.log (json format) and, if scored, score.json; NAME=FOLDER renames "
        "its method",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for index.html, PNGs and tables")
    parser.add_argument("--title", default="Training report", help="heading of the page")
    parser.add_argument("--json", action="store_true", help="print the table as JSON instead of text")


def run(args: argparse.Namespace) -> int:
    from fairseq_adv.report.page import write_report
    from fairseq_adv.report.runs import load_runs
    from fairseq_adv.report.table import result_rows, to_json, to_text

    runs = load_runs(args.runs)
    files = write_report(runs, args.output, args.title)
    rows = result_rows(runs)
    print(json.dumps({"page": str(files[0]), "rows": to_json(rows)}) if args.json else to_text(rows))
    return 0

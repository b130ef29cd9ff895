"""``fairseq-adv probe``: how perturbed and noisy input and moved parameters change what trained runs do."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict

from fairseq_adv.cli.fields import add_options, from_arguments
from fairseq_adv.probe.settings import ProbeSettings
from fairseq_adv.whole_files import write_text

HELP = (
    "measure how robust and how smooth trained models are: loss and BLEU under perturbed and noisy input, curvature "
    "and the loss around the parameters; each run keeps its numbers in RUN/probe.json, which report shows too"
)
EXAMPLE = "fairseq-adv probe runs/plain-seed1 runs/arch-seed1 --output probe"
RECORD = "probe.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="folder with checkpoints/ and train.log; NAME=FOLDER renames its method")
    add("--output", type=Path, required=True, help="folder for index.html, PNGs and tables")
    add("--checkpoint", default="checkpoint_best.pt", help="file in RUN/checkpoints (default: checkpoint_best.pt)")
    add("--data", type=Path, help="folder of binarised data (default: the one that the run was trained on)")
    add("--subwords", type=Path, help="model that cuts noisy text into pieces (default: beside the data, in bpe/)")
    bpe = "how pieces are joined where no noise needs --subwords, as fairseq-generate takes it; none: words"
    add("--remove-bpe", default="sentencepiece", help=f"{bpe} (default: sentencepiece)")
    add("--title", default="Robustness and geometry", help="heading of the page")
    add("--again", action="store_true", help="measure anew what is in RUN/probe.json already")
    add_options(parser, ProbeSettings)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from fairseq_adv.report.page import write_report
    from fairseq_adv.report.probe_table import probe_rows, rows_as_text
    from fairseq_adv.report.runs import load_runs

    settings = from_arguments(ProbeSettings, args)
    for found in load_runs(args.runs):
        measure_run(found.folder, args, settings)
    runs = load_runs(args.runs)
    write_report(runs, args.output, args.title)
    rows = probe_rows(runs)
    print(json.dumps([asdict(row) for row in rows], indent=2) if args.json else rows_as_text(rows))
    return 0


def measure_run(folder: Path, args: argparse.Namespace, settings: ProbeSettings) -> Dict[str, Any]:
    """Measure one run, unless RUN/probe.json has the same settings and is newer than the checkpoint."""
    checkpoint, record = folder / "checkpoints" / args.checkpoint, folder / RECORD
    named = {"checkpoint": args.checkpoint, "remove_bpe": args.remove_bpe, "data": str(args.data or "")}
    wanted = json.loads(json.dumps({**named, **asdict(settings)}))
    if not args.again and record.is_file() and checkpoint.is_file():
        known = json.loads(record.read_text(encoding="utf-8"))
        if known.get("settings") == wanted and record.stat().st_mtime >= checkpoint.stat().st_mtime:
            return known
    found = {"settings": wanted, **_measure(checkpoint, args, settings)}
    write_text(record, json.dumps(found, indent=1) + "\n")
    return found


def _measure(checkpoint: Path, args: argparse.Namespace, settings: ProbeSettings) -> Dict[str, Any]:
    import fairseq_adv

    fairseq_adv.register()
    from fairseq_adv.probe.measures import probe
    from fairseq_adv.probe.trained_model import TrainedModel

    model = TrainedModel.load(checkpoint, args.data, settings.beam)
    data = args.data or Path(model.task.cfg.data.split(os.pathsep)[0])
    return probe(model, settings, data, args.subwords, None if args.remove_bpe == "none" else args.remove_bpe)

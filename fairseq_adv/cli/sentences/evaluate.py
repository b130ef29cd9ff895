"""``fairseq-adv sentences evaluate``: predictions and scores of a training on sentences."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Dict, Optional

from fairseq_adv.scoring.sentence_predictions import SCORE, score_run

HELP = "predict the test set with a training's best checkpoint, and score it by the metrics of the set"
EXAMPLE = "fairseq-adv sentences evaluate work/movie/minilm/runs/arch-seed1 --data work/movie/minilm/bin"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="RUN", help="folder with checkpoints/; gets score.json, predictions.*"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="BIN", help="folder of fairseq-adv sentences binarise"
    )
    parser.add_argument(
        "--checkpoint", default="checkpoint_best.pt", help="file in RUN/checkpoints (checkpoint_best.pt)"
    )
    parser.add_argument("--json", action="store_true", help="print score.json instead of a line for each set")


def run(args: argparse.Namespace) -> int:
    import fairseq_adv

    result = scored_already(args.folder, args.checkpoint)
    if result is None:
        fairseq_adv.register()
        result = score_run(args.folder, args.data, args.checkpoint)
    if args.json:
        print(json.dumps(result))
        return 0
    for subset, numbers in result["subsets"].items():
        shown = ", ".join(f"{name} {100 * numbers[name]:.2f}" for name in result["metrics"])
        print(f"{args.folder.name} {subset}: {shown} ({numbers['rows']} rows)")
    return 0


def scored_already(run: Path, checkpoint: str) -> Optional[Dict[str, Any]]:
    """What ``score.json`` of *run* says, if it is of this *checkpoint* as it is now."""
    score, file = run / SCORE, run / "checkpoints" / checkpoint
    if not (score.is_file() and file.is_file() and score.stat().st_mtime > file.stat().st_mtime):
        return None
    result = json.loads(score.read_text(encoding="utf-8"))
    return result if result["checkpoint"] == checkpoint else None

"""Train and score variants × seeds × corpora, several at a time, and compare them.

    bash scripts/quickstart.sh --pairs 1000 --prepare-only          # again with --seed 2 and 3 for their neighbors
    python scripts/run_grid.py work/en-de-1000 --variants plain r3f arch "arch-eps0=arch --adv-eps 0 --adv-steps 0" \\
        --seeds 1 2 3 --epochs 40 --jobs 2

A corpus is a folder that the quickstart prepared, or a recipe in quotes with its options, such as
"examples/translation/iwslt14-de-en.sh --reverse". A variant is a criterion by its NAME in NAME_label_smoothed, plain,
or NAME=METHOD OPTIONS; {seed} in the options stands for the seed. Options of fairseq-train for all: after --.

Interrupt or kill it when you like, even with kill -9: the same command goes on, finished runs are not repeated, an
interrupted training goes on from its last epoch, and what a kill left running is waited for, not disturbed. A run that
fails does not stop the others. Ends with the table of results, the paired bootstrap against the baseline, and a report.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import List, Optional, Sequence

from fairseq_adv.experiments.grid_corpora import SCRIPTS, Corpus, PreparedFolder, Recipe, Variant, parse_variant
from fairseq_adv.experiments.jobs import Run, finish

UNLIMITED = 100_000  # epochs, where the clock ends a training


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    description, usage = (__doc__ or "").split("\n", 1)
    parser = argparse.ArgumentParser(
        description=description, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("corpora", nargs="+", metavar="CORPUS", help="folder that quickstart.sh prepared, or a recipe in quotes")
    add("--variants", nargs="+", required=True, metavar="VARIANT", help="METHOD, or NAME=METHOD OPTIONS in quotes")
    add("--seeds", type=int, nargs="+", default=[1], help="seeds (default: 1)")
    add("--epochs", type=int, help="budget of each run (default: 60, or the recipe's)")
    add("--minutes", type=float, help="budget of each run in wall clock instead of epochs, validations included")
    add("--jobs", type=int, help="runs at a time (default: one for each device, or 1)")
    add("--devices", type=int, nargs="+", default=[], metavar="GPU", help="numbers of the GPUs that runs may use")
    add("--baseline", help="variant to compare with (default: the first)")
    add("--output", type=Path, help="folder of the runs of a prepared folder (default: CORPUS/runs-epochsN)")
    add("--evaluate", default="", metavar="OPTIONS", help="options of evaluate_run.sh in quotes, for prepared folders")
    add("--no-comparison", action="store_true", help="train and score only: no tables, no report")
    words = list(argv)
    cut = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:cut])
    args.train_options = words[cut + 1 :]
    try:
        args.variants = [parse_variant(text) for text in args.variants]
        _check(args)
        if args.minutes is not None:
            args.train_options += ["--stop-time-hours", str(args.minutes / 60)]
        args.corpora = [_corpus(text, args) for text in args.corpora]
    except ValueError as error:
        parser.error(str(error))
    return args


def _check(args: argparse.Namespace) -> None:
    names = [variant.name for variant in args.variants]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"--variants has {twice} twice: give one of them another name, NAME=METHOD OPTIONS")
    if len(set(args.seeds)) < len(args.seeds):
        raise ValueError(f"--seeds has a seed twice: {' '.join(map(str, args.seeds))}")
    for option in ("epochs", "jobs"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise ValueError(f"--{option} must be at least 1, got {value}")
    if args.minutes is not None and (args.epochs is not None or not 0 < args.minutes < math.inf):
        raise ValueError(f"--minutes must be a positive number, without --epochs, got {args.minutes}")
    args.jobs = args.jobs or max(1, len(args.devices))
    if args.devices and args.jobs > len(args.devices):
        raise ValueError(f"--jobs {args.jobs} is more than the {len(args.devices)} --devices: each run takes one")
    args.baseline = args.baseline or names[0]
    if args.baseline not in names:
        raise ValueError(f"--baseline {args.baseline} is none of the variants: {', '.join(names)}")
    if args.output and len(args.corpora) > 1:
        raise ValueError("--output takes one corpus: without it each corpus has a folder of its own")


def _corpus(text: str, args: argparse.Namespace) -> Corpus:
    words = text.split()
    if words and words[0].endswith(".sh"):
        if not Path(words[0]).is_file():
            raise ValueError(f"there is no recipe {words[0]}")
        limit = UNLIMITED if args.minutes else args.epochs
        epochs = ["--epochs", str(limit)] if limit else []
        return Recipe([*words, *epochs], args.train_options)
    epochs_here = UNLIMITED if args.minutes else args.epochs or 60
    budget = f"minutes{args.minutes:g}" if args.minutes else f"epochs{epochs_here}"
    output = args.output or Path(text).absolute() / f"runs-{budget}"
    return PreparedFolder(Path(text).absolute(), epochs_here, args.train_options, output, args.evaluate.split())


def prepare(corpora: Sequence[Corpus], args: argparse.Namespace) -> Optional[str]:
    """Prepare each corpus; the reason if that failed, else None."""
    for corpus in corpora:
        try:
            for command in corpus.prepare(args.variants, args.seeds):
                done = subprocess.run([str(word) for word in command], check=False)
                if done.returncode != 0:
                    return f"{corpus.label}: {' '.join(map(str, command))} failed with status {done.returncode}"
        except ValueError as error:
            return str(error)
    return None


def compare(corpus: Corpus, folders: Sequence[Path], baseline: str) -> None:
    """The results' table with a report, then the paired bootstrap."""
    report = corpus.report_folder()
    print(f"\n{corpus.label}: {report / 'index.html'}", flush=True)
    cli = [sys.executable, "-m", "fairseq_adv.cli.main"]
    subprocess.run([*cli, "report", *map(str, folders), "--output", str(report), "--title", corpus.label], check=True)
    print(flush=True)
    systems = [sys.executable, str(SCRIPTS / "compare_systems.py"), *map(str, folders), "--baseline", baseline]
    subprocess.run(systems, check=True)


def grid(corpus: Corpus, variants: Sequence[Variant], seeds: Sequence[int]) -> List[Run]:
    """The runs of one corpus, all variants of a seed before the next seed: an early stop leaves whole seeds."""
    cells = [(variant, seed) for seed in seeds for variant in variants]
    return [Run(corpus.folder(v, s), partial(corpus.commands, v, s)) for v, s in cells]


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = parse_args(sys.argv[1:] if argv is None else argv)
    reason = prepare(args.corpora, args)
    if reason:
        print(f"run_grid.py: {reason}", file=sys.stderr)
        return 2
    grids = [(corpus, grid(corpus, args.variants, args.seeds)) for corpus in args.corpora]
    runs = [run for _, runs_of_corpus in grids for run in runs_of_corpus]
    status = finish(runs, "run_grid.py", args.jobs, args.epochs, args.devices)
    if status == 130:
        return status
    for corpus, runs in grids:
        scored = [run.folder for run in runs if (run.folder / "score.json").is_file()]
        has_baseline = any((run.folder / "score.json").is_file() for run in runs if _is(run, args.baseline))
        if has_baseline and not args.no_comparison:
            compare(corpus, scored, args.baseline)
    return status


def _is(run: Run, variant: str) -> bool:
    return run.folder.name.rpartition("-seed")[0] == variant


if __name__ == "__main__":
    sys.exit(main())

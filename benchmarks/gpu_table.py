#!/usr/bin/env python3
"""One table and one JSON of what ``gpu.sh`` has left in a folder.

python benchmarks/gpu_table.py gpu-results
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

HEAD = "| run | row | ms | time / plain | time / peer | units / plain | memory / plain |"
TOGETHER = "gpu.json"  # the figures of all runs


def rows_of(name: str, run: Dict[str, Any]) -> Iterator[List[str]]:
    """The cells of each row of one run, whichever benchmark it is of."""
    if "optimizers" in run:
        for optimizer, row in run["optimizers"].items():
            yield [name, optimizer, f"{row['median_ms']:.2f}", "–", "–", "–", "–"]
        return
    for words, rows in run["rows"].items():
        yield from _of_dictionary(name, words, rows)


def _of_dictionary(name: str, words: str, rows: List[Dict[str, Any]]) -> Iterator[List[str]]:
    plain = rows[0]
    for row in rows:
        ratio = row["ratio"] if "ratio" in row else row["to_plain"]
        peer = f"{row['to_peer'][1]:.2f}" if "to_peer" in row else "–"
        units = f"{row['units'] / 3:.2f}" if "units" in row else "–"
        memory = f"{row['peak_bytes'] / plain['peak_bytes']:.2f}" if "peak_bytes" in row else "–"
        yield [
            name,
            f"{row['method']}, {words} words",
            f"{1000 * row['seconds']:.1f}",
            f"{ratio:.2f}",
            peer,
            units,
            memory,
        ]


def page(folder: Path) -> str:
    """Settings, the table, and the runs that did not end; writes :data:`TOGETHER` too."""
    files = sorted(path for path in folder.glob("*.json") if path.name != TOGETHER)
    runs = {path.stem: json.loads(path.read_text()) for path in files}
    failed = {path.stem: path.read_text().strip() for path in sorted(folder.glob("*.failed"))}
    (folder / TOGETHER).write_text(json.dumps({"runs": runs, "failed": failed}, indent=1))
    settings = [f"- {name}: {run.get('setting') or run.get('device')}" for name, run in runs.items()]
    lines = [HEAD, "|" + "---|" * HEAD.count(" |")]
    for name, run in runs.items():
        lines += [f"| {' | '.join(cells)} |" for cells in rows_of(name, run)]
    told = [f"- {name}: failed with status {status}, see {name}.log" for name, status in failed.items()]
    return "\n".join([*settings, "", *lines, "", *told]).rstrip() + "\n"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="One table and one JSON of the runs of gpu.sh.")
    parser.add_argument("folder", type=Path, help="what --output of gpu.sh was")
    args = parser.parse_args(argv)
    if not args.folder.is_dir():
        print(f"{args.folder} is not a folder: give what --output of gpu.sh was", file=sys.stderr)
        return 2
    text = page(args.folder)
    (args.folder / "gpu.md").write_text(text)
    print(text, end="")
    return 1 if list(args.folder.glob("*.failed")) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

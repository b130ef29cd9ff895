"""Write the tables of this package into docs/methods.md and docs/papers.md.

    python -m fairseq_adv.papers.page --write

Tests fail while a page is stale.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Callable, Dict, List, Tuple

from fairseq_adv.papers.choices import choices_table
from fairseq_adv.papers.hyperparameters import ARCH_VALUES, CONADV_VALUES
from fairseq_adv.papers.index import ARCH, CONADV, SCALA, index_table
from fairseq_adv.papers.values import DIRECTIONS, METHOD_VALUES

DOCS = Path(__file__).resolve().parents[2] / "docs"
END = "<!-- end of the table -->"


def presets_table() -> List[str]:
    """ARCH's hyper-parameters: the paper's, which are the defaults of ``arch``, and the public code's."""
    lines = ["| option | `--adv-preset paper` | where | `--adv-preset release` |", "|---|---|---|---|"]
    for value in METHOD_VALUES:
        release = "" if value.release is None else f"`{_shown(value.release)}`"
        lines.append(f"| `{value.option}` | `{_shown(value.paper)}` | {value.where} | {release} |")
    return lines


def directions_table() -> List[str]:
    """Tables 4 and 7 with our command for each direction."""
    head = (
        "| direction | corpus | train, dev, test (Table 4) | model | batch | beam, length penalty (Table 7) | recipe |"
    )
    lines = [head, "|---|---|---|---|---|---|---|"]
    for d in DIRECTIONS:
        sizes, search = f"{d.train}, {d.valid}, {d.test}", f"{d.beam}, {d.lenpen}"
        lines.append(f"| {d.name} | {d.corpus} | {sizes} | `{d.model}` | {d.batch_tokens} | {search} | `{d.command}` |")
    return lines


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


# page -> (name of the table, its lines)
TABLES: Dict[str, Tuple[Tuple[str, Callable[[], List[str]]], ...]] = {
    "methods.md": (("presets", presets_table), ("choices", choices_table)),
    "recipes.md": (("directions", directions_table),),
    "papers.md": (
        ("arch", lambda: index_table(ARCH)),
        ("arch-values", lambda: index_table(ARCH_VALUES)),
        ("conadv", lambda: index_table(CONADV)),
        ("conadv-values", lambda: index_table(CONADV_VALUES)),
        ("scala", lambda: index_table(SCALA)),
    ),
}


def mark(name: str) -> str:
    return f"<!-- table {name}: python -m fairseq_adv.papers.page --write -->"


def with_tables(page: str, tables: Tuple[Tuple[str, Callable[[], List[str]]], ...]) -> str:
    """*page* with each of *tables* between its marks. Raises ``ValueError`` where a mark is missing."""
    for name, lines in tables:
        head, begin, rest = page.partition(mark(name))
        _, end, tail = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"the page has no place for the table {name}: {mark(name)} … {END}")
        body = "\n".join(lines())
        page = f"{head}{begin}\n\n{body}\n\n{end}{tail}"
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description="Tables of the papers in docs/.")
    parser.add_argument("--write", action="store_true", required=True, help="put them into the pages")
    parser.parse_args()
    for name, tables in TABLES.items():
        path = DOCS / name
        path.write_text(with_tables(path.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()

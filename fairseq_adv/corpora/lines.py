"""What a line of text is, for everything that reads or writes sentences: what ends with a line feed.

Python's universal newlines end a line at a lone carriage return too, and ``fairseq-preprocess`` reads that way; ``wc``,
sacrebleu, sentencepiece and Moses do not. So a file is cut at line feeds alone, a carriage return before one belongs to
the ending, and any other counts as a blank: then both ways of reading agree on what is written from it.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, TextIO, Tuple


def whole_line(line: str) -> str:
    """One line as read with ``newline="\\n"``, without its ending and with blanks for carriage returns inside."""
    return line.removesuffix("\n").removesuffix("\r").replace("\r", " ")


def stream_lines(lines: TextIO) -> Iterator[str]:
    """The lines of an open text stream, whatever newlines it was opened with."""
    lines.reconfigure(newline="\n")  # type: ignore[attr-defined]
    return map(whole_line, lines)


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a file in UTF-8, one by one."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield whole_line(line)


def read_pairs(one: Path, other: Path) -> Iterator[Tuple[str, str]]:
    """The lines of two files side by side; ``ValueError`` says which one is longer."""
    lacking = object()
    left, right = iter(read_lines(one)), iter(read_lines(other))
    for number, (a, b) in enumerate(zip_longest(left, right, fillvalue=lacking)):
        if a is lacking or b is lacking:
            longer = right if a is lacking else left
            counts = {str(one): number, str(other): number}
            counts[str(other if a is lacking else one)] += 1 + sum(1 for _ in longer)
            require_same_length(counts)
        yield str(a), str(b)


def require_same_length(counts: Dict[str, int]) -> None:
    """Raise ``ValueError`` unless all of *counts* (what is counted -> its lines) agree; the longest is named first."""
    if len(set(counts.values())) > 1:
        ordered = sorted(counts.items(), key=lambda pair: -pair[1])
        rest = ", ".join(f"{name} has {count}" for name, count in ordered[1:])
        raise ValueError(f"{ordered[0][0]} is longer, with {ordered[0][1]} lines; {rest}: is a file cut off?")


def joined(lines: Iterable[str]) -> str:
    """A file's text out of lines that hold no line break."""
    return "".join(f"{whole_line(line)}\n" for line in lines)


def all_lines(path: Path) -> List[str]:
    """:func:`read_lines` as a list."""
    return list(read_lines(path))

"""What ``large_batch_study.py`` found: numbers of each run, a table over seeds in Markdown and JSON, and a plot."""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from fairseq_adv.report.runs import load_run
from fairseq_adv.report.style import BASELINE_COLOR, COLORS, RC
from fairseq_adv.whole_files import write_text

Found = Tuple[str, int, int, Path]  # method, factor, seed, folder of the run
Row = Dict[str, Any]

_LOSS = re.compile(r"\| INFO \| (train|valid) \| .*_nll_loss\": \"([0-9.]+)\"")


class Column(NamedTuple):
    """A number of a run: its key, its heading in the table and its decimals."""

    key: str
    heading: str
    decimals: int


COLUMNS = (
    Column("bleu", "BLEU", 2),
    Column("valid_nll", "valid nll", 3),
    Column("train_nll", "train nll", 3),
    Column("gap", "gap", 3),
    Column("best_valid_nll", "best valid nll", 3),
    Column("updates", "updates", 0),
    Column("batch_tokens", "tokens / update", 0),
    Column("wall_minutes", "minutes", 1),
)


def numbers(found: Found) -> Row:
    """The row of one run; ``done`` is False, and numbers may be missing, while it is not trained and scored."""
    method, factor, seed, folder = found
    row: Row = {"method": method, "factor": factor, "seed": seed, "done": False}
    try:
        run = load_run(str(folder))
    except (OSError, ValueError):
        return row
    losses = _losses(folder / "losses.log")
    row["done"] = (folder / "done").is_file() and "bleu" in run.score and set(losses) == {"train", "valid"}
    if not row["done"]:
        return row
    row.update(bleu=float(run.score["bleu"]), valid_nll=losses["valid"], train_nll=losses["train"])
    row.update(gap=losses["valid"] - losses["train"], wall_minutes=run.wall_seconds / 60)
    row["best_valid_nll"] = (run.best_validation or {}).get("nll_loss", math.nan)
    row["updates"] = run.log.epochs[-1]["num_updates"]
    row["batch_tokens"] = statistics.fmean(epoch["batch_tokens"] for epoch in run.log.epochs)
    row["signature"] = run.score.get("bleu_signature")
    return row


def _losses(path: Path) -> Dict[str, float]:
    """Nll in bits per token of each set, from the log of fairseq-validate."""
    if not path.is_file():
        return {}
    return {name: float(value) for name, value in _LOSS.findall(path.read_text(encoding="utf-8"))}


def groups(rows: Sequence[Row]) -> Dict[Tuple[int, str], List[Row]]:
    """(factor, method) → its finished runs, by growing batch and in the methods' order."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    done = sorted((row for row in rows if row["done"]), key=lambda row: (row["factor"], methods.index(row["method"])))
    result: Dict[Tuple[int, str], List[Row]] = {}
    for row in done:
        result.setdefault((row["factor"], row["method"]), []).append(row)
    return result


def markdown(rows: Sequence[Row], base_tokens: int) -> str:
    """One line for each batch and method: the mean, and ± the sample standard deviation of several seeds."""
    heads = ["batch", "method", "seeds", *(column.heading for column in COLUMNS)]
    lines = [heads, ["---:", "---", *["---:"] * (len(heads) - 2)]]
    for (factor, method), runs in groups(rows).items():
        seeds = ",".join(str(row["seed"]) for row in runs)
        cells = [_cell([row[column.key] for row in runs], column.decimals) for column in COLUMNS]
        lines.append([f"×{factor} ({base_tokens * factor:,})", method, seeds, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(values: Sequence[float], decimals: int) -> str:
    text = f"{statistics.fmean(values):.{decimals}f}"
    if len(values) > 1 and min(values) != max(values):
        text += f" ± {statistics.stdev(values):.{decimals}f}"
    return text


def plot(rows: Sequence[Row], path: Path) -> None:
    """BLEU, validation nll, gap and wall time over the batch: a line for each method's mean, a dot for each run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    means = groups(rows)
    methods = list(dict.fromkeys(method for _, method in means))
    others = iter(COLORS)
    colors = {method: BASELINE_COLOR if method == "plain" else next(others) for method in methods}
    units = {"bleu": "BLEU", "valid_nll": "bits per token", "gap": "bits per token", "wall_minutes": "minutes"}
    titles = {
        "bleu": "Test BLEU",
        "valid_nll": "Validation nll",
        "gap": "Generalisation gap",
        "wall_minutes": "Wall time",
    }
    with pyplot.rc_context(RC):
        figure, all_axes = pyplot.subplots(1, len(units), figsize=(3.6 * len(units), 3.2))
        for axes, (key, unit) in zip(all_axes, units.items()):
            for method in methods:
                own = {factor: [row[key] for row in runs] for (factor, name), runs in means.items() if name == method}
                axes.plot(list(own), [statistics.fmean(v) for v in own.values()], color=colors[method], label=method)
                dots = [(factor, value) for factor, values in own.items() for value in values]
                axes.scatter(*zip(*dots), s=12, color=colors[method])
            axes.set_xscale("log", base=2)
            factors = sorted({factor for factor, _ in means})
            axes.set_xticks(factors, [f"×{factor}" for factor in factors])
            axes.set(title=titles[key], xlabel="batch", ylabel=unit)
        all_axes[0].legend()
        figure.savefig(path)
        pyplot.close(figure)


def publish(found: Sequence[Found], base_tokens: int, output: Path) -> str:
    """Write ``study.json``, ``study.md`` and ``study.png`` into *output*; the table."""
    rows = [numbers(each) for each in found]
    table = markdown(rows, base_tokens)
    write_text(output / "study.json", json.dumps({"base_tokens": base_tokens, "runs": rows}, indent=2) + "\n")
    write_text(output / "study.md", table)
    if any(row["done"] for row in rows):
        plot(rows, output / "study.png")
    return table

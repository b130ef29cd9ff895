"""What ``fairseq-adv study regime`` found: a table over texts and sizes, and the gain over parameters per token."""

from __future__ import annotations

import io
import json
import math
import re
import statistics
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from fairseq_adv.experiments.commands import cpu_seconds
from fairseq_adv.experiments.reproduce_results import set_value
from fairseq_adv.report.runs import Run, load_run
from fairseq_adv.report.style import COLORS, RC, legend_below, side_by_side
from fairseq_adv.report.table import cell
from fairseq_adv.scoring.significance import paired_bootstrap, read_system
from fairseq_adv.whole_files import write_bytes, write_text

SAMPLES = 1000  # of the paired bootstrap
_PARAMETERS = re.compile(r"num\. shared model params: [\d,]+ \(num\. trained: ([\d,]+)\)")
Row = Dict[str, Any]


class Found(NamedTuple):
    """A run of the study; it may not be there yet."""

    text: str
    size: str
    method: str
    variant: str
    seed: int
    folder: Path

    @property
    def is_scored(self) -> bool:
        return (self.folder / "score.json").is_file()


class Scored(NamedTuple):
    """A run that was trained and scored."""

    found: Found
    run: Run

    @property
    def valid_bleu(self) -> float:
        """BLEU of the chosen checkpoint on the validation set, as training measured it."""
        return (self.run.best_validation or {}).get("bleu", math.nan)

    @property
    def gap(self) -> float:
        """Bits per token that the validation set costs more than the training set, without dropout."""
        valid, train = (set_value(self.run, subset, "nll_loss") for subset in ("valid", "train"))
        return valid - train


def parameters(log: Path) -> int:
    """How many the model trains, as fairseq says when it begins. Raises ``ValueError`` where it does not."""
    match = _PARAMETERS.search(log.read_text(encoding="utf-8", errors="replace"))
    if not match:
        raise ValueError(f"{log} does not tell the number of parameters (num. trained: …)")
    return int(match[1].replace(",", ""))


def target_tokens(run: Run) -> float:
    """Tokens of one epoch on the target side, sentence ends included."""
    first = run.log.epochs[0]
    return first["wpb"] * first["num_updates"] / first["epoch"]


def by_cell(scored: Sequence[Scored]) -> Dict[Tuple[str, str], Dict[str, List[Scored]]]:
    """(text, size) → variant → its runs, in the order given."""
    cells: Dict[Tuple[str, str], Dict[str, List[Scored]]] = {}
    for one in scored:
        place = cells.setdefault((one.found.text, one.found.size), {})
        place.setdefault(one.found.variant, []).append(one)
    return cells


def chosen(variants: Dict[str, List[Scored]]) -> List[str]:
    """Of each method the variant with the highest validation BLEU in the first seed that all its variants have."""
    best: Dict[str, str] = {}
    for variant, runs in variants.items():
        method = runs[0].found.method
        if method not in best or runs[0].valid_bleu > variants[best[method]][0].valid_bleu:
            best[method] = variant
    return list(best.values())


def results(scored: Sequence[Scored], prices: Dict[str, float]) -> List[Row]:
    """A row for each cell and method, the baseline first in each cell."""
    baseline = next(iter(prices))
    rows: List[Row] = []
    for (text, size), variants in by_cell(scored).items():
        if baseline not in variants:
            continue
        method = variants[baseline][0].found.method
        picked = chosen(variants)
        plain = variants[next(name for name in picked if variants[name][0].found.method == method)]
        weights, tokens = parameters(plain[0].run.folder / "train.log"), target_tokens(plain[0].run)
        place: Row = {"text": text, "size": size, "parameters": weights, "target_tokens": tokens}
        rows += [{**place, **_row(variants[name], plain, prices[name])} for name in picked]
    return rows


def _row(runs: Sequence[Scored], plain: Sequence[Scored], price: float) -> Row:
    seconds = {one.found.seed: cpu_seconds(one.run.folder) for one in plain}
    return {
        "method": runs[0].found.method,
        "variant": runs[0].found.variant,
        "price": price,
        "seeds": [one.found.seed for one in runs],
        "updates": [one.run.log.validations[-1]["num_updates"] for one in runs],
        "valid_bleu": [one.valid_bleu for one in runs],
        "test_bleu": [float(one.run.score["bleu"]) for one in runs],
        "gap": [one.gap for one in runs],
        "minutes": [one.run.wall_seconds / 60 for one in runs],
        "cpu": [cpu_seconds(one.run.folder) / seconds.get(one.found.seed, math.nan) for one in runs],
        "differences": [] if runs is plain else _differences(runs, plain),
    }


def _differences(runs: Sequence[Scored], plain: Sequence[Scored]) -> List[Dict[str, float]]:
    """Test BLEU less the baseline's, seed by seed, with the paired bootstrap's interval."""
    systems = {one.found.seed: read_system(str(one.run.folder)) for one in plain}
    pairs = [(systems[s.found.seed], read_system(str(s.run.folder))) for s in runs if s.found.seed in systems]
    return [{"seed": new.seed, **paired_bootstrap(old, new, SAMPLES)["bleu"]} for old, new in pairs]


def markdown(rows: Sequence[Row]) -> str:
    """A line for each row: mean ± deviation over seeds; the difference seed by seed."""
    heads = ["text", "model", "parameters / tokens", "method", "seeds", "updates", "valid BLEU", "test BLEU"]
    heads += ["− baseline [95 %]", "gap (bits)", "minutes", "CPU time / baseline"]
    lines = [heads, ["---", "---", "---:", "---", *["---:"] * (len(heads) - 4)]]
    for row in rows:
        told = ", ".join(f"{d['difference']:+.1f} [{d['low']:+.1f}, {d['high']:+.1f}]" for d in row["differences"])
        ratio = f"{row['parameters'] / row['target_tokens']:.0f}"
        line = [row["text"], row["size"], ratio, row["variant"], ", ".join(map(str, row["seeds"]))]
        for key, decimals in (("updates", 0), ("valid_bleu", 1), ("test_bleu", 2)):
            line.append(cell(row[key]).text(decimals))
        line += [told or "–", *(cell(row[key]).text(n) for key, n in (("gap", 2), ("minutes", 1), ("cpu", 2)))]
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def gains(rows: Sequence[Row]) -> Dict[str, List[Tuple[float, float, float, float]]]:
    """Method → (parameters / target tokens, mean gain in test BLEU, lowest and highest bound of its intervals)."""
    points: Dict[str, List[Tuple[float, float, float, float]]] = {}
    for row in (row for row in rows if row["differences"]):
        found = row["differences"]
        low, high = min(d["low"] for d in found), max(d["high"] for d in found)
        mean = statistics.fmean(d["difference"] for d in found)
        points.setdefault(row["method"], []).append((row["parameters"] / row["target_tokens"], mean, low, high))
    return {method: sorted(found) for method, found in points.items()}


def picture(rows: Sequence[Row]) -> Optional[bytes]:
    """The gain at equal cost over parameters per target token, as a PNG; ``None`` without a comparison."""
    points = gains(rows)
    if not points:
        return None
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot

    with pyplot.rc_context(RC):
        figure, axes = pyplot.subplots(figsize=(5.4, 3.6))
        axes.axhline(0, color="#4d4d4d", linewidth=1.0)
        for number, (method, found) in enumerate(points.items()):
            x = [ratio * side_by_side(number, len(points)) for ratio, *_ in found]
            errors = [[mean - low for _, mean, low, _ in found], [high - mean for _, mean, _, high in found]]
            color = COLORS[number % len(COLORS)]
            axes.errorbar(x, [p[1] for p in found], yerr=errors, fmt="o", capsize=3, color=color, label=method)
        axes.set(xscale="log", xlabel="parameters / target tokens of the training text", ylabel="BLEU − baseline's")
        axes.set_title("Gain on the test set at equal cost")
        legend_below(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        pyplot.close(figure)
    return buffer.getvalue()


def publish(found: Sequence[Found], prices: Dict[str, float], output: Path) -> str:
    """Write regime.json, regime.md and regime.png of what has been scored into *output*; the table."""
    scored = [Scored(one, load_run(f"{one.variant}={one.folder}")) for one in found if one.is_scored]
    rows = results(scored, prices)
    if not rows:
        return "no run of the baseline was scored\n"
    table = markdown(rows)
    write_text(output / "regime.json", json.dumps(rows, indent=2) + "\n")
    write_text(output / "regime.md", table)
    image = picture(rows)
    if image:
        write_bytes(output / "regime.png", image)
    return table

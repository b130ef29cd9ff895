"""How the figures look: one colour for each method in the whole report, little ink, readable when printed."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

from fairseq_adv.report.runs import Run

# Okabe and Ito's palette, told apart under colour blindness; plain training is always the dark grey.
BASELINE_COLOR = "#4d4d4d"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")

RC: Dict[Any, Any] = {
    "figure.dpi": 160,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.08,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}


def subplots(count: int, width: float = 4.6, height: float = 3.3) -> Tuple[Any, List[Any]]:
    """A figure with *count* panels side by side; sizes of one panel in inches."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, count, figsize=(width * count, height), squeeze=False)
    return figure, list(axes[0])


def method_colors(runs: Sequence[Run]) -> Dict[str, str]:
    """method -> colour, by order of appearance; past the palette colours come again, see :func:`method_dashes`."""
    return {method: style[0] for method, style in _styles(runs).items()}


def method_dashes(runs: Sequence[Run]) -> Dict[str, str]:
    """method -> line style: solid for as many methods as the palette has colours, then dashed, then dotted."""
    return {method: style[1] for method, style in _styles(runs).items()}


def _styles(runs: Sequence[Run]) -> Dict[str, Tuple[str, str]]:
    others = [method for method in dict.fromkeys(run.method for run in runs) if method != "plain"]
    rounds = [(color, dashes) for dashes in ("-", "--", ":", "-.") for color in COLORS]
    styles = {method: rounds[number % len(rounds)] for number, method in enumerate(others)}
    return {"plain": (BASELINE_COLOR, "-"), **styles}


def draw_curves(axes: Any, curves: Sequence[Tuple[str, Sequence[float], Sequence[float]]], runs: Sequence[Run]) -> None:
    """Lines of (method, x, y) in the colours of *runs*. With several runs of a method: thin ones, their mean on top."""
    import numpy as np

    colors, dashes = method_colors(runs), method_dashes(runs)
    by_method: Dict[str, List[Tuple[Sequence[float], Sequence[float]]]] = {}
    for method, x, y in curves:
        if len(x):
            by_method.setdefault(method, []).append((x, y))
    for method, lines in by_method.items():
        look = {"color": colors[method], "linestyle": dashes[method]}
        if len(lines) == 1:
            axes.plot(*lines[0], label=method, **look)
            continue
        for x, y in lines:
            axes.plot(x, y, color=colors[method], alpha=0.3, linewidth=0.9)
        start, end = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
        grid = np.linspace(start, end, 200)
        mean = np.mean([np.interp(grid, x, y) for x, y in lines], axis=0)
        axes.plot(grid, mean, label=f"{method} (mean of {len(lines)})", **look)


def legend_below(figure: Any) -> None:
    """One legend for all panels, below them, where it hides no curve."""
    entries: Dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        for label, handle in zip(labels, handles):
            entries.setdefault(label, handle)
    if entries:
        columns = min(len(entries), 5)
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def side_by_side(number: int, count: int) -> float:
    """What places on a logarithmic axis are multiplied by, so that the *number*-th of *count* curves hides no other."""
    return float(1.03 ** (number - (count - 1) / 2))


def smooth(values: Sequence[float], window: int) -> Tuple[Any, Any]:
    """Centred moving mean and standard deviation, shorter windows at the ends."""
    import numpy as np

    array = np.asarray(values, dtype=float)
    half = window // 2
    parts = [array[max(0, i - half) : i + half + 1] for i in range(len(array))]
    return np.array([part.mean() for part in parts]), np.array([part.std() for part in parts])

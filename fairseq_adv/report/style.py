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


def method_colors(runs: Sequence[Run]) -> Dict[str, str]:
    """method -> colour, by order of appearance."""
    methods = dict.fromkeys(run.method for run in runs)
    colors: Dict[str, str] = {}
    for method in methods:
        colors[method] = (
            BASELINE_COLOR if method == "plain" else COLORS[(len(colors) - ("plain" in colors)) % len(COLORS)]
        )
    return colors


def draw_curves(
    axes: Any, curves: Sequence[Tuple[str, Sequence[float], Sequence[float]]], colors: Dict[str, str]
) -> None:
    """Lines of (method, x, y). With several runs of a method: each one thin, their mean on top."""
    import numpy as np

    by_method: Dict[str, List[Tuple[Sequence[float], Sequence[float]]]] = {}
    for method, x, y in curves:
        if len(x):
            by_method.setdefault(method, []).append((x, y))
    for method, lines in by_method.items():
        color = colors[method]
        if len(lines) == 1:
            axes.plot(*lines[0], color=color, label=method)
            continue
        for x, y in lines:
            axes.plot(x, y, color=color, alpha=0.3, linewidth=0.9)
        start, end = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
        grid = np.linspace(start, end, 200)
        mean = np.mean([np.interp(grid, x, y) for x, y in lines], axis=0)
        axes.plot(grid, mean, color=color, label=f"{method} (mean of {len(lines)})")


def smooth(values: Sequence[float], window: int) -> Tuple[Any, Any]:
    """Centred moving mean and standard deviation, shorter windows at the ends."""
    import numpy as np

    array = np.asarray(values, dtype=float)
    half = window // 2
    parts = [array[max(0, i - half) : i + half + 1] for i in range(len(array))]
    return np.array([part.mean() for part in parts]), np.array([part.std() for part in parts])

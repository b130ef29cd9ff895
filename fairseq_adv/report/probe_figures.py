"""Figures of ``fairseq-adv probe``: loss and BLEU under perturbations and noise, and the loss around the minimum."""

from __future__ import annotations

import statistics
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from fairseq_adv.report.figures import FigureSpec
from fairseq_adv.report.probe_table import probed
from fairseq_adv.report.runs import Run
from fairseq_adv.report.style import legend_below, method_colors, method_dashes, subplots

Points = Dict[float, List[float]]


def _curve(axes: Any, runs: Sequence[Run], points_of: Callable[[Run], Optional[Dict[float, float]]]) -> bool:
    """Mean over seeds, with the deviation as error bars, of ``x -> y`` of each run; whether there was any."""
    colors, dashes = method_colors(runs), method_dashes(runs)
    by_method: Dict[str, Points] = {}
    for run in runs:
        for x, y in (points_of(run) or {}).items():
            by_method.setdefault(run.method, {}).setdefault(x, []).append(y)
    for method, points in by_method.items():
        xs = sorted(points)
        means = [statistics.mean(points[x]) for x in xs]
        errors = [statistics.stdev(points[x]) if len(points[x]) > 1 else 0.0 for x in xs]
        look = {"color": colors[method], "linestyle": dashes[method], "label": method, "marker": "o", "markersize": 3}
        axes.errorbar(xs, means, yerr=errors if any(errors) else None, capsize=2, linewidth=1.4, **look)
    return bool(by_method)


def _subset(run: Run) -> Dict[str, Any]:
    """The test set's numbers, or those of the last subset that was measured."""
    subsets = run.probe.get("subsets", {})
    return subsets.get("test") or (list(subsets.values())[-1] if subsets else {})


def _against_radius(kind: str, key: str) -> Callable[[Run], Optional[Dict[float, float]]]:
    def points(run: Run) -> Optional[Dict[float, float]]:
        found = _subset(run)
        if not found.get(kind) or key not in found["clean"]:
            return None
        return {0.0: found["clean"][key], **{record["radius"]: record[key] for record in found[kind]}}

    return points


def perturbed_inputs(runs: Sequence[Run]) -> Optional[Any]:
    """Loss and BLEU against the norm of δ, the worst case and a random one."""
    runs = probed(runs)
    panels = [
        (kind, key, f"{title}, {label}")
        for kind, title in (("worst", "Worst-case δ"), ("random", "Random δ"))
        for key, label in (("nll", "nll (bits per token)"), ("bleu", "BLEU"))
    ]
    panels = [p for p in panels if any(_against_radius(p[0], p[1])(run) for run in runs)]
    if not panels:
        return None
    figure, all_axes = subplots(len(panels), width=3.6)
    for axes, (kind, key, title) in zip(all_axes, panels):
        _curve(axes, runs, _against_radius(kind, key))
        axes.set(title=title, xlabel="‖δ‖ of a sentence", ylabel="BLEU" if key == "bleu" else "nll")
    legend_below(figure)
    return figure


def _against_rate(kind: str, key: str) -> Callable[[Run], Optional[Dict[float, float]]]:
    def points(run: Run) -> Optional[Dict[float, float]]:
        found = _subset(run)
        records = [record for record in found.get("noise", []) if record["kind"] == kind and key in record]
        return {0.0: found["clean"][key], **{r["rate"]: r[key] for r in records}} if records else None

    return points


def noisy_inputs(runs: Sequence[Run]) -> Optional[Any]:
    """BLEU, or the loss where nothing was translated, against the rate of each kind of noise."""
    runs = probed(runs)
    kinds = list(dict.fromkeys(r["kind"] for run in runs for r in _subset(run).get("noise", [])))
    if not kinds:
        return None
    key = "bleu" if any("bleu" in _subset(run)["clean"] for run in runs if _subset(run)) else "nll"
    figure, all_axes = subplots(len(kinds), width=3.6)
    for axes, kind in zip(all_axes, kinds):
        _curve(axes, runs, _against_rate(kind, key))
        axes.set(title=f"Noise: {kind}", xlabel="share of letters hit", ylabel="BLEU" if key == "bleu" else "nll")
    legend_below(figure)
    return figure


def _line(run: Run) -> Optional[Dict[float, float]]:
    line = run.probe.get("sharpness", {}).get("line")
    if not line:
        return None
    return {x: statistics.mean(column) for x, column in zip(line["distances"], zip(*line["nll"]))}


def loss_lines(runs: Sequence[Run]) -> Optional[Any]:
    """The loss along random filter-normalised lines (their mean), whole and near the minimum, and what SAM finds."""
    runs = [run for run in probed(runs) if run.probe.get("sharpness")]
    if not runs:
        return None
    figure, (whole, near, sam) = subplots(3, width=3.9)
    _curve(whole, runs, _line)
    _curve(near, runs, _near_minimum)
    _curve(sam, runs, lambda run: {s["rho"]: s["rise"] for s in run.probe["sharpness"]["sam"]})
    whole.set(title="Along random directions", xlabel="distance / ‖filter‖", ylabel="nll (nats per token)")
    near.set(title="Rise near the minimum", xlabel="distance / ‖filter‖", ylabel="nll − nll at 0")
    sam.set(title="SAM's rise", xlabel="ρ", ylabel="max nll − nll", ylim=(0, None))
    legend_below(figure)
    return figure


def _near_minimum(run: Run) -> Optional[Dict[float, float]]:
    points = _line(run)
    if points is None:
        return None
    reach = max(points) * 0.3
    return {x: y - points[0.0] for x, y in points.items() if abs(x) <= reach + 1e-9}


def loss_planes(runs: Sequence[Run]) -> Optional[Any]:
    """Contours of the loss on a random plane, the first seed of each method, the same levels for all."""
    import numpy as np

    first: Dict[str, Tuple[List[float], Any]] = {}
    for run in probed(runs):
        plane = run.probe.get("sharpness", {}).get("plane")
        if plane:
            first.setdefault(run.method, (plane["distances"], np.asarray(plane["nll"])))
    if not first:
        return None
    figure, all_axes = subplots(len(first), width=3.2)
    lowest, highest = min(z.min() for _, z in first.values()), max(z.max() for _, z in first.values())
    levels = np.linspace(lowest, highest, 16)
    for axes, (method, (distances, losses)) in zip(all_axes, first.items()):
        contours = axes.contourf(distances, distances, losses, levels=levels, cmap="viridis")
        axes.plot(0, 0, "+", color="white")
        axes.set(title=method, xlabel="distance / ‖filter‖")
        axes.grid(visible=False)
    figure.colorbar(contours, ax=list(all_axes), label="nll (nats per token)")
    return figure


PROBE_FIGURES = (
    FigureSpec(
        "probe_perturbed",
        "Perturbed input",
        "The test set (or the last subset measured) at x + δ, δ worst-case or random. For the loss δ moves source and "
        "target, for BLEU the source alone. Error bars: deviation over seeds.",
        perturbed_inputs,
    ),
    FigureSpec(
        "probe_noise",
        "Noisy input",
        "The same set with typing errors in the source, the same ones for every method.",
        noisy_inputs,
    ),
    FigureSpec(
        "probe_lines",
        "The loss around the minimum",
        "Mean over random directions that are scaled filter by filter to the model's own weights, under evaluation "
        "conditions; and the rise that SAM's step of length ρ along the gradient finds.",
        loss_lines,
    ),
    FigureSpec(
        "probe_planes",
        "The loss on a random plane",
        "Two such directions, the first seed of each method, the same levels for all.",
        loss_planes,
    ),
)

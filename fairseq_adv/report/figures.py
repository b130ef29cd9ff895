"""The figures of a report. Each takes the runs and gives a matplotlib figure, or None if nothing was logged for it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from fairseq_adv.report.parameter_study import parameter_study
from fairseq_adv.report.runs import Run, epoch_costs
from fairseq_adv.report.style import draw_curves, legend_below, method_colors, smooth, subplots

Curve = Tuple[str, List[float], List[float]]


@dataclass(frozen=True)
class FigureSpec:
    """One figure: the PNG's name, a heading, and what the reader sees in it."""

    name: str
    title: str
    caption: str
    draw: Callable[[Sequence[Run]], Optional[Any]]


def _curves(runs: Sequence[Run], stream: str, name: str, x: str) -> List[Curve]:
    """(method, x, y) of a logged number, with x in ``minutes``, ``epoch`` or ``update``."""
    curves = []
    for run in runs:
        updates, values = run.log.series(getattr(run.log, stream), name)
        if x == "minutes":
            positions = [run.log.wall_at(update) / 60 for update in updates]
        elif x == "epoch":
            positions = [run.log.epoch_at(update) for update in updates]
        else:
            positions = updates
        curves.append((run.method, positions, values))
    return curves


def _panels(runs: Sequence[Run], x: str, panels: Sequence[Tuple[str, str, str, str]]) -> Optional[Any]:
    """Panels side by side, each (stream, name, title, unit); those that no run logged are left out."""
    drawn = [(panel, _curves(runs, panel[0], panel[1], x)) for panel in panels]
    drawn = [(panel, curves) for panel, curves in drawn if any(xs for _, xs, _ in curves)]
    if not drawn:
        return None
    figure, all_axes = subplots(len(drawn))
    labels = {"minutes": "wall time (minutes)", "epoch": "epoch", "update": "update"}
    for axes, ((_, _, title, unit), curves) in zip(all_axes, drawn):
        draw_curves(axes, curves, runs)
        axes.set(title=title, xlabel=labels[x], ylabel=unit, xlim=(0, None))
    legend_below(figure)
    return figure


def quality_over_time(runs: Sequence[Run]) -> Optional[Any]:
    return _panels(
        runs,
        "minutes",
        [
            ("validations", "bleu", "Validation BLEU", "BLEU (greedy)"),
            ("validations", "nll_loss", "Validation loss", "nll (bits per token)"),
            ("updates", "nll_loss", "Training loss", "nll (bits per token)"),
        ],
    )


def learning_curves(runs: Sequence[Run]) -> Optional[Any]:
    figure = _panels(
        runs,
        "epoch",
        [
            ("epochs", "nll_loss", "Training loss", "nll (bits per token)"),
            ("validations", "nll_loss", "Validation loss", "nll (bits per token)"),
            ("validations", "bleu", "Validation BLEU", "BLEU (greedy)"),
        ],
    )
    if figure is None:
        return None
    colors = method_colors(runs)
    for axes in figure.axes:
        if axes.get_title(loc="left") == "Validation loss":
            for run in runs:
                if run.best_validation:
                    point = run.best_validation["epoch"], run.best_validation["nll_loss"]
                    axes.plot(*point, "o", color=colors[run.method], markersize=5, markeredgecolor="white")
    return figure


def gradient_norm(runs: Sequence[Run]) -> Optional[Any]:
    """Moving mean of the norm with a band of one deviation, and its moving variance, as ARCH's Figure 3 compares."""
    curves = [curve for curve in _curves(runs, "updates", "gnorm", "update") if len(curve[1]) > 2]
    if not curves:
        return None
    figure, (norm, variation) = subplots(2, width=5.6)
    colors = method_colors(runs)
    variances, means = [], []
    for method, updates, values in curves:
        mean, spread = smooth(values, window=max(5, len(values) // 20))
        norm.fill_between(updates, mean - spread, mean + spread, color=colors[method], alpha=0.15, linewidth=0)
        means.append((method, updates, list(mean)))
        variances.append((method, updates, list(spread**2)))
    draw_curves(norm, means, runs)
    draw_curves(variation, variances, runs)
    norm.set(
        title="Norm of the gradient", xlabel="update", ylabel="‖g‖, moving mean ± sd", xlim=(0, None), ylim=(0, None)
    )
    variation.set(title=_variance_of(runs), xlabel="update", ylabel="moving variance of ‖g‖", xlim=(0, None))
    variation.set_yscale("log")
    legend_below(figure)
    return figure


def _variance_of(runs: Sequence[Run]) -> str:
    """What varies: with ``--log-interval`` N the log has means of N updates, and their variance is smaller."""
    intervals = sorted({run.log.options.get("common", {}).get("log_interval") for run in runs}, key=str)
    if intervals == [1]:
        return "Its variance over updates"
    named = ", ".join("?" if interval is None else str(interval) for interval in intervals)
    return f"Variance of means of {named} updates"


def perturbation(runs: Sequence[Run]) -> Optional[Any]:
    adversarial = [run for run in runs if any(r.get("adv_loss") or r.get("adv_norm_src") for r in run.log.updates)]
    figure = _panels(
        adversarial,
        "epoch",
        [
            ("updates", "adv_norm_src", "Perturbation, source", "mean ‖δ‖ of a sentence"),
            ("updates", "adv_norm_tgt", "Perturbation, target", "mean ‖δ‖ of a sentence"),
            ("updates", "adv_loss", "Regulariser", "bits per token"),
        ],
    )
    for axes in figure.axes if figure is not None else ():
        if axes.get_title(loc="left") == "Regulariser":
            axes.set_yscale("log")  # a divergence, or the cross-entropy at the perturbed input: far apart
        else:
            axes.set_ylim(0, None)
    return figure


def epoch_cost(runs: Sequence[Run]) -> Optional[Any]:
    """Left: cost of an update in each epoch. Right: medians of plain, refresh and cached epochs."""
    costs = [(run, epoch_costs(run.log)) for run in runs]
    costs = [(run, epochs) for run, epochs in costs if epochs]
    if not costs:
        return None
    figure, (course, bars) = subplots(2, width=5.6)
    colors = method_colors(runs)
    groups: Dict[Tuple[str, Optional[bool]], List[float]] = {}
    for run, epochs in costs:
        for cost in epochs:
            groups.setdefault((run.method, cost.refresh), []).append(1000 * cost.seconds_per_update)
        milliseconds = [1000 * cost.seconds_per_update for cost in epochs]
        course.plot([c.epoch for c in epochs], milliseconds, color=colors[run.method], alpha=0.5, linewidth=0.9)
        refreshed = [(c.epoch, 1000 * c.seconds_per_update) for c in epochs if c.refresh]
        if refreshed:
            course.plot(*zip(*refreshed), "o", color=colors[run.method], markersize=5)
    course.set(
        title="Cost of an update, by epoch", xlabel="epoch", ylabel="ms per update", xlim=(0, None), ylim=(0, None)
    )
    _bars(bars, groups, colors)
    return figure


def _bars(axes: Any, groups: Dict[Tuple[str, Optional[bool]], List[float]], colors: Dict[str, str]) -> None:
    """One horizontal bar for each kind of epoch, with its median and its multiple of the plain update."""
    kinds = {None: "", True: ", refresh", False: ", cached"}
    medians = {key: statistics.median(values) for key, values in groups.items()}
    base = medians.get(("plain", None))
    order = list(reversed(list(medians)))
    for position, key in enumerate(order):
        axes.barh(position, medians[key], height=0.6, color=colors[key[0]], alpha=0.55 if key[1] is False else 0.95)
        times = f"  {medians[key] / base:.2f}×" if base else ""
        axes.text(medians[key], position, f" {medians[key]:.0f} ms{times}", va="center", ha="left", color="#333333")
    axes.set_yticks(range(len(order)), [key[0] + kinds[key[1]] for key in order])
    axes.set(title="Median", xlabel="ms per update", xlim=(0, 1.5 * max(medians.values())))
    axes.grid(axis="y", visible=False)


FIGURES = (
    FigureSpec(
        "quality_over_time",
        "Quality over wall time",
        "What a minute of training buys. BLEU is measured on the validation set with greedy search after each epoch.",
        quality_over_time,
    ),
    FigureSpec(
        "learning_curves",
        "Learning curves",
        "The same over epochs. Dots mark each run's best checkpoint, by its own --best-checkpoint-metric.",
        learning_curves,
    ),
    FigureSpec(
        "epoch_cost",
        "Cost of an epoch",
        "Refresh epochs (dots) search new perturbations; in between, cached ones are reused.",
        epoch_cost,
    ),
    FigureSpec(
        "gradient_norm",
        "Gradient norm",
        "Norm of the gradient before clipping, and its variance in a moving window. The log holds means over "
        "--log-interval updates: only with --log-interval 1 is this the variance over updates, as in ARCH's Figure 3.",
        gradient_norm,
    ),
    FigureSpec(
        "perturbation",
        "Perturbation",
        "Mean norm of the perturbations that training used, by side, and the value of the regulariser.",
        perturbation,
    ),
    FigureSpec(
        "parameter_study",
        "Parameter study",
        "One option at a time: runs that differ from their method's most frequent setting in that option alone. BLEU "
        "of the test set and the validation nll of the best checkpoint, mean and deviation over seeds; lines: SMART "
        "and plain training. R- marks random neighbours.",
        parameter_study,
    ),
)

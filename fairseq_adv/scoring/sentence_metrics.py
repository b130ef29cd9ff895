"""GLUE's metrics of predicted classes and numbers, by scikit-learn and scipy."""

from __future__ import annotations

from typing import Dict, Sequence

METRICS = ("accuracy", "f1", "matthews", "pearson", "spearman")
LONG_NAMES = {"f1": "F1", "matthews": "Matthews correlation", "pearson": "Pearson", "spearman": "Spearman"}


def sentence_scores(metrics: Sequence[str], predicted: Sequence[float], targets: Sequence[float]) -> Dict[str, float]:
    """Each of *metrics*, in [−1, 1]; classes are their numbers, and F1 is that of class 1.

    A correlation with constant predictions is not defined: NaN. Raises ``ValueError`` for rows that do not match.
    """
    if len(predicted) != len(targets):
        raise ValueError(f"{len(predicted)} predictions for {len(targets)} rows")
    return {name: _score(name, predicted, targets) for name in metrics}


def _score(name: str, predicted: Sequence[float], targets: Sequence[float]) -> float:
    try:
        from scipy import stats
        from sklearn import metrics
    except ImportError as error:
        raise ImportError("scores of sentences need scikit-learn: pip install 'fairseq-adv[sentences]'") from error

    if name in ("pearson", "spearman"):
        if min(predicted) == max(predicted) or min(targets) == max(targets):
            return float("nan")
        correlate = stats.pearsonr if name == "pearson" else stats.spearmanr
        return float(correlate(predicted, targets)[0])
    functions = {"accuracy": metrics.accuracy_score, "f1": metrics.f1_score, "matthews": metrics.matthews_corrcoef}
    if name not in functions:
        raise ValueError(f"unknown metric {name!r}: one of {', '.join(METRICS)}")
    return float(functions[name](targets, predicted))

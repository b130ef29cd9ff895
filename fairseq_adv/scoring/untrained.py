"""What a set gives away without a trained encoder: the frequent class, and TF-IDF with a linear model."""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from fairseq_adv.corpora.sentences.labelled import Example
from fairseq_adv.scoring.sentence_metrics import sentence_scores

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # C of the logistic regression, 1/alpha of the ridge regression
Cosines = Callable[[List[str], List[str]], List[float]]


class LabelledSet(NamedTuple):
    """Subsets, the names of the classes (none for numbers) and the metrics; the first metric chooses."""

    subsets: Dict[str, List[Example]]
    classes: Sequence[str]
    metrics: Sequence[str]

    def targets(self, subset: str) -> List[float]:
        labels = [example.label for example in self.subsets[subset]]
        return [float(self.classes.index(label)) if self.classes else float(label) for label in labels]

    def score(self, subset: str, predicted: Sequence[float]) -> Dict[str, float]:
        return sentence_scores(self.metrics, predicted, self.targets(subset))


def baselines(data: LabelledSet, scored: Sequence[str], cosines: Optional[Cosines] = None) -> Dict[str, Any]:
    """NAME -> subset -> scores; *cosines* of an untuned encoder are compared with numbers of pairs."""
    found = {"majority" if data.classes else "mean": _constant(data, scored), "tf-idf": _linear(data, scored)}
    if cosines is not None and not data.classes and data.subsets["train"][0].second is not None:
        found["untuned cosine"] = {subset: data.score(subset, _cosines(data, subset, cosines)) for subset in scored}
    return found


def _constant(data: LabelledSet, scored: Sequence[str]) -> Dict[str, Any]:
    targets = data.targets("train")
    value = Counter(targets).most_common(1)[0][0] if data.classes else sum(targets) / len(targets)
    return {subset: data.score(subset, [value] * len(data.subsets[subset])) for subset in scored}


def _cosines(data: LabelledSet, subset: str, cosines: Cosines) -> List[float]:
    examples = data.subsets[subset]
    return cosines([example.first for example in examples], [example.second or "" for example in examples])


def _linear(data: LabelledSet, scored: Sequence[str]) -> Dict[str, Any]:
    """Words and pairs of words; the strength of the regularisation is the best on the validation set."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression, Ridge
    except ImportError as error:
        raise ImportError("baselines need scikit-learn: pip install 'fairseq-adv[sentences]'") from error
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    vectors.fit([sentence for example in data.subsets["train"] for sentence in example.sentences])
    rows = {s: _features(vectors, data.subsets[s]) for s in dict.fromkeys(["train", "valid", *scored])}
    models = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000) if data.classes else Ridge(alpha=1 / strength)
        models.append(model.fit(rows["train"], data.targets("train")))
    best = max(models, key=lambda model: data.score("valid", model.predict(rows["valid"]))[data.metrics[0]])
    return {subset: data.score(subset, best.predict(rows[subset]).tolist()) for subset in scored}


def _features(vectors: Any, examples: Sequence[Example]) -> Any:
    """TF-IDF of single sentences; of pairs what both have in common, what only one has, and their cosine."""
    from scipy import sparse

    first = vectors.transform([example.first for example in examples])
    if examples[0].second is None:
        return first
    second = vectors.transform([example.second for example in examples])
    product = first.multiply(second)
    return sparse.hstack([product, abs(first - second), sparse.csr_matrix(product.sum(axis=1))]).tocsr()

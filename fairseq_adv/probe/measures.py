"""What is measured on one trained model; every function gives plain data, ready for JSON.

Losses of robustness are bits per target token, as fairseq prints them; those of sharpness are nats per token.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from tqdm import tqdm

from fairseq_adv.perturb import Perturbation
from fairseq_adv.probe.averaged_loss import AveragedLoss
from fairseq_adv.probe.curvature import largest_eigenvalue, parameter_norm, sam_rise
from fairseq_adv.probe.loss_surface import even_distances, filter_normalised_direction, loss_along, loss_plane
from fairseq_adv.probe.noisy_text import changed_share, noisy_text
from fairseq_adv.probe.sentences import SentenceSet, Subwords, load_subwords, subword_model
from fairseq_adv.probe.settings import ProbeSettings
from fairseq_adv.probe.trained_model import SIDES, TrainedModel, all_on_device
from fairseq_adv.scoring.intervals import ratio_interval
from fairseq_adv.scoring.languages import bleu_metric, tokenizer_for

Record = Dict[str, Any]
Perturb = Callable[[Dict[str, Any], Sequence[str]], Perturbation]


class Robustness:
    """Loss and BLEU of one subset as it is, under perturbations and under noise."""

    def __init__(
        self, model: TrainedModel, sentences: SentenceSet, subwords: Subwords, settings: ProbeSettings
    ) -> None:
        self.model, self.sentences, self.subwords, self.settings = model, sentences, subwords, settings
        self.references = [subwords_of_target(model, subwords).text(e["target"]) for e in sentences.examples]
        self.tokens = [len(example["target"]) for example in sentences.examples]
        self._clean: List[float] = []  # bits of each sentence, once clean() was measured

    def clean(self) -> Record:
        record, self._clean = self._scores(self.sentences, None)
        return record

    def _rise(self, sentences: SentenceSet, perturb: Optional[Perturb]) -> Record:
        """Scores, and by how much the nll is above the clean one, with the bounds of 95 % over drawn sentences."""
        record, bits = self._scores(sentences, perturb)
        rises = [moved - clean for moved, clean in zip(bits, self._clean)]
        low, high = ratio_interval(rises, self.tokens)
        return {**record, "rise": sum(rises) / sum(self.tokens), "rise_low": low, "rise_high": high}

    def worst(self, radius: float) -> Record:
        """δ of the loss is found on both sides, that of the translation on the source alone, all there is to move."""
        steps = self.settings.steps
        return {
            "radius": radius,
            **self._rise(self.sentences, lambda s, sides: self.model.worst_case(s, radius, sides, steps)),
        }

    def random(self, radius: float) -> Record:
        seed = self.settings.seed
        return {
            "radius": radius,
            **self._rise(self.sentences, lambda s, sides: self.model.random_perturbation(s, radius, sides, seed)),
        }

    def noise(self, kind: str, rate: float) -> Record:
        """Sentences with an unknown symbol, whose text cannot be told, stay as they are."""
        sources = [example["source"] for example in self.sentences.examples]
        texts = [self.subwords.text(source) for source in sources]
        noisy = noisy_text(texts, kind, rate, self.settings.seed)
        known = [self.subwords.is_known(source) for source in sources]
        moved = [self.subwords.tokens(n) if k and n != t else s for s, t, n, k in zip(sources, texts, noisy, known)]
        words = [(t, n) for t, n, k in zip(texts, noisy, known) if k]
        changed = changed_share([t for t, _ in words], [n for _, n in words])
        record = {"kind": kind, "rate": rate, "changed_words": changed, "left_alone": known.count(False)}
        return {**record, **self._rise(self.sentences.with_sources(moved), None)}

    def _scores(self, sentences: SentenceSet, perturb: Optional[Perturb]) -> Tuple[Record, List[float]]:
        """nll and BLEU, and the bits of each sentence in their order."""
        bits: Dict[int, float] = {}
        hypotheses: Dict[int, torch.Tensor] = {}
        for sample in sentences.batches(self.settings.max_tokens):
            sample = self.model.on_device(sample)
            delta = None if perturb is None else perturb(sample, SIDES)
            with torch.no_grad(), self.model.moved_by(delta):
                losses = (self.model.sentence_nll(sample).double() / math.log(2)).tolist()
            bits.update(zip(sample["id"].tolist(), losses))
            if not self.settings.no_bleu:
                hypotheses.update(self.model.translate(sample, None if perturb is None else perturb(sample, SIDES[:1])))
        order = [int(example["id"]) for example in sentences.examples]
        record: Record = {"nll": sum(bits.values()) / sum(self.tokens)}
        if not self.settings.no_bleu:
            record["bleu"] = self._bleu([hypotheses[number] for number in order])
        return record, [bits[number] for number in order]

    def _bleu(self, hypotheses: Sequence[torch.Tensor]) -> float:
        metric = bleu_metric(tokenizer_for(self.model.task.cfg.target_lang), self.settings.lowercase)
        target = subwords_of_target(self.model, self.subwords)
        return metric.corpus_score([target.text(tokens) for tokens in hypotheses], [self.references]).score


def subwords_of_target(model: TrainedModel, source: Subwords) -> Subwords:
    """The target's dictionary with the source's kind of pieces; for reading only."""
    return Subwords(model.task.target_dictionary, source.symbol, source.encode)


def sharpness(model: TrainedModel, settings: ProbeSettings) -> Record:
    """Curvature and surface of the nll of *sharpness_sentences* pairs of the training set (or another subset)."""
    sentences = model.sentences(settings.sharpness_subset).sample(settings.sharpness_sentences, settings.seed)
    loss = model.averaged_loss(all_on_device(model, sentences, settings.max_tokens))
    eigenvalue = largest_eigenvalue(loss, settings.iterations, seed=settings.seed)
    return {
        "subset": settings.sharpness_subset,
        "sentences": len(sentences),
        "tokens": loss.weight,
        "nll": loss.value(),
        "parameter_norm": parameter_norm(loss),
        "eigenvalue": eigenvalue.value,
        "eigenvalue_residual": eigenvalue.residual,
        "eigenvalue_products": eigenvalue.iterations,
        "sam": [{"rho": rho, "rise": sam_rise(loss, rho)} for rho in settings.sam_radii],
        **surface(loss, settings),
    }


def surface(loss: AveragedLoss, settings: ProbeSettings) -> Record:
    """The lines through the minimum along random directions, and a plane where one is asked for."""
    directions = [filter_normalised_direction(loss, settings.seed + number) for number in range(settings.directions)]
    distances = even_distances(settings.distance, settings.points)
    lines = [loss_along(loss, direction, distances) for direction in directions]
    found: Record = {"line": {"distances": distances, "nll": lines}}
    if settings.plane:
        across, up = (filter_normalised_direction(loss, settings.seed + number) for number in range(2))
        grid = even_distances(settings.distance, settings.plane)
        found["plane"] = {"distances": grid, "nll": loss_plane(loss, across, up, grid)}
    return found


def probe(
    model: TrainedModel, settings: ProbeSettings, data: Path, named: Optional[Path], symbol: Optional[str]
) -> Record:
    """All of *settings.measure* for one model.

    *data* is its folder of binarised data; *named* the subword model, looked for beside the data if None; *symbol* how
    pieces are joined where no noise needs the model.
    """
    steps = _robustness_steps(settings)
    bar = tqdm(total=len(steps) * len(settings.subsets) + ("sharpness" in settings.measure), unit="probe", disable=None)
    result: Record = {"subsets": {}}
    for subset in settings.subsets if steps else ():
        sentences = model.sentences(subset)
        subwords = Subwords(model.task.source_dictionary, symbol, str)
        if "noise" in settings.measure:
            path = subword_model(data, named)
            subwords = load_subwords(path, model.task.source_dictionary)
            subwords.check(sentences, path)
        robustness = Robustness(model, sentences, subwords, settings)
        result["embedding_norm"] = model.embedding_norm(sentences, settings.max_tokens)
        found = result["subsets"].setdefault(subset, {"sentences": len(sentences)})
        for name, measure in steps:
            record = measure(robustness)
            if name == "clean":
                found[name] = record
            else:
                found.setdefault(name, []).append(record)
            bar.update()
    if "sharpness" in settings.measure:
        result["sharpness"] = sharpness(model, settings)
        bar.update()
    bar.close()
    return result


def _robustness_steps(settings: ProbeSettings) -> List[Tuple[str, Callable[[Robustness], Record]]]:
    """(where the record goes, how it is measured), one for each radius, kind and rate."""
    steps: List[Tuple[str, Callable[[Robustness], Record]]] = []
    if "worst" in settings.measure:
        steps += [("worst", lambda r, radius=radius: r.worst(radius)) for radius in settings.radii]  # type: ignore[misc]
    if "random" in settings.measure:
        steps += [("random", lambda r, radius=radius: r.random(radius)) for radius in settings.radii]  # type: ignore[misc]
    if "noise" in settings.measure:
        pairs = [(kind, rate) for kind in settings.noise for rate in settings.rates]
        steps += [("noise", lambda r, k=kind, x=rate: r.noise(k, x)) for kind, rate in pairs]  # type: ignore[misc]
    return [("clean", Robustness.clean), *steps] if steps else []

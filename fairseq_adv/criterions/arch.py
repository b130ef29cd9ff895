"""``arch_label_smoothed``, ``arch_sentence_prediction``: the task's loss with ARCH (Zuo et al. 2021)."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Optional

import numpy as np
import torch
from torch import Tensor

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.arch_options import ArchConfig, check_arch
from fairseq_adv.criterions.frame.arch_setup import open_perturbations
from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.frame.config import ascent_of
from fairseq_adv.criterions.frame.part import BatchPart, beside, chosen_rows
from fairseq_adv.criterions.frame.registration import register_method
from fairseq_adv.criterions.frame.rounded_noise import SmallNoise, rebuilt_noise
from fairseq_adv.criterions.frame.training_log import norm_log
from fairseq_adv.data.cached_perturbations import CachedPerturbations
from fairseq_adv.data.known_batch import KnownBatch
from fairseq_adv.methods.arch import is_refresh_epoch, perturbation_from_neighbors
from fairseq_adv.methods.freelb import gradient_left_on, leaf_of
from fairseq_adv.methods.worst_case import Ascent, worst_case_perturbation
from fairseq_adv.perturb import Output, Perturbation
from fairseq_adv.perturb.ascent import ascent_step

logger = logging.getLogger(__name__)

KNOWN = "adv_known"  # in a batch: what the CPU knows of it


@register_method("arch", ArchConfig)
class ArchCriterion(AdversarialCriterion):
    """CE(θ) + λ · ℓ_v(x, δ, θ) (Eq. 2): in refresh epochs δ is the ascent's result, else it comes from the cache."""

    ascends = True

    def __init__(self, cfg: ArchConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_arch(cfg)
        self.ball = ascent_of(cfg).ball  # of what the cache holds: perturbations at a factor 1 of the radius
        self.perturbations: Optional[CachedPerturbations] = None
        self._training_set: Any = None
        self.refreshing = False
        self.started = False
        self._last_step: Optional[Callable[[], None]] = None  # what the coming backward pass makes possible

    # ---- lifecycle ----------------------------------------------------------------------------------------

    def begin_training(self, trainer: Any, state: Optional[Dict[str, Any]]) -> None:
        super().begin_training(trainer, state)
        self.update_num = trainer.get_num_updates()
        self._training_set = self.task.dataset(trainer.cfg.dataset.train_subset)
        if self.cfg.adv_lambda > 0:
            dims = self.hook(trainer.get_model()).dims
            self.perturbations = open_perturbations(
                self.cfg, self.task, trainer, {s: dims[s] for s in self.sides}, self.ball, (state or {}).get("cache")
            )

    def small_noises(self) -> List[SmallNoise]:
        """Beside the ascent's start a perturbation that is rebuilt from neighbours; a word's own is larger."""
        rebuilt = [] if str(self.cfg.adv_level) == "word" else [rebuilt_noise(self.cfg.adv_eps)]
        return super().small_noises() + rebuilt

    def begin_epoch(self, epoch: int) -> None:
        """Commit a refresh that an earlier epoch ended, then decide whether this one, if it is whole, refreshes."""
        super().begin_epoch(epoch)
        if self.perturbations is None:
            return
        cache = self.perturbations.cache
        self.perturbations.stop_reading()
        if cache.refreshing and cache.refresh_epoch != epoch:
            self.perturbations.commit()
        cache.delete_superseded()
        begun = self.start.has_begun(self.update_num) and (cache.refreshing or not self.inside_epoch)
        self.started = begun or cache.last_refresh_epoch is not None
        due = not self.inside_epoch and is_refresh_epoch(epoch, cache.last_refresh_epoch, self.cfg.cache_interval)
        self.refreshing = self.started and (cache.refreshing or due)
        if self.refreshing:
            cache.begin_refresh(epoch)
            logger.info("epoch %d refreshes the perturbations", epoch)

    def is_active(self) -> bool:
        """ARCH starts with the first whole epoch after ``--adv-start-update``: a refresh is an epoch long."""
        return self.started and super().is_active()

    def is_due(self) -> bool:
        """A refresh leaves no batch out, whatever ``--adv-every`` says."""
        return self.refreshing or super().is_due()

    def fraction(self) -> float:
        """A refresh leaves no row out, whatever ``--adv-fraction`` says."""
        return 1.0 if self.refreshing else super().fraction()

    def other_rows(self) -> str:
        return super().other_rows() or ("--cache-refresh cached" if str(self.cfg.cache_refresh) == "cached" else "")

    def needs_gradients_between(self) -> bool:
        """Whether the backward pass of this update makes the last step of its ascent."""
        return self.refreshing and self.cfg.cache_train_on_last_pass

    def may_drive_backward(self) -> bool:
        return self.cfg.cache_train_on_last_pass or self.num_backwards() > 1

    def drives_backward(self) -> bool:
        return super().drives_backward() or (self.is_active() and self.needs_gradients_between())

    def before_save(self, end_of_epoch: bool) -> None:
        if self.perturbations is None or not self.perturbations.cache.refreshing:
            return
        if end_of_epoch:
            self.perturbations.commit()
        else:
            self.perturbations.cache.prepare_checkpoint()

    def checkpoint_state(self) -> Dict[str, Any]:
        return {} if self.perturbations is None else {"cache": self.perturbations.cache.state_dict()}

    def keeps(self) -> str:
        return "--criterion arch_* caches perturbations by sample id"

    # ---- one batch ----------------------------------------------------------------------------------------

    def loss_terms(self, batch: TrainingBatch) -> Iterator[Tensor]:
        self._last_step = None  # of a batch that ran out of memory
        yield from super().loss_terms(batch)
        if self._last_step is not None:
            self._last_step()
            self._last_step = None

    def compared_output(self, batch: TrainingBatch) -> Output:
        if self.perturbations is None:
            raise RuntimeError("the cache is not open: train with fairseq-train, or call begin_training first")
        delta = (self._refresh if self.refreshing else self._serve)(batch, self.perturbations)
        batch.log.update(norm_log(delta.detached()))
        return batch.perturbed(delta, shared_masks=True if self._last_step is not None else None)

    def foreseer(self, dataset: Any) -> Optional[Callable[[Any], None]]:
        """Between refreshes what belongs to a batch is read while the batch before it is trained on."""
        if self.perturbations is None or dataset is not self._training_set or not self.started:
            return None
        return self._foresee

    def _foresee(self, sample: Any) -> None:
        if self.perturbations is None or not isinstance(sample, dict) or len(sample) == 0:
            return
        known = self._look_at(sample)
        if self.fraction() < 1.0:
            known = known.part(chosen_rows(sample["id"], self.fraction(), self.seed, self.epoch)[0])
        sample[KNOWN] = known
        if not self.refreshing or self._serves_the_rest():
            self.perturbations.foresee(known)

    def _known(self, batch: TrainingBatch) -> KnownBatch:
        return batch.sample.get(KNOWN) or self._look_at(batch.sample)

    def _look_at(self, sample: Dict[str, Any]) -> KnownBatch:
        """Ids and lengths of *sample*; on a GPU it has to be waited for, unless it was foreseen."""
        pads = self.pads()
        tokens = {side: self.head.tokens(sample, side) for side in self.sides}
        lengths = {side: words.ne(pads[side]).sum(dim=1).cpu().numpy() for side, words in tokens.items()}
        ids = sample["id"].cpu().numpy().astype(np.int64)
        return KnownBatch(ids, lengths, {side: words.size(1) for side, words in tokens.items()})

    # ---- in a refresh -------------------------------------------------------------------------------------

    def _serves_the_rest(self) -> bool:
        """Whether pairs outside the cache set get what they get between refreshes, by the generation before."""
        there = self.perturbations is not None and self.perturbations.cache.reader is not None
        return there and str(self.cfg.cache_refresh) == "cached"

    def _refresh(self, batch: TrainingBatch, perturbations: CachedPerturbations) -> Perturbation:
        """Algorithm 3 in a refresh epoch: ascent, then the moving average of what belongs to the cache."""
        known = self._known(batch)
        if not self._serves_the_rest():
            return self._ascend(batch, known, perturbations)
        rest = self._serve(batch, perturbations)
        batch.log["adv_cached"] = 0  # these are renewed
        rows = np.flatnonzero(perturbations.neighbors.is_cached(known.ids))
        if len(rows) == 0:
            return rest
        return self._ascend(BatchPart(batch, torch.from_numpy(rows)), known.part(rows), perturbations, rest)

    def _ascend(
        self,
        part: TrainingBatch,
        known: KnownBatch,
        perturbations: CachedPerturbations,
        rest: Optional[Perturbation] = None,
    ) -> Perturbation:
        """δ of the whole batch: of the rows of *part* by an ascent, whose result is stored, of the others the *rest*.

        Under ``--adv-radius-schedule`` the cache holds δ/factor: what is served has the radius of its own update.
        """
        cfg, factor = self.cfg, self.radius(1.0)
        ascent = ascent_of(cfg, factor)
        by_hand = replace(ascent, steps=ascent.steps - 1) if cfg.cache_train_on_last_pass else ascent
        delta, broken = worst_case_perturbation(part.passes, part.from_clean(), by_hand, stream=self.epoch)
        part.log.update(adv_refresh=len(known.ids), adv_nonfinite=broken.sum())
        if cfg.cache_train_on_last_pass:
            leaf = leaf_of(beside(rest, part.rows, delta))
            self._last_step = partial(self._step_from, leaf, delta, broken, ascent, part, known, perturbations)
            return leaf
        if factor > 0:  # else there is nothing to learn: what the cache holds stays
            storing = perturbations.store(known, self.update_num, delta.values, broken, factor)
            if cfg.cache_train_on_average:
                for row, average in storing.averages():
                    for side, values in average.items():
                        delta.values[side][row, : len(values)] = values.to(delta.values[side]) * factor
        return beside(rest, part.rows, delta)

    def _step_from(
        self,
        leaf: Perturbation,
        delta: Perturbation,
        broken: Tensor,
        ascent: Ascent,
        part: TrainingBatch,
        known: KnownBatch,
        perturbations: CachedPerturbations,
    ) -> None:
        """Store δ^S: a step from *delta*, δ^{S-1} of *part*, along what the backward pass left on *leaf*."""
        gradient, bad = gradient_left_on(leaf)
        if part.rows is not None:
            gradient, bad = gradient.rows(part.rows), bad.index_select(0, part.rows)
        broken = broken | bad
        stepped = ascent_step(delta, gradient, ascent.ball, ascent.step_size).zero_rows(broken)
        part.log["adv_nonfinite"] = broken.sum()
        if self.radius(1.0) > 0:
            perturbations.store(known, self.update_num, stepped.values, broken, self.radius(1.0))

    # ---- between refreshes --------------------------------------------------------------------------------

    def _serve(self, batch: TrainingBatch, perturbations: CachedPerturbations) -> Perturbation:
        """Algorithm 3 between refreshes: C[i] where it is cached, Eq. 3 elsewhere."""
        served = perturbations.serve(self._known(batch))
        values, factor = {}, self.radius(1.0)
        for side, mask in batch.passes.masks.items():
            part = served.sides[side]
            rebuilt = perturbation_from_neighbors(part.means, part.norms, part.found, mask, self.cfg.neighbor_rescale)
            stored = self.ball.project(part.values, mask)  # de-quantised values may stick out
            delta = torch.where(part.exact.view(-1, 1, 1), stored, rebuilt)
            values[side] = delta if factor == 1.0 else delta * factor
        batch.log.update(adv_cached=served.cached, adv_further=served.further, adv_without=served.without)
        return Perturbation(values, batch.passes.masks)

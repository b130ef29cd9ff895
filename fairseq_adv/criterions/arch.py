"""``--criterion arch_label_smoothed``: label-smoothed cross-entropy with ARCH (Zuo et al. 2021)."""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import logging
import math
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import torch
from fairseq.dataclass import ChoiceEnum

from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion
from fairseq_adv.criterions.frame.arch_setup import open_perturbations
from fairseq_adv.criterions.frame.batch import TrainingBatch
from fairseq_adv.criterions.frame.config import AscentConfig, ascent_of, check_ascent, require
from fairseq_adv.criterions.frame.registration import register_method
from fairseq_adv.criterions.frame.rounded_noise import SmallNoise
from fairseq_adv.criterions.frame.training_log import norm_log
from fairseq_adv.data.cached_perturbations import CachedPerturbations
from fairseq_adv.data.known_batch import KnownBatch
from fairseq_adv.losses import DIVERGENCES
from fairseq_adv.methods.arch import is_refresh_epoch, perturbation_from_neighbors
from fairseq_adv.methods.worst_case import worst_case_perturbation
from fairseq_adv.perturb import Output, Perturbation

logger = logging.getLogger(__name__)

KNOWN = "adv_known"  # in a batch: what the CPU knows of it
TYPICAL_LENGTH = 28  # words; a mean over the words of a sentence of norm ε has about ε / length


@dataclass
class ArchConfig(AscentConfig):
    """ARCH's own options; defaults of the paper's appendix B.1, and the one-sided divergence of its Sec. 3.1."""

    adv_divergence: ChoiceEnum(list(DIVERGENCES)) = field(  # type: ignore[valid-type]
        default="kl",
        metadata={"help": "kl: KL(p||q) in nats; sym-kl: the mean of KL(p||q) and KL(q||p); p is the clean output"},
    )
    cache_dir: str = field(default="", metadata={"help": "directory of the cache (default: SAVE_DIR/perturbations)"})
    cache_placement: ChoiceEnum(["shared", "node-local"]) = field(  # type: ignore[valid-type]
        default="shared",
        metadata={
            "help": "shared: all ranks see one cache directory; node-local: each node has its own, kept equal over "
            "the network"
        },
    )
    cache_interval: float = field(
        default=15,
        metadata={"help": "epochs from one refresh of all perturbations to the next, Tc (inf: refresh once)"},
    )
    cache_ema: float = field(
        default=0.01, metadata={"help": "share alpha of the old value in the moving average of a cached perturbation"}
    )
    cache_proportion: float = field(
        default=0.1,
        metadata={"help": "share of the training pairs that is cached; with --cache-neighbors that of the file"},
    )
    cache_neighbors: str = field(
        default="",
        metadata={"help": "file made by `fairseq-adv neighbors` (default: random neighbors, with a warning)"},
    )
    cache_num_neighbors: int = field(
        default=1, metadata={"help": "cached neighbors K that an uncached pair's perturbation is averaged over"}
    )
    cache_dtype: ChoiceEnum(["fp16", "int8", "fp32"]) = field(  # type: ignore[valid-type]
        default="fp16", metadata={"help": "number format of perturbations on disk"}
    )
    cache_means_memory: float = field(
        default=-1.0,
        metadata={
            "help": "GB of the device that the neighbors' means may take, from where they are then served (default: a "
            "quarter of its free memory; 0 means none: they are read from the disk for each batch)"
        },
    )
    cache_train_on_average: bool = field(
        default=False,
        metadata={
            "help": "train a refreshed pair on its moving average (Eq. 2), not on the ascent's result (Algorithm 3)"
        },
    )
    cache_takeover: bool = field(
        default=False, metadata={"help": "take the cache directory from another run that holds it; that run will stop"}
    )
    neighbor_rescale: bool = field(
        default=False,
        metadata={"help": "give a perturbation built from neighbors their mean sentence norm (the paper does not)"},
    )


@register_method("arch", ArchConfig)
class ArchCriterion(AdversarialCriterion):
    """CE(θ) + λ · ℓ_v(x, δ, θ) (Eq. 2): in refresh epochs δ is the ascent's result, else it comes from the cache."""

    ascends = True

    def __init__(self, cfg: ArchConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_ascent(cfg)
        whole = math.isinf(cfg.cache_interval) or cfg.cache_interval == int(cfg.cache_interval)
        rule = "a whole number of epochs >= 1, or inf (refresh once)"
        require(whole and cfg.cache_interval >= 1, "--cache-interval", rule, cfg.cache_interval)
        require(0 <= cfg.cache_ema < 1, "--cache-ema", "in [0, 1)", cfg.cache_ema)
        require(0 < cfg.cache_proportion <= 1, "--cache-proportion", "in (0, 1]", cfg.cache_proportion)
        require(cfg.cache_num_neighbors >= 1, "--cache-num-neighbors", ">= 1", cfg.cache_num_neighbors)
        self.ball = ascent_of(cfg).ball  # of what the cache holds: perturbations at a factor 1 of the radius
        self.perturbations: Optional[CachedPerturbations] = None
        self._training_set: Any = None
        self.refreshing = False
        self.started = False

    # ---- lifecycle ----------------------------------------------------------------------------------------

    def begin_training(self, trainer: Any, state: Optional[Dict[str, Any]]) -> None:
        super().begin_training(trainer, state)
        self.update_num = trainer.get_num_updates()
        self._training_set = self.task.dataset(trainer.cfg.dataset.train_subset)
        if self.cfg.adv_lambda > 0:
            dims = self.hook(trainer.get_model()).dims
            self.perturbations = open_perturbations(
                self.cfg,
                self.task,
                trainer,
                {side: dims[side] for side in self.sides},
                self.ball,
                (state or {}).get("cache"),
            )

    def small_noises(self) -> List[SmallNoise]:
        """Beside the ascent's start a perturbation that is rebuilt from neighbours; a word's own is larger."""
        if str(self.cfg.adv_level) == "word":
            return super().small_noises()
        epsilon = self.cfg.adv_eps
        rebuilt = SmallNoise(
            "a perturbation that is rebuilt from neighbors", "--adv-eps", epsilon, epsilon / TYPICAL_LENGTH
        )
        return [*super().small_noises(), rebuilt]

    def begin_epoch(self, epoch: int) -> None:
        """Commit a refresh that an earlier epoch ended, then decide whether this epoch refreshes."""
        super().begin_epoch(epoch)
        if self.perturbations is None:
            return
        cache = self.perturbations.cache
        self.perturbations.stop_reading()
        if cache.refreshing and cache.refresh_epoch != epoch:
            self._commit()
        cache.delete_superseded()
        self.started = self.start.has_begun(self.update_num) or cache.last_refresh_epoch is not None
        self.refreshing = self.started and (
            cache.refreshing or is_refresh_epoch(epoch, cache.last_refresh_epoch, self.cfg.cache_interval)
        )
        if self.refreshing:
            cache.begin_refresh(epoch)
            logger.info("epoch %d refreshes the perturbations", epoch)

    def is_active(self) -> bool:
        """ARCH starts with the first whole epoch after ``--adv-start-update``: a refresh is an epoch long."""
        return self.started and super().is_active()

    def is_due(self) -> bool:
        """A refresh leaves no batch out, whatever ``--adv-every`` says."""
        return self.refreshing or super().is_due()

    def before_save(self, end_of_epoch: bool) -> None:
        if self.perturbations is None or not self.perturbations.cache.refreshing:
            return
        if end_of_epoch:
            self._commit()
        else:
            self.perturbations.cache.prepare_checkpoint()

    def checkpoint_state(self) -> Dict[str, Any]:
        return {} if self.perturbations is None else {"cache": self.perturbations.cache.state_dict()}

    def _commit(self) -> None:
        assert self.perturbations is not None
        self.perturbations.commit()

    def keeps(self) -> str:
        return "--criterion arch_* caches perturbations by sample id"

    # ---- one batch ----------------------------------------------------------------------------------------

    def compared_output(self, batch: TrainingBatch) -> Output:
        if self.perturbations is None:
            raise RuntimeError("the cache is not open: train with fairseq-train, or call begin_training first")
        delta = (self._refresh if self.refreshing else self._serve)(batch, self.perturbations)
        batch.log.update(norm_log(delta))
        return batch.perturbed(delta)

    def foreseer(self, dataset: Any) -> Optional[Callable[[Any], None]]:
        """Between refreshes what belongs to a batch is read while the batch before it is trained on."""
        if self.perturbations is None or dataset is not self._training_set or not self.started:
            return None
        return self._foresee

    def _foresee(self, sample: Any) -> None:
        if self.perturbations is not None and isinstance(sample, dict) and len(sample) > 0:
            sample[KNOWN] = known = self._look_at(sample)
            if not self.refreshing:
                self.perturbations.foresee(known)

    def _look_at(self, sample: Dict[str, Any]) -> KnownBatch:
        """Ids and lengths of *sample*; on a GPU it has to be waited for, unless it was foreseen."""
        pads = self.pads()
        tokens = {side: self.head.tokens(sample, side) for side in self.sides}
        lengths = {side: words.ne(pads[side]).sum(dim=1).cpu().numpy() for side, words in tokens.items()}
        ids = sample["id"].cpu().numpy().astype(np.int64)
        return KnownBatch(ids, lengths, {side: words.size(1) for side, words in tokens.items()})

    def _refresh(self, batch: TrainingBatch, perturbations: CachedPerturbations) -> Perturbation:
        """Algorithm 3 in a refresh epoch: ascent, then the moving average of what belongs to the cache.

        Under ``--adv-radius-schedule`` the cache holds δ/factor: what is served has the radius of its own update.
        """
        factor, known = self.radius(1.0), batch.sample.get(KNOWN) or self._look_at(batch.sample)
        delta, broken = worst_case_perturbation(
            batch.passes, batch.from_clean(), ascent_of(self.cfg, factor), stream=self.epoch
        )
        if factor > 0:  # else there is nothing to learn: what the cache holds stays
            storing = perturbations.store(known, self.update_num, delta.values, broken, factor)
            if self.cfg.cache_train_on_average:
                for row, average in storing.averages():
                    for side, values in average.items():
                        delta.values[side][row, : len(values)] = values.to(delta.values[side]) * factor
        batch.log.update(adv_refresh=len(known.ids), adv_nonfinite=broken.sum())
        return delta

    def _serve(self, batch: TrainingBatch, perturbations: CachedPerturbations) -> Perturbation:
        """Algorithm 3 between refreshes: C[i] where it is cached, Eq. 3 elsewhere."""
        served = perturbations.serve(batch.sample.get(KNOWN) or self._look_at(batch.sample))
        values, factor = {}, self.radius(1.0)
        for side, mask in batch.passes.masks.items():
            part = served.sides[side]
            rebuilt = perturbation_from_neighbors(part.means, part.norms, part.found, mask, self.cfg.neighbor_rescale)
            stored = self.ball.project(part.values, mask)  # de-quantised values may stick out
            delta = torch.where(part.exact.view(-1, 1, 1), stored, rebuilt)
            values[side] = delta if factor == 1.0 else delta * factor
        batch.log.update(adv_cached=served.cached, adv_further=served.further, adv_without=served.without)
        return Perturbation(values, batch.passes.masks)

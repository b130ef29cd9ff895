"""One training batch as a method sees it: its passes, its clean output, its loss and its log."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Callable, ContextManager, Dict, Optional, Tuple

import torch
from torch import Tensor, nn

from fairseq_adv.criterions.frame.perturbable import bare_model
from fairseq_adv.criterions.heads.head import Head, JointLoss, LossWeights
from fairseq_adv.perturb import BatchPasses, EmbeddingHook, Output, Perturbation
from fairseq_adv.perturb.graphs import no_graph
from fairseq_adv.perturb.hooks import without_activation_checkpoints

# Half-precision gradients of a divergence of 1e-4 nats would underflow; the ascent normalises them anyway.
HALF_GRADIENT_SCALE = 1024.0


@dataclass(frozen=True)
class OuterLoss:
    """How the passes of the outer loss run, and what is compared: the options of the same names.

    With *concat*, a pass that may share its forward with the clean one does so, over 2B rows. With *trains_perturbed*
    the clean pass has no graph, and the task's loss is that of the perturbed output. With *recompute* the perturbed
    pass has no graph at first, and runs again with one when the clean one's graph is gone.
    """

    divergence: str = "sym-kl"
    detach_clean: bool = False
    shared_masks: bool = False
    concat: bool = False
    trains_perturbed: bool = False
    recompute: bool = False

    @classmethod
    def of(cls, cfg: Any) -> OuterLoss:
        """As the options *cfg* say."""
        passes = str(cfg.adv_passes)
        return cls(
            divergence=str(cfg.adv_divergence),
            detach_clean=cfg.adv_detach_clean,
            shared_masks=str(cfg.adv_outer_masks) == "shared",
            concat=passes == "concat",
            trains_perturbed=str(cfg.adv_objective) == "perturbed",
            recompute=passes == "recompute",
        )


class TrainingBatch:
    """One batch, its passes and what came of them; ``log`` collects the method's columns of the training log."""

    rows: Optional[Tensor] = None  # which it has of the whole batch (``n``); all

    def __init__(
        self, head: Head, model: nn.Module, sample: Dict[str, Any], hook: EmbeddingHook, outer: OuterLoss
    ) -> None:
        self._head, self._hook, self._outer = head, hook, outer
        self.model, self.bare, self.sample = model, bare_model(model), sample
        # closures over the batch itself would keep it, and all its outputs, alive until the garbage collector runs
        self.bare_pass: Callable[[], Output] = partial(bare_pass, head, self.bare, sample)
        self.passes = BatchPasses(
            outer=partial(head.forward, model, sample),
            inner=self.bare_pass,
            hook=hook,
            tokens={side: head.tokens(sample, side) for side in hook.pads},
            ids=sample["id"],
            shared_masks=outer.shared_masks,
            gradient_scale=HALF_GRADIENT_SCALE if self._half_precision() else 1.0,
            twofold=partial(twofold_pass, head, model, sample),
        )
        self.targets = head.targets(sample)
        self.log: Dict[str, Any] = {}
        self._clean: Optional[Output] = None
        self._perturbed_pass: Optional[Callable[[], Output]] = None

    @property
    def ids_on_cpu(self) -> Tensor:
        """The sample ids as they lay on the CPU before the batch was moved; where that is not known, a GPU is asked."""
        ids = self.sample["id"]
        ids = getattr(ids, "on_cpu", ids)
        return ids if ids.device.type == "cpu" else ids.cpu()

    @property
    def whole(self) -> TrainingBatch:
        """The batch that this one is a part of: itself, here."""
        return self

    @property
    def clean(self) -> Output:
        """The clean output; its pass runs when it is first asked for."""
        if self._clean is None:
            without_graph = self._outer.trains_perturbed
            self._clean = self.passes.clean_without_gradient() if without_graph else self.passes.clean()
        return self._clean

    def perturbed(self, delta: Perturbation, shared_masks: Optional[bool] = None) -> Output:
        """The output at x + δ for the outer loss; *shared_masks* may differ from what the options say."""
        passes = self.passes  # what is kept to run again must not hold the batch itself
        return self._beside_clean(
            partial(passes.clean_and_perturbed, delta), partial(passes.perturbed, delta, shared_masks)
        )

    def cut(self, keep: Dict[str, Tensor]) -> Output:
        """The output with the words outside *keep* cut off; see :meth:`BatchPasses.cut`."""
        return self._beside_clean(partial(self.passes.clean_and_cut, keep), partial(self.passes.cut, keep))

    def _beside_clean(self, both: Callable[[], Tuple[Output, Output]], alone: Callable[[], Output]) -> Output:
        if self._outer.concat and self._clean is None:
            self._clean, other = both()
            return other
        _ = self.whole.clean  # the clean pass comes first
        if not self._outer.recompute:
            return alone()
        self._perturbed_pass = alone
        with no_graph():
            return alone().detach()

    def perturbed_again(self) -> Output:
        """With *recompute*: the perturbed output under the masks that it had, now with its graph.

        The clean output loses its own: it has been propagated back.
        """
        assert self._perturbed_pass is not None
        self.whole._clean = self.whole.clean.detach()
        self.passes.repeat_masks()
        return self._perturbed_pass()

    # ---- losses: sums over the rows that count ------------------------------------------------------------

    def loss(self, output: Output) -> Tensor:
        """The task's loss of *output*; likelihood and accuracy of the first output asked for are logged."""
        return self._head.loss(output, self.targets, self.log)

    def joint_loss(self, perturbed: Output, weights: LossWeights) -> JointLoss:
        """The losses of the clean and the *perturbed* output and ℓ_v between them, in one."""
        outer = self._outer
        return self._head.joint_loss(
            self.clean, perturbed, self.targets, weights, outer.divergence, outer.detach_clean, self.log
        )

    def divergence(self, p: Output, q: Output, kind: Optional[str] = None) -> Tensor:
        """ℓ_v from *p* to *q*, of the *kind* that the options name if no other is given."""
        return self._head.divergence(p, q, self.targets, kind or self._outer.divergence)

    def from_clean(self, kind: Optional[str] = None) -> Callable[[Output], Tensor]:
        """ℓ_v from the clean output, held fixed, as a function of another output: what an ascent raises."""
        head, targets, kind = self._head, self.targets, kind or self._outer.divergence
        clean = lru_cache(maxsize=1)(partial(head.held, self.clean))  # made in the first step, if there is any
        return lambda output: head.divergence(clean(), output, targets, kind, detach_p=True)

    def _half_precision(self) -> bool:
        return next(self.bare.parameters()).dtype != torch.float32 or torch.is_autocast_enabled()


def bare_pass(head: Head, bare: nn.Module, sample: Dict[str, Any]) -> Output:
    """The output of one pass of the *bare* model, activation checkpoints off; parameters get no gradient from it."""
    with without_activation_checkpoints(bare):
        return head.for_input_alone(head.forward(bare, sample))


def twofold_pass(head: Head, model: nn.Module, sample: Dict[str, Any]) -> Output:
    """The output of one pass over the batch twice over, clean rows first."""
    doubled = head.doubled(sample)
    for name, tokens in doubled["net_input"].items():
        padded = getattr(sample["net_input"][name], "padded", None)
        if padded is not None:  # what compat's ask_before_the_gpu has noted
            tokens.padded = padded
    return head.forward(model, doubled)


def autocast(enabled: bool) -> ContextManager[None]:
    """What ``--amp`` means for fairseq: mixed precision on a GPU, and no change on a CPU."""
    return torch.autocast("cuda", enabled=enabled and torch.cuda.is_available())

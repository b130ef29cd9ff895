"""The forward passes that a method may ask of one batch, with the rules on dropout masks built in.

A method sees neither the model nor the trainer: it asks for the clean pass, for passes at x + δ and for
the ascent. Three rules hold whatever it asks:

- inner passes (of the ascent) replay the clean pass's dropout masks, on the bare model, and leave no
  gradient on any parameter;
- outer passes (of the loss) run the model that the trainer wraps and draw fresh masks or replay the clean
  ones, as ``shared_masks`` says;
- after each extra pass the generators, and buffers that a pass moves, are as the clean pass left them, so that plain
  training sees the same numbers with and without extra passes. All passes start from the same buffers.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Protocol, Sequence, Tuple

import torch
from torch import Tensor

from fairseq_adv.perturb.ascent import Objective, perturbation_gradient, projected_gradient_ascent
from fairseq_adv.perturb.balls import Ball
from fairseq_adv.perturb.graphs import no_graph
from fairseq_adv.perturb.hooks import EmbeddingHook, Transform
from fairseq_adv.perturb.layout import Perturbation, real_token_mask
from fairseq_adv.perturb.rng import RngState, reseed_from_state


class Output(Protocol):
    """What a forward pass returned, such as log-probs ``N x V``; nothing here looks inside."""

    def detach(self) -> Any:
        """The same without a graph."""

    def chunk(self, chunks: int) -> Sequence[Any]:
        """Equal parts of its rows, in order."""

    def index_select(self, dim: int, index: Tensor) -> Any:
        """Its rows at *index*; *dim* is 0, as a tensor is asked."""


ForwardPass = Callable[[], Output]


class BatchPasses:
    """Clean, inner and outer passes over one batch.

    *outer* and *inner* run one forward pass of the wrapped and of the bare model and return its output;
    *twofold* runs one pass of the wrapped model over the batch twice, clean rows first.
    *tokens* maps each perturbed side to its tokens ``B x S``; *ids* (``B``) are the sample ids.
    *gradient_scale* multiplies the ascent's objective, which keeps tiny half-precision gradients from
    underflowing; the direction g/‖g‖ does not depend on it.
    """

    def __init__(
        self,
        outer: ForwardPass,
        inner: ForwardPass,
        hook: EmbeddingHook,
        tokens: Dict[str, Tensor],
        ids: Tensor,
        shared_masks: bool,
        gradient_scale: float = 1.0,
        twofold: Optional[ForwardPass] = None,
    ) -> None:
        self._outer, self._inner, self._twofold, self._hook = outer, inner, twofold, hook
        self.ids = ids
        self.masks = {side: real_token_mask(t, hook.pads[side]) for side, t in tokens.items()}
        self._shared_masks = shared_masks
        self._gradient_scale = gradient_scale
        self._before: Optional[RngState] = None
        self._after: Optional[RngState] = None
        self._buffers_before: List[Tensor] = []
        self._fresh_passes = 0
        self._masks_of_last = 0  # which fresh masks the last outer pass could draw

    @property
    def dims(self) -> Dict[str, int]:
        """Embedding size of each side."""
        return self._hook.dims

    def clean(self, delta: Optional[Perturbation] = None) -> Output:
        """The output at x (or at x + *delta*); the first pass, whose masks the others replay."""
        device = self.ids.device
        self._before, self._buffers_before = RngState.capture(device), self._hook.buffers.capture()
        with self._hook.transforming(None if delta is None else self._hook.adder(delta)):
            output = self._outer()
        self._after = RngState.capture(device)
        return output

    def clean_without_gradient(self) -> Output:
        """:meth:`clean` where nothing is to be trained on its output."""
        with no_graph():
            return self.clean()

    def follow(self, whole: BatchPasses) -> None:
        """Be passes over some rows of *whole*, whose clean pass has been.

        What they share are masks of their own, drawn from where that pass began: another number of rows draws other
        ones. :meth:`clean_inner` takes the place of the clean pass.
        """
        self._before, self._after, self._buffers_before = whole._before, whole._after, whole._buffers_before

    def clean_inner(self) -> Output:
        """The output at x through the bare model under the masks that inner passes share, without a graph."""
        with no_graph():
            return self._replay(self._inner, None, shared=True)

    def perturbed(self, delta: Perturbation, shared_masks: Optional[bool] = None) -> Output:
        """The output at x + δ through the trainer's model, for the outer loss."""
        shared = self._shared_masks if shared_masks is None else shared_masks
        return self._replay(self._outer, self._hook.adder(delta), shared)

    def cut(self, keep: Dict[str, Tensor]) -> Output:
        """The output with the embeddings of the words outside *keep* (``B x L`` for each side) zeroed."""
        return self._replay(self._outer, self._hook.cutter(keep), self._shared_masks)

    def repeat_masks(self) -> None:
        """Let the next outer pass draw the masks that the last one drew."""
        self._fresh_passes = self._masks_of_last

    def inner(self, delta: Perturbation) -> Output:
        """The output at x + δ through the bare model under the clean pass's masks, for the ascent."""
        return self._replay(self._inner, self._hook.adder(delta), shared=True)

    def clean_and_transformed(self, transform: Optional[Transform]) -> Tuple[Output, Output]:
        """The outputs at x and after *transform*, from one pass over 2B rows.

        *transform* gets all 2B rows. Each row draws masks of its own.
        """
        if self._twofold is None:
            raise RuntimeError("this batch has no twofold pass")
        with self._hook.transforming(transform):
            output = self._twofold()
        clean, transformed = output.chunk(2)
        return clean, transformed

    def clean_and_perturbed(self, delta: Perturbation) -> Tuple[Output, Output]:
        """The outputs at x and at x + δ from one pass over 2B rows; for a δ that needs no clean pass."""
        masks = {side: torch.cat([m, m]) for side, m in delta.masks.items()}
        values = {side: torch.cat([torch.zeros_like(v), v]) for side, v in delta.values.items()}
        return self.clean_and_transformed(self._hook.adder(Perturbation(values, masks)))

    def clean_and_cut(self, keep: Dict[str, Tensor]) -> Tuple[Output, Output]:
        """The outputs at x and with words outside *keep* zeroed, from one pass over 2B rows."""
        doubled = {side: torch.cat([torch.ones_like(k), k]) for side, k in keep.items()}
        return self.clean_and_transformed(self._hook.cutter(doubled))

    def _replay(self, run: ForwardPass, transform: Optional[Transform], shared: bool) -> Output:
        if self._before is None or self._after is None:
            raise RuntimeError("the clean pass comes first: its generator states define the masks")
        self._masks_of_last = self._fresh_passes
        try:
            if shared:
                self._before.restore()
            else:
                self._after.restore()
                reseed_from_state(self.ids.device, stream=self._fresh_passes)
                self._fresh_passes += 1
            with self._hook.buffers.untouched(), self._hook.transforming(transform):
                self._hook.buffers.restore(self._buffers_before)
                return run()
        finally:
            self._after.restore()

    def gradient(self, loss: Callable[[Output], Tensor], delta: Perturbation) -> Perturbation:
        """∂ ``loss(output at x + δ)`` / ∂δ times ``gradient_scale``, which a caller divides out by normalising."""
        return perturbation_gradient(self._objective(loss), delta)

    def _objective(self, loss: Callable[[Output], Tensor]) -> Objective:
        return lambda delta: loss(self.inner(delta)) * self._gradient_scale

    def ascend(
        self,
        loss: Callable[[Output], Tensor],
        start: Perturbation,
        ball: Ball,
        steps: int,
        step_size: float,
        normalised: bool = True,
    ) -> Tuple[Perturbation, Tensor]:
        """Maximise ``loss(output at x + δ)`` over δ; see :func:`projected_gradient_ascent` for what returns."""
        step_size = step_size if normalised else step_size / self._gradient_scale
        return projected_gradient_ascent(self._objective(loss), start, ball, steps, step_size, normalised)

    def zero(self) -> Perturbation:
        """δ = 0 on every perturbed side."""
        values = {s: torch.zeros(*m.shape, self.dims[s], device=m.device) for s, m in self.masks.items()}
        return Perturbation(values, self.masks)

"""The forward passes that a method may ask of one batch, with the rules on dropout masks built in.

A method sees neither the model nor the trainer: it asks for the clean pass, for passes at x + δ and for
the ascent. Three rules hold whatever it asks:

- inner passes (of the ascent) replay the clean pass's dropout masks, on the bare model, and leave no
  gradient on any parameter;
- outer passes (of the loss) run the model that the trainer wraps and draw fresh masks or replay the clean
  ones, as ``shared_masks`` says;
- after each extra pass the generators are as the clean pass left them, so that plain training sees the
  same numbers with and without extra passes.
"""

from __future__ import annotations

from typing import Callable, Dict, Optional, Tuple

import torch
from torch import Tensor

from fairseq_adv.perturb.ascent import Objective, projected_gradient_ascent
from fairseq_adv.perturb.balls import Ball
from fairseq_adv.perturb.hooks import EmbeddingHook
from fairseq_adv.perturb.layout import Perturbation, real_token_mask
from fairseq_adv.perturb.rng import RngState, reseed_from_state

ForwardPass = Callable[[], Tensor]


class BatchPasses:
    """Clean, inner and outer passes over one batch.

    *outer* and *inner* run one forward pass of the wrapped and of the bare model and return log-probs
    ``N x V`` (fp32). *tokens* maps each perturbed side to its tokens ``B x S``; *ids* (``B``) are the sample
    ids. *gradient_scale* multiplies the ascent's objective, which keeps tiny half-precision gradients from
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
    ) -> None:
        self._outer, self._inner, self._hook = outer, inner, hook
        self.ids = ids
        self.masks = {side: real_token_mask(t, hook.pads[side]) for side, t in tokens.items()}
        self._shared_masks = shared_masks
        self._gradient_scale = gradient_scale
        self._before: Optional[RngState] = None
        self._after: Optional[RngState] = None

    @property
    def dims(self) -> Dict[str, int]:
        """Embedding size of each side; known once the clean pass has run."""
        return self._hook.dims

    def clean(self) -> Tensor:
        """Log-probs ``N x V`` at x; call it once and first."""
        device = self.ids.device
        self._before = RngState.capture(device)
        log_probs = self._outer()
        self._after = RngState.capture(device)
        return log_probs

    def perturbed(self, delta: Perturbation) -> Tensor:
        """Log-probs ``N x V`` at x + δ through the trainer's model, for the outer loss."""
        return self._replay(self._outer, delta, shared=self._shared_masks)

    def inner(self, delta: Perturbation) -> Tensor:
        """Log-probs ``N x V`` at x + δ through the bare model under the clean pass's masks, for the ascent."""
        return self._replay(self._inner, delta, shared=True)

    def _replay(self, run: ForwardPass, delta: Perturbation, shared: bool) -> Tensor:
        if self._before is None or self._after is None:
            raise RuntimeError("the clean pass comes first: its generator states define the masks")
        try:
            if shared:
                self._before.restore()
            else:
                self._after.restore()
                reseed_from_state()
            with self._hook.adding(delta):
                return run()
        finally:
            self._after.restore()

    def ascend(
        self, loss: Callable[[Tensor], Tensor], start: Perturbation, ball: Ball, steps: int, step_size: float
    ) -> Tuple[Perturbation, Tensor]:
        """Maximise ``loss(log-probs at x + δ)`` over δ; see :func:`projected_gradient_ascent` for what returns."""
        objective: Objective = lambda delta: loss(self.inner(delta)) * self._gradient_scale  # noqa: E731
        return projected_gradient_ascent(objective, start, ball, steps, step_size)

    def zero(self) -> Perturbation:
        """δ = 0 on every perturbed side; after the clean pass only, which tells the embedding sizes."""
        values = {s: torch.zeros(*m.shape, self.dims[s], device=m.device) for s, m in self.masks.items()}
        return Perturbation(values, self.masks)

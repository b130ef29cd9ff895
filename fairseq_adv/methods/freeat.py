"""FreeAT (Shafahi et al. 2019, "Adversarial Training for Free!"): one backward pass trains both θ and δ.

Algorithm 1, with three differences that sentences ask for: δ belongs to a sample and not to a place in the
batch, so it is carried over the replays of its batch and not to the next batch; a step has length η along g/‖g‖,
as in FreeLB, in place of ε·sign(g); and the start is random.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator

from torch import Tensor

from fairseq_adv.methods.freelb import gradient_left_on, leaf_of
from fairseq_adv.perturb import Ball, BatchPasses, Output, Perturbation
from fairseq_adv.perturb.ascent import ascent_step


def freeat_term(
    passes: BatchPasses,
    task_loss: Callable[[Output], Tensor],
    delta: Perturbation,
    ball: Ball,
    step_size: float,
    keep: Callable[[Perturbation], None],
    log: Dict[str, Any],
) -> Iterator[Tensor]:
    """CE(x + δ); once it has been propagated back, ``keep(Π_ε(δ + η g/‖g‖))``, the next replay's δ.

    *log* gets ``adv_loss``, the task loss at δ. A sentence whose gradient is not finite gets δ = 0 and is counted.
    """
    leaf = leaf_of(delta)
    log.update({f"adv_norm_{side}": delta.sentence_norms(side).sum() for side in delta.sides})
    loss = task_loss(passes.clean(leaf))
    log["adv_loss"] = loss.data
    yield loss
    gradient, broken = gradient_left_on(leaf)
    keep(ascent_step(delta, gradient, ball, step_size).zero_rows(broken))
    log["adv_nonfinite"] = broken.sum()

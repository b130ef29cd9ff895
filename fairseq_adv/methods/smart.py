"""SMART (Jiang et al. 2020): the worst-case perturbation anew in every update, and the Bregman proximal point term.

The perturbation itself is ``worst_case.py``'s; here is the momentum teacher of the paper's Eq. 7-8.
"""

from __future__ import annotations

from typing import Callable, Dict, Optional

import torch
from torch import Tensor, nn

from fairseq_adv.perturb import Output
from fairseq_adv.perturb.graphs import no_graph


class MomentumTeacher:
    """θ̃ ← β θ̃ + (1 − β) θ, once for each update; the model is to stay near its output (Bregman proximal term).

    θ̃ is fp32 even where θ is half precision, in which steps of (1 − β) would round to nothing.
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self.parameters: Dict[str, Tensor] = {}
        self._update_num: Optional[int] = None

    @torch.no_grad()
    def follow(self, model: nn.Module, update_num: int) -> None:
        """Move towards *model*, the first time that this *update_num* is seen (an update may be retried)."""
        if not self.parameters:
            self.parameters = {name: at_least_fp32(p.detach()).clone() for name, p in model.named_parameters()}
        elif update_num != self._update_num:
            for name, parameter in model.named_parameters():
                mine = self.parameters[name] = self.parameters[name].to(parameter.device)
                mine.lerp_(parameter.detach().to(mine.dtype), 1.0 - self.momentum)
        self._update_num = update_num

    def output(self, model: nn.Module, run: Callable[[], Output]) -> Output:
        """What *run*, a forward pass of *model*, returns under the teacher's parameters and without dropout."""
        own = {name: p.data for name, p in model.named_parameters()}
        was_training = {m: m.training for m in model.modules()}
        try:
            for name, parameter in model.named_parameters():
                parameter.data = self.parameters[name].to(parameter.dtype)
            model.eval()
            with no_graph():
                return run()
        finally:
            for name, parameter in model.named_parameters():
                parameter.data = own[name]
            for module, training in was_training.items():
                module.training = training


def at_least_fp32(values: Tensor) -> Tensor:
    """*values* in fp32, or in fp64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

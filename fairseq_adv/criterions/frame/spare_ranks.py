"""ConAdv on spare ranks: half of the ranks perturb the coming batches of the other half, which only trains.

Rank k of the first n trains; rank n + k holds the same parameters, computes δ for rank k's coming update while rank k
trains, and sends it. The trainer gives spare ranks dummy batches, whose gradients are zero.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
import torch.distributed as dist
from torch import Tensor

from fairseq_adv.criterions.frame.look_ahead import Compute, LookAhead
from fairseq_adv.perturb import Perturbation
from fairseq_adv.perturb.carried import State

# a collated batch -> its sample ids and a δ of zero in the shape of its own
Shape = Callable[[Dict[str, Any]], Tuple[Tensor, Perturbation]]


class SpareRanks(LookAhead):
    """The same delay line, filled by another rank: see :class:`LookAhead`.

    One message goes from a spare rank to its partner in each update that has something to perturb: the values of
    all sides of all batches, and the number of sentences whose gradient was not finite. It is waited for when the next
    update begins, so that it travels while the present one is trained.
    """

    def __init__(self, compute: Compute, shape: Shape, device: torch.device, delay: int = 1) -> None:
        self._half = dist.get_world_size() // 2
        self._is_spare = dist.get_rank() >= self._half
        self._group = dist.new_group()  # of its own: messages must not queue behind gradients
        self._wire = device if dist.get_backend(self._group) == "nccl" else torch.device("cpu")
        self._shape = shape
        self._pending: Optional[Tuple[Any, Tensor, List[Dict[str, Any]]]] = None
        super().__init__(compute, device, delay)

    def _tell(self) -> None:
        """Nothing: this is faster on CPUs too."""

    def begin(self, upcoming: List[Dict[str, Any]], present_size: int, wanted: bool) -> None:
        """At the first micro-batch of an update, all at once: a spare rank has no other work."""
        if upcoming is self._present:
            return
        self.settle()
        self._present = upcoming
        self._mark_beginning()
        self._advance()
        batches = [batch for batch in upcoming if wanted and len(batch) > 0]
        if batches:
            self._send(batches) if self._is_spare else self._expect(batches)

    def settle(self) -> None:
        """Wait for the message under way; afterwards ``ahead`` holds what it brings."""
        if self._pending is None:
            return
        work, message, batches = self._pending
        work.wait()
        self._pending = None
        if not self._is_spare:
            self._unpack(message.to(self._device), batches)

    def state(self) -> List[State]:
        self.settle()
        return super().state()

    def _send(self, batches: List[Dict[str, Any]]) -> None:
        parts, broken = [], torch.zeros(1)
        with self._aside():
            for batch in batches:
                _, delta, bad = self._compute(batch)
                parts += [values.reshape(-1).float() for values in delta.values.values()]
                broken = broken + bad.sum().cpu()
        self.join()
        message = torch.cat([*parts, broken.to(parts[0])]).to(self._wire)
        partner = dist.get_rank() - self._half
        self._pending = dist.isend(message, partner, group=self._group), message, batches

    def _expect(self, batches: List[Dict[str, Any]]) -> None:
        numbers = sum(values.numel() for batch in batches for values in self._shape(batch)[1].values.values())
        message = torch.empty(numbers + 1, device=self._wire)
        partner = dist.get_rank() + self._half
        self._pending = dist.irecv(message, partner, group=self._group), message, batches

    def _unpack(self, message: Tensor, batches: List[Dict[str, Any]]) -> None:
        place = 0
        for batch in batches:
            ids, zero = self._shape(batch)
            values = {}
            for side, like in zero.values.items():
                values[side] = message[place : place + like.numel()].view(like.shape)
                place += like.numel()
            self.ahead.put(ids, Perturbation(values, {s: m.to(message.device) for s, m in zero.masks.items()}))
        self._nonfinite.append(message[-1])

"""ConAdv's delay line: perturbations of a coming update's batches, computed beside the present update."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import contextmanager, nullcontext
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Tuple

import torch
from torch import Tensor

from fairseq_adv.perturb import Perturbation, RngState
from fairseq_adv.perturb.carried import CarriedPerturbations, State
from fairseq_adv.perturb.graphs import casting_anew
from fairseq_adv.perturb.rng import reseed_from_state

logger = logging.getLogger(__name__)

# a collated batch -> its sample ids, δ, and the sentences whose gradient was not finite (B, bool)
Compute = Callable[[Dict[str, Any]], Tuple[Tensor, Perturbation, Tensor]]


class LookAhead:
    """δ of update t+τ's batches under θ_t, on a CUDA stream of its own beside update t's; on a CPU between them.

    ``ready`` holds what was computed τ = *delay* updates ago for the present one, ``ahead`` what is being computed now.
    *compute* must leave no gradient on any parameter; it may draw random numbers, which nobody notices.
    """

    def __init__(self, compute: Compute, device: torch.device, delay: int = 1) -> None:
        self._compute, self._device = compute, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._present: Optional[List[Dict[str, Any]]] = None
        self._queue: List[Dict[str, Any]] = []
        self._micro_batches_left = 0
        self._shares_taken = 0
        self._share: List[Dict[str, Any]] = []  # of the present micro-batch
        self._nonfinite: List[Tensor] = []
        self._running = False
        self._mark_beginning()
        self.ready = CarriedPerturbations()
        self._lines: Deque[CarriedPerturbations] = deque(CarriedPerturbations() for _ in range(delay))
        self._tell()

    @property
    def ahead(self) -> CarriedPerturbations:
        """What the present update computes."""
        return self._lines[-1]

    def _tell(self) -> None:
        if self._stream is None:
            logger.info(
                "--conadv-mode lookahead computes perturbations beside the update on a stream of their own; a CPU has "
                "none, so here it cannot be faster than disadv_label_smoothed, which needs fewer passes"
            )

    def begin(self, upcoming: List[Dict[str, Any]], present_size: int, wanted: bool) -> None:
        """Before each of the *present_size* micro-batches of an update: plan its share of the batches *upcoming*.

        An update that is tried again finds the same list, and nothing to do. Nothing is computed unless it is
        *wanted*.
        """
        self._mark_beginning()
        if upcoming is not self._present:
            self._present, self._micro_batches_left = upcoming, max(1, present_size)
            self._shares_taken = 0
            self._queue = [batch for batch in upcoming if wanted and len(batch) > 0]  # an empty one stands for a dummy
            self._advance()
        share = -(-len(self._queue) // max(1, self._micro_batches_left))
        self._micro_batches_left -= 1
        self._share += self._queue[:share]
        self._queue = self._queue[share:]

    def go(self) -> None:
        """Compute the share that :meth:`begin` planned, with the parameters and random numbers of that moment.

        A GPU does so beside whatever the trainer's stream was given since :meth:`begin`, such as the clean pass.
        """
        if not self._share:
            return
        batches, self._share = self._share, []
        with self._aside():
            for batch in batches:
                ids, delta, broken = self._compute(batch)
                self.ahead.put(ids, delta)
                self._nonfinite.append(broken.sum())

    def _advance(self) -> None:
        """A new update: what was computed for it is ready."""
        self.ready = self._lines.popleft()
        self._lines.append(CarriedPerturbations())

    def _mark_beginning(self) -> None:
        self._rng_at_beginning = RngState.capture(self._device)
        self._beginning: Optional[torch.cuda.Event] = None
        if self._stream is not None:
            self._beginning = torch.cuda.Event()
            self._beginning.record(torch.cuda.current_stream(self._device))

    def join(self) -> None:
        """Let the trainer's stream wait: after this the parameters may change and ``ahead`` may be read."""
        if self._stream is not None and self._running:
            present = torch.cuda.current_stream(self._device)
            present.wait_stream(self._stream)
            for values in self.ahead.tensors():
                values.record_stream(present)
        self._running = False

    def take_nonfinite(self) -> Optional[Tensor]:
        """How many sentences had no finite gradient since this was last asked; ``None`` for none computed.

        After :meth:`join`.
        """
        count = torch.stack(self._nonfinite).sum() if self._nonfinite else None
        self._nonfinite = []
        return count

    def state(self) -> List[State]:
        """What waits on this rank, the nearest update first; for :meth:`restore`."""
        return [line.state_dict() for line in self._lines]

    def restore(self, states: Iterable[List[State]]) -> None:
        """Go on from what the ranks' :meth:`state` were."""
        ranks = list(states)
        for place in range(len(self._lines)):
            of_all = [rank[place] for rank in ranks if place < len(rank)]
            self._lines[place] = CarriedPerturbations.from_states(of_all)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """On the own stream, with random numbers that the trainer's passes do not miss.

        Nor does it share their half-precision copies of weights: the other stream may still be writing or using them.
        """
        state = RngState.capture(self._device)
        try:
            self._rng_at_beginning.restore()
            reseed_from_state(self._device, stream=self._shares_taken)  # not the seed of the batch before
            self._shares_taken += 1
            if self._stream is not None:
                assert self._beginning is not None
                self._stream.wait_event(self._beginning)
                self._running = True
            with nullcontext() if self._stream is None else torch.cuda.stream(self._stream), casting_anew():
                yield
        finally:
            state.restore()

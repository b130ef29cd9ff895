"""Perturbations that wait for a later update, by sample id: what FreeAT replays and ConAdv looks ahead for."""

from __future__ import annotations

from typing import Dict, Iterable, List, Tuple

import torch
from torch import Tensor

from fairseq_adv.perturb.layout import Perturbation

State = Dict[str, Tensor]


class CarriedPerturbations:
    """δ of whole batches, kept where it was computed, and found again by sample id whatever batch the sample is in."""

    def __init__(self) -> None:
        self._batches: List[Perturbation] = []
        self._rows: Dict[int, Tuple[int, int]] = {}  # sample id -> (batch, row)

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, ids: Tensor, delta: Perturbation) -> None:
        """Keep *delta* (detached) for the samples *ids* (``B``); a sample that is there already gets the new one.

        *ids* here and in :meth:`take` had best lie on the CPU, or a GPU is waited for.
        """
        for row, sample in enumerate(ids.tolist()):
            self._rows[sample] = (len(self._batches), row)
        self._batches.append(delta.detached())

    def take(self, ids: Tensor, like: Perturbation) -> Tuple[Perturbation, List[bool]]:
        """δ of the samples *ids* in the shapes of *like*, and for each sample whether it is there.

        The others get zero. Sentences must have the lengths that they had when they were put.
        """
        places = [self._rows.get(sample) for sample in ids.tolist()]
        found = [place is not None for place in places]
        first = places[0] if places else None
        if first is not None and places == [(first[0], row) for row in range(len(places))]:
            whole = self._batches[first[0]]
            if all(whole.values[side].shape == values.shape for side, values in like.values.items()):
                return Perturbation(
                    {s: whole.values[s].to(v.device) for s, v in like.values.items()}, like.masks
                ), found
        values = {side: torch.zeros_like(v) for side, v in like.values.items()}
        for row, place in enumerate(places):
            if place is not None:
                for side, out in values.items():
                    stored = self._batches[place[0]].values[side][place[1]]  # L' x D
                    width = min(stored.size(0), out.size(1))
                    out[row, :width] = stored[:width]
        return Perturbation(values, like.masks), found

    def tensors(self) -> Iterable[Tensor]:
        """All tensors that are kept."""
        return (values for batch in self._batches for values in batch.values.values())

    def state_dict(self) -> State:
        """``ids`` (``N``) and for each side all real tokens one after the other (``Σ len x D``) with their ``lengths``.

        All on the CPU; empty without samples.
        """
        if not self._rows:
            return {}
        state: State = {"ids": torch.tensor(list(self._rows))}
        sentences = [{side: b.sentences(side) for side in b.sides} for b in self._batches]
        for side in self._batches[0].sides:
            rows = [sentences[batch][side][row] for batch, row in self._rows.values()]
            state[side] = torch.cat(rows)
            state[f"lengths_{side}"] = torch.tensor([len(row) for row in rows])
        return state

    @classmethod
    def from_states(cls, states: Iterable[State]) -> CarriedPerturbations:
        """What several ranks kept, on the CPU."""
        carried = cls()
        for state in filter(None, states):
            values, masks = {}, {}
            for side in (name for name in state if f"lengths_{name}" in state):
                rows = state[side].split(state[f"lengths_{side}"].tolist())
                values[side] = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
                masks[side] = torch.arange(values[side].size(1)) < state[f"lengths_{side}"].unsqueeze(1)
            carried.put(state["ids"], Perturbation(values, masks))
        return carried

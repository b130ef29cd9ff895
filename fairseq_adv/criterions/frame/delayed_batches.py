"""Shifted ConAdv's delay line: the last update's batches with the perturbations that their clean passes gave."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq import utils

from fairseq_adv.criterions.heads.translation import TOKENS
from fairseq_adv.perturb import Perturbation, real_token_mask

Delayed = Tuple[Dict[str, Any], Perturbation]  # a collated batch and its δ


class DelayedBatches:
    """Which batches wait, which go along with the present micro-batch, and what an update leaves for the next.

    All that waits goes along with an update's first micro-batch that is no dummy. A rank that has none in an
    update keeps what waits. An update that is tried again takes the same batches along again.
    """

    def __init__(self) -> None:
        self._waiting: List[Delayed] = []
        self._kept: List[Delayed] = []
        self._taken = False
        self._update: Optional[int] = None

    def begin(self, update_num: int, new_attempt: bool) -> None:
        """Before each micro-batch; *new_attempt* tells the first one of each attempt at an update."""
        if update_num != self._update:
            self._waiting, self._update = self.next(), update_num
        elif not new_attempt:
            return
        self._kept, self._taken = [], False

    def take(self) -> List[Delayed]:
        """What goes along with the present micro-batch."""
        along = [] if self._taken else self._waiting
        self._taken = True
        return along

    def keep(self, sample: Dict[str, Any], delta: Perturbation) -> None:
        """Let *sample* wait for the next update."""
        self._kept.append((sample, delta.detached()))

    def next(self) -> List[Delayed]:
        """What waits for the next update."""
        return self._kept if self._taken else self._waiting + self._kept

    def clear(self) -> None:
        """Forget everything: an epoch begins."""
        self._waiting, self._kept, self._taken = [], [], False

    def state_dict(self) -> List[Dict[str, Any]]:
        """What waits for the next update: tensors on the CPU and numbers."""
        return [_pack(sample, delta) for sample, delta in self.next()]

    def load_state_dict(self, state: List[Dict[str, Any]], pads: Dict[str, int]) -> None:
        """Let what :meth:`state_dict` returned wait for the next update."""
        self.clear()
        self._update = None
        self._waiting = [_unpack(packed, pads) for packed in state]


def on_device(delayed: Delayed, device: torch.device) -> Delayed:
    """*delayed* where the model is; after a resume it is on the CPU."""
    sample, delta = delayed
    if sample["target"].device == device:
        return delayed
    masks = {side: mask.to(device) for side, mask in delta.masks.items()}
    moved = Perturbation({side: values.to(device) for side, values in delta.values.items()}, masks)
    return utils.apply_to_sample(lambda tensor: tensor.to(device), sample), moved


def _pack(sample: Dict[str, Any], delta: Perturbation) -> Dict[str, Any]:
    tensors = {key: value for key, value in sample["net_input"].items() if torch.is_tensor(value)}
    tensors.update(id=sample["id"], target=sample["target"])
    tensors.update({f"delta_{side}": values for side, values in delta.values.items()})
    return {"ntokens": int(sample["ntokens"]), **{key: value.cpu() for key, value in tensors.items()}}


def _unpack(packed: Dict[str, Any], pads: Dict[str, int]) -> Delayed:
    values = {side: packed[f"delta_{side}"] for side in pads if f"delta_{side}" in packed}
    masks = {side: real_token_mask(packed[TOKENS[side]], pads[side]) for side in values}
    inputs = {k: v for k, v in packed.items() if k not in ("ntokens", "id", "target") and not k.startswith("delta_")}
    sample = {"id": packed["id"], "ntokens": packed["ntokens"], "net_input": inputs, "target": packed["target"]}
    return sample, Perturbation(values, masks)

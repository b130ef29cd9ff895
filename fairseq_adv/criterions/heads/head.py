"""The seam between a method and its task: all that a method needs to know of a model and of what it is trained for.

A method asks for passes and hands their outputs back to its head; it never looks inside an output. Log-probs, class
scores and predicted numbers are as good as features whose projection has yet to be computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Dict, List, NamedTuple, Optional, Tuple, Type

import torch
from fairseq.criterions import FairseqCriterion
from torch import Tensor, nn

from fairseq_adv.perturb import Output


@dataclass(frozen=True)
class Targets:
    """What the N rows of an output are compared with: ``values`` and ``mask`` (bool), the rows that count."""

    values: Tensor
    mask: Tensor


@dataclass(frozen=True)
class LossWeights:
    """How much the parts of one loss weigh: the task's loss of either output, and the divergence between them."""

    clean: float = 0.0
    perturbed: float = 0.0
    divergence: float = 0.0


class JointLoss(NamedTuple):
    """``total`` with its graph, and the values of its parts without one; ``None`` for a part of no weight."""

    total: Tensor
    perturbed: Optional[Tensor]
    divergence: Optional[Tensor]


class Head(ABC):
    """One criterion's view of its task. Losses and divergences are sums over the rows that count.

    ``suffix`` ends the names of the criterions, ``options`` is the dataclass of fairseq's own criterion, and ``sides``
    are the inputs with word embeddings that such a model has; ``own_task`` is the task of this package for it.
    """

    suffix: ClassVar[str]
    options: ClassVar[Type[Any]]
    sides: ClassVar[Tuple[str, ...]]
    own_task: ClassVar[str]
    plain: FairseqCriterion  # fairseq's own criterion: plain training and evaluation
    has_directions: bool = True  # whether divergence(p, q) and divergence(q, p) differ
    fuses: bool = False  # whether training is to run on another form of the output than that of fairseq's criterion

    @abstractmethod
    def __init__(self, cfg: Any, task: Any) -> None:
        """*cfg* has the fields of :attr:`options`."""

    # ---- the input ----------------------------------------------------------------------------------------

    @abstractmethod
    def pads(self) -> Dict[str, int]:
        """The padding index of each side."""

    @abstractmethod
    def tokens(self, sample: Dict[str, Any], side: str) -> Tensor:
        """The words ``B x S`` that are embedded on *side*."""

    @abstractmethod
    def forward(self, model: nn.Module, sample: Dict[str, Any]) -> Output:
        """One pass of *model* over *sample*."""

    def for_input_alone(self, output: Any) -> Any:
        """*output* where a gradient towards the input is wanted, and none towards parameters."""
        return output

    def held(self, output: Any) -> Any:
        """*output* without its graph, for many others to be compared with."""
        return output.detach()

    @abstractmethod
    def doubled(self, sample: Dict[str, Any]) -> Dict[str, Any]:
        """The batch twice over, row for row: as much of it as :meth:`forward` reads."""

    @abstractmethod
    def check_model(self, model: nn.Module) -> None:
        """Raise ``ValueError`` for a model that has no such output, or whose loss has parts unknown to the head."""

    # ---- the output ---------------------------------------------------------------------------------------

    @abstractmethod
    def targets(self, sample: Dict[str, Any]) -> Targets:
        """What the output of *sample* is compared with."""

    @abstractmethod
    def loss(self, output: Any, targets: Targets, log: Dict[str, Any]) -> Tensor:
        """The task's loss, by the operations of fairseq's own criterion; the first output's columns go to *log*."""

    @abstractmethod
    def divergence(self, p: Any, q: Any, targets: Targets, kind: str, detach_p: bool = False) -> Tensor:
        """How far *q* is from *p*; with *detach_p* no gradient flows through *p*, as in the ascent."""

    def joint_loss(
        self,
        p: Any,
        q: Any,
        targets: Targets,
        weights: LossWeights,
        kind: str,
        detach_p: bool,
        log: Dict[str, Any],
    ) -> JointLoss:
        """The weighted sum of the losses of *p* (clean) and *q* (perturbed) and of their divergence."""
        clean = self.loss(p, targets, log) if weights.clean else None
        perturbed = self.loss(q, targets, log) if weights.perturbed else None
        divergence = self.divergence(p, q, targets, kind, detach_p) if weights.divergence else None
        parts = ((clean, weights.clean), (perturbed, weights.perturbed), (divergence, weights.divergence))
        terms = [part if weight == 1.0 else weight * part for part, weight in parts if part is not None]
        total = sum(terms[1:], terms[0])
        return JointLoss(total, _value(perturbed), _value(divergence))

    # ---- what fairseq divides by and logs -----------------------------------------------------------------

    @abstractmethod
    def sample_size(self, sample: Dict[str, Any]) -> Any:
        """What the trainer divides the loss by."""

    def plain_update(self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True) -> Any:
        """Loss, sample size and log of an update of plain training, key for key those of fairseq's own criterion."""
        return self.plain(model, sample, reduce=reduce)

    @abstractmethod
    def training_log(self, sample: Dict[str, Any], loss: Tensor, columns: Dict[str, Any]) -> Dict[str, Any]:
        """What fairseq's own criterion logs, key for key, of an update whose outputs left *columns*."""

    def logs_can_be_summed(self) -> bool:
        """Whether ranks may add up their logs, value for value."""
        return True

    @classmethod
    @abstractmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """As fairseq's own criterion."""


def doubled_input(sample: Dict[str, Any]) -> Dict[str, Any]:
    """All tensors of the model's input twice over, row for row."""
    return {key: torch.cat([value, value]) for key, value in sample["net_input"].items() if torch.is_tensor(value)}


def _value(part: Optional[Tensor]) -> Optional[Tensor]:
    return None if part is None else part.data

"""``--arch adv_roberta``: fairseq's RoBERTa with the LayerNorms of the model that it was converted from."""

from __future__ import annotations

import argparse
import math
from typing import Any

from fairseq.models import register_model, register_model_architecture
from fairseq.models.roberta import RobertaModel
from fairseq.models.roberta.model import base_architecture
from fairseq.modules import LayerNorm
from torch import nn

BERT_EPS = 1e-12  # of Devlin et al.'s BERT; RoBERTa has 1e-5, which fairseq fixes for all


@register_model("adv_roberta")
class AdvRobertaModel(RobertaModel):
    """RoBERTa whose LayerNorms have the eps of ``--adv-layernorm-eps``, in training and in evaluation.

    With another eps than the one that it was trained with, a converted BERT gives other features (4e-3 at most on real
    sentences). The parameters are those of ``roberta``; a checkpoint of the one loads into the other.
    """

    def __init__(self, args: Any, encoder: nn.Module) -> None:
        super().__init__(args, encoder)
        set_layernorm_eps(self, args.adv_layernorm_eps)
        self.frozen = getattr(args, "adv_freeze_encoder", False)
        if self.frozen:
            encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> AdvRobertaModel:
        """As of any module, but a frozen encoder stays in evaluation: its features are those that it was tuned to."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    @staticmethod
    def add_args(parser: argparse.ArgumentParser) -> None:
        RobertaModel.add_args(parser)
        parser.add_argument(
            "--adv-layernorm-eps",
            type=float,
            metavar="EPS",
            help=f"added to the variance in each LayerNorm (default: {BERT_EPS:g}, as BERT; RoBERTa: 1e-05)",
        )
        parser.add_argument(
            "--adv-freeze-encoder",
            action="store_true",
            help="train the head alone, on the encoder's features without dropout (default: off, all is trained)",
        )


def set_layernorm_eps(model: nn.Module, eps: float) -> None:
    """Give every LayerNorm of *model* this *eps*; raises ``ValueError`` unless it is finite and above 0."""
    if not 0 < eps < math.inf:
        raise ValueError(f"--adv-layernorm-eps must be finite and > 0, got {eps}")
    kinds = (nn.LayerNorm, type(LayerNorm(1)))  # with apex, on a GPU, fairseq's are of another class
    for module in model.modules():
        if isinstance(module, kinds):
            module.eps = eps


@register_model_architecture("adv_roberta", "adv_roberta")
def adv_roberta(args: Any) -> None:
    base_architecture(args)
    eps = getattr(args, "adv_layernorm_eps", None)
    args.adv_layernorm_eps = BERT_EPS if eps is None else eps
    args.adv_freeze_encoder = bool(getattr(args, "adv_freeze_encoder", False))

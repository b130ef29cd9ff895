"""SimCut and R3F as the public code of their authors computes them, for ``peers.py`` to time: written from the papers.

SimCut (Gao et al. 2022): softmax of the clean logits, a second pass with words cut off, ``kl_div`` with its full
matrix of terms. R3F (Aghajanyan et al. 2021, fairseq's ``examples/rxf``): noise on the source embeddings, both
directions of KL in fp32, padding included. R-Drop needs nothing here: fairseq has its authors' criterion itself.
"""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
import importlib.util
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import torch
import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from torch import Tensor, nn


@dataclass
class PeerSimcutConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """SimCut's weight and cutoff."""

    peer_alpha: float = field(default=3.0, metadata={"help": "weight of the divergence"})
    peer_p: float = field(default=0.05, metadata={"help": "probability that a word is cut off"})


@dataclass
class PeerR3fConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """R3F's weight and noise."""

    peer_lambda: float = field(default=1.0, metadata={"help": "weight of the divergence"})
    peer_sigma: float = field(default=1e-5, metadata={"help": "size of the noise for each coordinate"})


class _Peer(LabelSmoothedCrossEntropyCriterion):
    """Cross-entropy, and in training a penalty on the logits of a second pass."""

    def __init__(self, cfg: Any, task: Any) -> None:
        super().__init__(task, cfg.sentence_avg, cfg.label_smoothing)
        self.cfg = cfg

    def penalty(self, model: nn.Module, clean: Tensor, sample: Dict[str, Any]) -> Tensor:
        raise NotImplementedError

    def forward(self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, Any, Any]:
        net_output = model(**sample["net_input"])
        loss, nll_loss = self.compute_loss(model, net_output, sample, reduce=reduce)
        if model.training:
            loss = loss + self.penalty(model, net_output[0], sample)
        sizes = {"ntokens": sample["ntokens"], "nsentences": sample["target"].size(0), "sample_size": sample["ntokens"]}
        return loss, sample["ntokens"], {"loss": loss.data, "nll_loss": nll_loss.data, **sizes}


def kept_words(tokens: Tensor, keep: float) -> Tensor:
    """1 where a word is kept, 0 where it is cut off: ``B x S``."""
    return torch.full(tokens.shape, keep, device=tokens.device).bernoulli()


@contextmanager
def words_cut(model: Any, keep: float) -> Iterator[None]:
    """While open, each word's embedding is kept with probability *keep* and zero otherwise."""

    def cut(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * kept_words(inputs[0], keep).to(output.dtype).unsqueeze(-1)

    tables = {id(part.embed_tokens): part.embed_tokens for part in (model.encoder, model.decoder)}
    handles = [table.register_forward_hook(cut) for table in tables.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@register_criterion("peer_simcut", dataclass=PeerSimcutConfig)
class PeerSimcut(_Peer):
    """CE + α KL(f(x) ‖ f(cutoff(x))) by ``kl_div`` on softmax and log-softmax."""

    def penalty(self, model: nn.Module, clean: Tensor, sample: Dict[str, Any]) -> Tensor:
        with words_cut(model, 1.0 - self.cfg.peer_p):
            cut = model(**sample["net_input"])[0]
        terms = F.kl_div(F.log_softmax(cut, dim=-1), F.softmax(clean, dim=-1), reduction="none")
        counts = sample["target"].ne(self.padding_idx)
        return self.cfg.peer_alpha * (terms.sum(dim=-1) * counts).sum()


@register_criterion("peer_r3f", dataclass=PeerR3fConfig)
class PeerR3f(_Peer):
    """CE + λ [KL(p‖q) + KL(q‖p)], q at source embeddings with noise."""

    def penalty(self, model: Any, clean: Tensor, sample: Dict[str, Any]) -> Tensor:
        inputs = sample["net_input"]
        words = model.encoder.embed_tokens(inputs["src_tokens"])
        noised = words + torch.empty_like(words).normal_(0.0, self.cfg.peer_sigma)
        encoded = model.encoder(inputs["src_tokens"], inputs["src_lengths"], token_embeddings=noised)
        other = model.decoder(inputs["prev_output_tokens"], encoder_out=encoded)[0]
        return self.cfg.peer_lambda * (_kl(clean, other) + _kl(other, clean))


def _kl(p: Tensor, q: Tensor) -> Tensor:
    log_q = F.log_softmax(q, dim=-1, dtype=torch.float32)
    return F.kl_div(log_q, F.softmax(p, dim=-1, dtype=torch.float32), reduction="sum")


def register_public_simcut(file: str) -> str:
    """Load the authors' criterion from *file*; the name that it is registered under.

    Its encoder and decoder take an argument ``simcut_p``, the probability that a word is kept: :func:`take_simcut_p`.
    """
    spec = importlib.util.spec_from_file_location("public_simcut", Path(file))
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return "label_smoothed_cross_entropy_with_simcut"


def take_simcut_p(model: Any) -> None:
    """Let encoder and decoder of *model* take what the authors' own take."""

    def taking(forward: Any) -> Any:
        def called(*args: Any, simcut_p: float = 1.0, **kwargs: Any) -> Any:
            if simcut_p == 1.0:
                return forward(*args, **kwargs)
            with words_cut(model, simcut_p):
                return forward(*args, **kwargs)

        return called

    for part in (model.encoder, model.decoder):
        part.forward = taking(part.forward)

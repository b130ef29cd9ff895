"""A trained model as the probes see it: its loss and its translations, with or without a perturbation."""

from __future__ import annotations

from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ContextManager, Dict, Iterator, List, Optional, Sequence

import torch
from fairseq import checkpoint_utils, utils
from torch import Tensor, nn

from fairseq_adv.perturb import Ball, EmbeddingHook, Perturbation, initial_perturbation
from fairseq_adv.perturb.ascent import projected_gradient_ascent
from fairseq_adv.perturb.layout import real_token_mask
from fairseq_adv.probe.averaged_loss import AveragedLoss
from fairseq_adv.probe.sentences import SentenceSet

TOKENS = {"src": "src_tokens", "tgt": "prev_output_tokens"}
SIDES = ("src", "tgt")


class TrainedModel:
    """One checkpoint under evaluation conditions: no dropout, fp32. Samples are batches as fairseq collates them."""

    def __init__(self, model: nn.Module, task: Any, beam: int = 1, lenpen: float = 1.0) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any = model.float().eval().to(self.device)
        self.task = task
        dictionaries = {"src": task.source_dictionary, "tgt": task.target_dictionary}
        self.pads = {side: dictionaries[side].pad() for side in SIDES}
        self.hook = EmbeddingHook(self.model, self.pads)
        search = Namespace(beam=beam, lenpen=lenpen, max_len_a=1.5, max_len_b=20)
        self._generator = task.build_generator([self.model], search)

    @classmethod
    def load(cls, checkpoint: Path, data: Optional[Path] = None, beam: int = 1, lenpen: float = 1.0) -> TrainedModel:
        """From a checkpoint of fairseq; *data* replaces the folder that it was trained on."""
        if not checkpoint.is_file():
            raise FileNotFoundError(f"no checkpoint {checkpoint}: train first, or name another with --checkpoint")
        overrides = {} if data is None else {"data": str(data)}
        models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)], arg_overrides=overrides)
        return cls(models[0], task, beam, lenpen)

    def sentences(self, subset: str) -> SentenceSet:
        self.task.load_dataset(subset)
        return SentenceSet.whole(self.task.dataset(subset))

    def on_device(self, sample: Dict[str, Any]) -> Dict[str, Any]:
        return utils.move_to_cuda(sample) if self.device.type == "cuda" else sample

    # ---- loss ---------------------------------------------------------------------------------------------

    def nll(self, sample: Dict[str, Any]) -> Tensor:
        """Negative log-likelihood of the references, a sum over target tokens in nats."""
        return self.sentence_nll(sample).sum()

    def sentence_nll(self, sample: Dict[str, Any]) -> Tensor:
        """That of each reference (B)."""
        net_output = self.model(**sample["net_input"])
        log_probs = self.model.get_normalized_probs(net_output, log_probs=True)
        target = sample["target"]
        chosen = log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        return -chosen.masked_fill(target.eq(self.pads["tgt"]), 0.0).sum(-1)

    def averaged_loss(self, batches: Sequence[Dict[str, Any]]) -> AveragedLoss:
        """The nll per target token as a function of the parameters; tied parameters are one."""
        parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        terms = [lambda sample=sample: self.nll(sample) for sample in batches]
        return AveragedLoss(parameters, terms, float(sum(target_tokens(sample, self.pads) for sample in batches)))

    # ---- perturbations ------------------------------------------------------------------------------------

    def _zero(self, sample: Dict[str, Any], sides: Sequence[str]) -> Perturbation:
        masks = {s: real_token_mask(sample["net_input"][TOKENS[s]], self.pads[s]) for s in sides}
        values = {s: torch.zeros(*m.shape, self.hook.dims[s], device=m.device) for s, m in masks.items()}
        return Perturbation(values, masks)

    def worst_case(self, sample: Dict[str, Any], radius: float, sides: Sequence[str], steps: int) -> Perturbation:
        """δ that raises the nll most within ‖δ‖ ≤ *radius*, for each sentence and side by itself.

        From 0, *steps* of 2.5 · radius / steps (Madry et al. 2018): the ascent can reach any point of the ball and turn
        back.
        """

        def loss(delta: Perturbation) -> Tensor:
            with self.hook.adding(delta):
                return self.nll(sample)

        step = 2.5 * radius / steps
        return projected_gradient_ascent(loss, self._zero(sample, sides), Ball(radius), steps, step)[0]

    def random_perturbation(
        self, sample: Dict[str, Any], radius: float, sides: Sequence[str], seed: int
    ) -> Perturbation:
        """A random direction of norm *radius* for each sentence and side; it depends on seed and sentence alone."""
        zero = self._zero(sample, sides)
        dims = {side: self.hook.dims[side] for side in sides}
        return initial_perturbation("normal", sample["id"], zero.masks, dims, Ball(radius), 1.0, seed, stream=0)

    def moved_by(self, delta: Optional[Perturbation]) -> ContextManager[None]:
        """Inside, the model sees x + δ; x itself where *delta* is None."""
        return self.hook.transforming(None if delta is None else self.hook.adder(delta))

    def embedding_norm(self, sentences: SentenceSet, max_tokens: int) -> float:
        """Mean norm of the embedding of a source token; a radius compares with √tokens of them in a sentence."""
        weight, total, count = self.model.encoder.embed_tokens.weight.detach(), 0.0, 0
        for sample in sentences.batches(max_tokens):
            tokens = sample["net_input"]["src_tokens"]
            norms = weight[tokens[tokens.ne(self.pads["src"])].to(weight.device)].norm(dim=-1)
            total, count = total + float(norms.sum()), count + norms.numel()
        return total / max(1, count)

    # ---- translation --------------------------------------------------------------------------------------

    def translate(self, sample: Dict[str, Any], delta: Optional[Perturbation] = None) -> Dict[int, Tensor]:
        """The best hypothesis of each sentence, by id; *delta* moves the source's embeddings."""
        with torch.no_grad(), _through_hooks(self.model.encoder), self.moved_by(delta):
            found = self.task.inference_step(self._generator, [self.model], sample)
        return {int(key): hypotheses[0]["tokens"].cpu() for key, hypotheses in zip(sample["id"], found)}


def target_tokens(sample: Dict[str, Any], pads: Dict[str, int]) -> int:
    """The target tokens of a batch, ends of sentences included."""
    return int(sample["target"].ne(pads["tgt"]).sum())


@contextmanager
def _through_hooks(encoder: Any) -> Iterator[None]:
    """Beam search calls ``encoder.forward`` itself, past all hooks; inside, it calls the module."""

    def encode(net_input: Dict[str, Tensor]) -> Any:
        return encoder(**{name: value for name, value in net_input.items() if name != "prev_output_tokens"})

    encoder.forward_torchscript = encode
    try:
        yield
    finally:
        del encoder.forward_torchscript


def all_on_device(model: TrainedModel, sentences: SentenceSet, max_tokens: int) -> List[Dict[str, Any]]:
    """Every batch of *sentences*, moved once."""
    return [model.on_device(sample) for sample in sentences.batches(max_tokens)]

"""Short trainings of each method inside the test process, through fairseq's own trainer."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from torch import Tensor

from fairseq_adv.criterions.heads.translation import TranslationHead
from tests.integration.running import Training, build_trainer, default_args, epoch_batches

Options = List[str]

# default_args is a transformer with one embedding for all; each of these replaces its model options
ARCHITECTURES: Dict[str, str] = {
    "transformer_shared": "",
    "transformer": "--arch transformer --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 "
    "--decoder-embed-dim 16 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 "
    "--decoder-attention-heads 2",
    "lstm": "--arch lstm --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16 "
    "--encoder-hidden-size 16 --decoder-hidden-size 16 --decoder-out-embed-dim 16",
    "fconv": "--arch fconv --encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-layers [(16,3)] "
    "--decoder-layers [(16,3)] --decoder-out-embed-dim 16",
}
# large enough that a short training differs from a plain one; and the task, where a method needs ours
STRONG: Dict[str, str] = {
    "arch_label_smoothed": "--adv-divergence sym-kl",  # what the golden losses are of
    "conadv_label_smoothed": "--task adversarial_translation",
    "freeat_label_smoothed": "--task adversarial_translation",
    "r3f_label_smoothed": "--r3f-sigma 0.1",
    "simcut_label_smoothed": "--simcut-p 0.2",
}
# beside the registered criterions: what an option changes in how many passes and backward passes run
VARIANTS: Dict[str, str] = {
    "smart_label_smoothed bregman": "--smart-bregman 0.5 --smart-momentum 0.5",
    "smart_label_smoothed detached": "--adv-detach-clean",
    "smart_label_smoothed perturbed": "--adv-objective perturbed",
    "r3f_label_smoothed concat": "--r3f-sigma 0.1 --adv-passes concat",
    "r3f_label_smoothed recompute": "--r3f-sigma 0.1 --adv-passes recompute",
    "r3f_label_smoothed fraction": "--r3f-sigma 0.1 --adv-fraction 0.5",
    "scala_label_smoothed ce": "--scala-loss ce",
    "arch_label_smoothed cheaper": "--adv-fraction 0.5 --cache-interval 1 --cache-refresh cached "
    "--cache-proportion 0.3 --cache-train-on-last-pass",
    "conadv_label_smoothed concat": "--task adversarial_translation --adv-passes concat",
    "arch_label_smoothed fused": "--adv-divergence sym-kl --adv-vocabulary fused",
}


def methods_of(head: Any) -> List[str]:
    """Every criterion of the package for *head* by the name that it is registered under."""
    import fairseq_adv

    fairseq_adv.register()
    from fairseq.criterions import CRITERION_REGISTRY

    from fairseq_adv.criterions.frame.adversarial import AdversarialCriterion

    ours = {name: cls for name, cls in CRITERION_REGISTRY.items() if issubclass(cls, AdversarialCriterion)}
    return sorted(name for name, cls in ours.items() if cls.head_type is head)


METHODS = methods_of(TranslationHead)
CASES = [*METHODS, *VARIANTS]


def method_options(case: str) -> Options:
    """``--criterion NAME`` and the options of one of :data:`CASES` (or of a criterion that is not ours)."""
    name = case.split()[0]
    return ["--criterion", name, *VARIANTS.get(case, STRONG.get(name, "")).split()]


def architecture_options(data: Path, save_dir: Path, architecture: str) -> Options:
    """``default_args`` with the model of :data:`ARCHITECTURES`."""
    words = default_args(data, save_dir)
    if not ARCHITECTURES[architecture]:
        return words
    start, end = words.index("--arch"), words.index("--dropout")
    return [*words[:start], *ARCHITECTURES[architecture].split(), *words[end:]]


class Trained(NamedTuple):
    """A training and, for each update, the loss (nats per target token), the gradient norm and what was logged."""

    training: Training
    losses: List[float]
    gradient_norms: List[float]
    logs: List[Dict[str, Any]]

    def parameters(self) -> Dict[str, Tensor]:
        """The model's parameters in fp32, by name."""
        return {name: p.detach().float() for name, p in self.training.model.named_parameters()}


def train(args: Options, updates: Optional[int] = None, epoch: int = 1) -> Trained:
    """The first *updates* (default: all) of *epoch*, or those that follow the checkpoint that *args* resumes."""
    return go_on(build_trainer(args), updates, epoch)


def go_on(training: Training, updates: Optional[int] = None, epoch: int = 1) -> Trained:
    """As :func:`train`, with a trainer that is built already. Fairseq's own log rounds to 3 digits, ours does not."""
    task, trainer = training.task, training.trainer
    result = Trained(training, [], [], [])
    reduce_metrics, clip_grad_norm = task.reduce_metrics, trainer.clip_grad_norm

    def record_loss(logging_outputs: List[Dict[str, Any]], criterion: Any) -> None:
        total, size = (sum(float(log[key]) for log in logging_outputs) for key in ("loss", "sample_size"))
        result.losses.append(total / size)
        reduce_metrics(logging_outputs, criterion)

    def record_norm(clip_norm: float) -> Tensor:
        norm = clip_grad_norm(clip_norm)
        result.gradient_norms.append(float(norm))
        return norm

    task.reduce_metrics, trainer.clip_grad_norm = record_loss, record_norm
    try:
        for batches in islice(epoch_batches(trainer, epoch), updates):
            result.logs.append(dict(trainer.train_step(batches)))
    finally:
        task.reduce_metrics, trainer.clip_grad_norm = reduce_metrics, clip_grad_norm
    return result

"""Updates on a GPU that is pretended: ``LD_PRELOAD=pretended_gpu.so python -m tests.integration.pretended_gpu``.

Its tensors have a device but no values (torch's ``FakeTensorMode``): an operator that mixes them with those of the CPU
fails, and so does whatever would read one. Prints JSON for each case: what went wrong, ``null`` for nothing.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from fairseq_adv.compat import on_cpu
from fairseq_adv.criterions import conadv
from fairseq_adv.criterions.frame import adversarial, hooked_models, look_ahead
from fairseq_adv.perturb import passes
from fairseq_adv.perturb.rng import RngState
from tests.unit.criterions.conadv_reference import task_that_tells
from tests.unit.criterions.updates import make_criterion
from tests.unit.sentence_models import sentence_batch, sentence_model, sentence_task
from tests.unit.toy_models import toy_batch, toy_model

MODE = FakeTensorMode(allow_non_fake_inputs=True)
GPU = torch.device("cuda", 0)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
METHODS: Dict[str, Dict[str, Any]] = {
    **{name: {} for name in ("conadv", "disadv", "freelb", "r3f", "rdrop", "scala", "simcut", "smart", "vat")},
    "freeat": {"freeat_replays": 1},
    "conadv shifted": {"conadv_mode": "shifted"},
    "conadv late": {"conadv_delay": 2, "conadv_start_norm": 0.05, "conadv_gradient": "raw"},
    "scala ce": {"scala_loss": "ce"},
    "smart bregman": {"smart_bregman": 0.5},
    "smart words": {"adv_level": "word", "adv_norm": "linf", "adv_gradient": "raw"},
    "smart detached": {"adv_detach_clean": True},
    "smart perturbed": {"adv_objective": "perturbed"},
    **{f"{name} concat": {"adv_passes": "concat"} for name in ("conadv", "r3f", "simcut")},
    **{f"{name} recompute": {"adv_passes": "recompute"} for name in ("r3f", "rdrop")},
    **{f"{name} fraction": {"adv_fraction": 0.5} for name in ("r3f", "rdrop", "smart")},
}
FUSED = {f"{name} fused": {"adv_vocabulary": "fused"} for name in ("conadv", "r3f", "smart")}

# with values, on the CPU: the batches of an update, and those of a coming one
_WORDS = [toy_batch(), toy_batch((2, 7), (3, 3), seed=4, first_id=5)], [toy_batch((4,), (2,), seed=9, first_id=30)]
_ROWS = [sentence_batch(), sentence_batch((2, 7), seed=4, first_id=5)], [sentence_batch((4,), seed=9, first_id=30)]


class Nothing:
    """A stream or an event."""

    def __init__(self, *_: Any) -> None:
        pass

    record = wait_event = wait_stream = __init__


def on_the_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """*function*, which works with what never was on the GPU, outside of the mode."""

    @wraps(function)
    def wrapper(*args: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args)

    return wrapper


def pretend() -> None:
    """Streams, events and generators of a GPU that is not there; this process does nothing else."""
    replaced: List[Tuple[Any, str, Any]] = [
        *((torch.cuda, name, Nothing) for name in ("Stream", "Event", "current_stream")),
        (torch.cuda, "stream", lambda _: nullcontext()),
        (torch.Tensor, "record_stream", lambda *_: None),
        (RngState, "capture", classmethod(lambda cls, device: cls([], device))),
        (RngState, "restore", lambda _: None),
        *((module, "reseed_from_state", lambda *_, **__: None) for module in (passes, conadv, look_ahead)),
        (adversarial, "chosen_rows", on_the_cpu(adversarial.chosen_rows)),
        (hooked_models, "warn_of_rounding", lambda *_: None),  # it reads, once, before the first update
    ]
    for owner, name, value in replaced:
        setattr(owner, name, value)


def batch_there(value: Any, pad: int = 1) -> Any:
    """A batch on the GPU, as the trainer moves it there."""
    if isinstance(value, dict):
        return {key: batch_there(part) for key, part in value.items()}
    if not torch.is_tensor(value):
        return value
    moved: Any = MODE.from_tensor(value).to(GPU, non_blocking=True)
    with unset_fake_temporarily():
        if value.dtype == torch.int64 and value.dim() == 2:
            moved.padded = {pad: bool(value.eq(pad).any())}
        elif value.dtype == torch.int64:
            moved.on_cpu = value
    return moved


def model_there(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """*model* on the GPU; parameters that it shares stay shared."""
    moved: Dict[int, Tuple[Tensor, nn.Parameter]] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                found = moved.setdefault(id(parameter), (parameter, nn.Parameter(parameter.data.to(GPU, dtype))))
                module._parameters[name] = found[1]
        for name, buffer in list(module._buffers.items()):
            module._buffers[name] = None if buffer is None else buffer.to(GPU)
    for module in on_cpu.modules_that_ask(model):
        module.register_forward_pre_hook(on_cpu._hand_over_answers, with_kwargs=True)
    return model


def translations(dtype: torch.dtype) -> Tuple[nn.Module, List[Dict[str, Any]], List[Dict[str, Any]]]:
    model = toy_model(dropout=0.1, encoder_learned_pos=True, decoder_learned_pos=True)
    return model_there(model, dtype), *_WORDS


def sentences(dtype: torch.dtype) -> Tuple[nn.Module, List[Dict[str, Any]], List[Dict[str, Any]]]:
    return model_there(sentence_model(dropout=0.1), dtype), *_ROWS


def train(name: str, options: Dict[str, Any], dtype: torch.dtype) -> None:
    """Two updates of two micro-batches."""
    with_words = name.endswith("_label_smoothed")
    model, batches, upcoming = (translations if with_words else sentences)(dtype)
    task = task_that_tells([upcoming, len(batches)]) if name.startswith("conadv") else None
    if task is not None and not with_words:
        task.label_dictionary = sentence_task().label_dictionary
    criterion = make_criterion(name, task, **options)
    distributed = SimpleNamespace(ddp_backend="legacy_ddp")
    trainer = SimpleNamespace(
        cfg=SimpleNamespace(distributed_training=distributed),
        get_model=lambda: model,
        _prepare_sample=lambda sample: (batch_there(sample), False),
    )
    criterion.begin_training(trainer, None)
    criterion.begin_epoch(1)
    optimizer = SimpleNamespace(backward=lambda loss: loss.backward())
    for update in range(2):
        for batch in batches:
            step(criterion, model, batch_there(batch), optimizer, update)
    assert {p.grad.device for p in model.parameters() if p.grad is not None} == {GPU}


def step(criterion: Any, model: nn.Module, sample: Dict[str, Any], optimizer: Any, update: int) -> None:
    criterion.begin_micro_batch(update, dummy_batch=False)
    criterion.begin_pass(model)
    if criterion.drives_backward():
        criterion.train_step(sample, model, optimizer, update)
    else:
        optimizer.backward(criterion(model, sample)[0])


def outcome(action: Callable[[], Any]) -> Optional[str]:
    with MODE:
        try:
            action()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


def cases() -> Dict[str, Callable[[], Any]]:
    found: Dict[str, Callable[[], Any]] = {
        "a read": lambda: torch.ones(2, device=GPU).sum().item(),
        "a mixture": lambda: torch.ones(2, device=GPU) + torch.ones(2),
    }
    for head, methods in (("label_smoothed", {**METHODS, **FUSED}), ("sentence_prediction", METHODS)):
        for case, options in methods.items():
            for precision, dtype in DTYPES.items():
                found[f"{case} {head} {precision}"] = partial(train, f"{case.split()[0]}_{head}", options, dtype)
    return found


if __name__ == "__main__":
    pretend()
    for case, action in cases().items():
        print(json.dumps([case, outcome(action)]), flush=True)

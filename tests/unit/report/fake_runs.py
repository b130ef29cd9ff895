"""Run folders with logs as fairseq prints them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List, Mapping, Optional

CONFIG = (
    "2026-01-01 10:00:00 | INFO | fairseq_cli.train | {'_name': None, 'common': {'_name': None, 'seed': %d, "
    "'log_format': 'json', 'tensorboard_logdir': None}, 'model': Namespace(arch='transformer', dropout=0.3), "
    "'criterion': {'_name': '%s', 'label_smoothing': 0.1, 'adv_eps': %s, 'adv_divergence': sym-kl, 'sizes': [1, 2]}, "
    "'optimization': {'_name': None, 'max_epoch': 3, 'lr': [0.001], 'clip_norm': 1.0}}"
)


def line(tag: str, epoch: int, values: Dict[str, object]) -> str:
    """One record; fairseq writes its numbers as strings, with the set's name in front except in train_inner."""
    prefix = "" if tag == "train_inner" else f"{tag}_"
    record = {"epoch": epoch, **{prefix + name: str(value) for name, value in values.items()}}
    return f"2026-01-01 10:00:00 | INFO | {tag} | {json.dumps(record)}"


def epoch_lines(epoch: int, nll: float, wall: float, refresh: Optional[float], updates: int = 20) -> List[str]:
    """Two log intervals, a validation and the end of *epoch*, whose end is *wall* seconds after the start."""
    lines = []
    ups = 2.0 if refresh is None else (0.5 if refresh else 1.0)
    adversarial = (
        {} if refresh is None else {"adv_refresh": refresh, "adv_norm_src": 0.1, "adv_norm_tgt": 0.05, "adv_loss": 1}
    )
    for part in (1, 2):
        update = (epoch - 1) * updates + part * updates // 2
        shared = {"num_updates": update, "nll_loss": nll + 0.2, "loss": nll + 1, "gnorm": 1 + 0.1 * part, "ups": ups}
        lines.append(
            line(
                "train_inner", epoch, {**shared, **adversarial, "wall": wall - 2 + part, "update": epoch - 1 + part / 2}
            )
        )
    end = {"num_updates": epoch * updates, "nll_loss": nll}
    lines.append(line("valid", epoch, {**end, "loss": nll + 0.5, "bleu": 20 - nll}))
    lines.append(line("train", epoch, {**end, "loss": nll + 0.7, "gnorm": 1.2, "wall": wall, **adversarial}))
    return lines


def write_run(
    folder: Path,
    method: str = "plain",
    seed: int = 1,
    nlls: tuple = (7.0, 6.0, 6.5),
    seconds: float = 10,
    eps: float = 0.1,
    score: Optional[Mapping[str, object]] = None,
) -> Path:
    """A run of len(nlls) epochs of *seconds* each; every second epoch of an adversarial method is a refresh epoch."""
    folder.mkdir(parents=True)
    criterion = "label_smoothed_cross_entropy" if method == "plain" else f"{method}_label_smoothed"
    lines = ["not a record", CONFIG % (seed, criterion, eps)]
    for epoch, nll in enumerate(nlls, start=1):
        lines += epoch_lines(epoch, nll, epoch * seconds, None if method == "plain" else float(epoch % 2 == 1))
    (folder / "train.log").write_text("\n".join(lines) + "\n")
    if score is not None:
        (folder / "score.json").write_text(json.dumps(score))
    return folder

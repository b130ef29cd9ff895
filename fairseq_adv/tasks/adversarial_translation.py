"""``--task adversarial_translation``: fairseq's translation task with what only a task can change.

- Batches are rebuilt for each epoch from (seed, epoch), so that a run that resumes inside an epoch sees
  exactly the batches that it would have seen.
- Data loading workers are not kept across epochs: a kept worker holds the data set of its first epoch.
"""

# No `from __future__ import annotations` here: fairseq reads the annotations as types.
from dataclasses import dataclass
from typing import Any

from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import open_dict


@dataclass
class AdversarialTranslationConfig(TranslationConfig):
    """Options of fairseq's translation task."""


@register_task("adversarial_translation", dataclass=AdversarialTranslationConfig)
class AdversarialTranslationTask(TranslationTask):
    """Translation with batches that survive a resume."""

    def __init__(self, cfg: AdversarialTranslationConfig, src_dict: Any, tgt_dict: Any) -> None:
        with open_dict(cfg):
            cfg.rebuild_batches = True
            cfg.reuse_dataloader = False
            cfg.persistent_workers = False
        super().__init__(cfg, src_dict, tgt_dict)

"""Repairs of fairseq 0.12 for current Python and torch, and the two calls around checkpoints that it lacks.

fairseq's repository is archived, so nothing of this will be mended upstream. :func:`apply` runs when the
plugin is imported, which ``--user-dir`` does while fairseq still parses its options. Each patch is one
small function in a module of this package; its docstring gives the reason.
"""

from __future__ import annotations

from typing import List

from fairseq_adv.compat import ahead, batches, checkpoints, ddp, groups, jobs, on_cpu, torchrun
from fairseq_adv.compat.patch import Patch

PATCHES: List[Patch] = [
    checkpoints.load_own_checkpoints,
    checkpoints.copy_checkpoints_whole,
    checkpoints.call_task_before_save,
    checkpoints.call_task_after_load,
    torchrun.train_one_job,
    torchrun.choose_device_by_local_rank,
    torchrun.wrap_cpu_models,
    torchrun.gather_lists_on_cpu,
    ddp.sync_again_after_an_exception,
    batches.keep_batches_on_resume,
    batches.tell_number_of_ranks,
    batches.resume_on_other_ranks,
    batches.leave_out_fillers,
    groups.keep_own_groups,
    ahead.tell_of_coming_batches,
    jobs.forget_earlier_trainings,
    on_cpu.ask_before_the_gpu,
]

__all__ = ["PATCHES", "Patch", "apply"]


def apply() -> None:
    """Apply every patch of :data:`PATCHES` that is not applied yet; raises ``ImportError`` without fairseq."""
    for patch in PATCHES:
        patch.apply()

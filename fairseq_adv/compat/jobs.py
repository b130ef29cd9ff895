"""Several trainings one after the other in one process, such as those of ``fairseq-hydra-train --multirun``."""

from __future__ import annotations

import sys
from typing import Any, Callable

from fairseq_adv.compat.patch import replaces


@replaces("fairseq.trainer.Trainer.__init__")
def forget_earlier_trainings(original: Callable[..., Any]) -> Callable[..., Any]:
    """A training knows nothing of those that the same process ran before it.

    Fairseq keeps the best validation score and the patience's count as attributes of functions, and TensorBoard's
    writers in a module. The next job of a sweep would write no ``checkpoint_best.pt`` until it beats all jobs before
    it, stop early by their scores, and log into the first one's TensorBoard folder. What a checkpoint holds of it
    is loaded after the trainer is built.
    """
    from fairseq import checkpoint_utils
    from fairseq.logging import progress_bar

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        train = sys.modules.get("fairseq_cli.train")
        for function in (checkpoint_utils.save_checkpoint, getattr(train, "should_stop_early", None)):
            for name in ("best", "num_runs"):
                getattr(function, "__dict__", {}).pop(name, None)
        for writer in progress_bar._tensorboard_writers.values():
            writer.close()
        progress_bar._tensorboard_writers.clear()
        original(self, *args, **kwargs)

    return init

"""Adversarial regularisation for machine translation and for fine-tuning sentence encoders, as a fairseq plugin.

``fairseq-train DATA --user-dir fairseq_adv …`` imports this package; since fairseq is loaded by
then, everything that the plugin offers is registered at once. In a program of your own import
fairseq first, or call :func:`register`; without fairseq the cache reader, the neighbour search and
the command line still work.
"""

from __future__ import annotations

import sys

from fairseq_adv.version import __version__

__all__ = ["__version__", "register"]


def register() -> None:
    """Repair fairseq where this Python and torch need it and register criterions, tasks, optimizers.

    Calling it again does nothing. Raises ``ImportError`` if fairseq is not installed.
    """
    from fairseq_adv import compat

    compat.apply()

    import fairseq_adv.criterions
    import fairseq_adv.models
    import fairseq_adv.optim
    import fairseq_adv.tasks  # noqa: F401


if "fairseq" in sys.modules:
    register()

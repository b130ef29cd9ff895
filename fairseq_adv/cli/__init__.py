"""The ``fairseq-adv`` command: one module for each sub-command, each with ``HELP``, ``add_arguments`` and ``run``."""

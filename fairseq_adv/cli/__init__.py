"""The ``fairseq-adv`` command: one module for each sub-command, listed in ``main``, which says what it must have."""

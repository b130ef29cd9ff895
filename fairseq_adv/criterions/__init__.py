"""Criterions of the plugin; importing this package registers them."""

from fairseq_adv.criterions import arch  # noqa: F401

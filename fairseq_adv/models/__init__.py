"""Architectures of the plugin; importing this package registers them."""

from fairseq_adv.models import adv_roberta  # noqa: F401

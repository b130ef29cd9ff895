"""Criterions of the plugin, one file each; importing this package registers them."""

from fairseq_adv.criterions import arch, conadv, disadv, freeat, freelb, plain, r3f, rdrop, scala, simcut, smart, vat  # noqa: F401

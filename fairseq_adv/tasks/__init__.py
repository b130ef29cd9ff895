"""Tasks of the plugin; importing this package registers them."""

from fairseq_adv.tasks import adversarial_sentence_prediction, adversarial_translation  # noqa: F401

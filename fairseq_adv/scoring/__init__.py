"""What a translation is worth: BLEU and chrF, the length penalty, significance, averaged checkpoints."""

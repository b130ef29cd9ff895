"""Encoders for sentence tasks: BERT and RoBERTa of transformers as checkpoints of fairseq, and text as their tokens."""

"""Labelled sentences and pairs of sentences: where they come from, and how they are cut into sets."""

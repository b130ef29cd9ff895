"""Typing errors: what each kind may do, how often, and that a seed decides them."""

from __future__ import annotations

import pytest

from fairseq_adv.probe.noisy_text import NOISES, changed_share, keyboard_neighbors, noisy_sentence, noisy_text

TEXT = ["The quick brown fox jumps over the lazy dog near Zürich", "a I word", ""] * 60


def test_neighbors_touch_on_a_keyboard() -> None:
    near = keyboard_neighbors()
    assert set(near["g"]) == set("ftyhbv")
    assert set(near["q"]) == set("wa") and set(near["p"]) == set("ol")
    assert all(letter in near[other] for letter, others in near.items() for other in others)


@pytest.mark.parametrize("kind", list(NOISES))
def test_no_noise_at_rate_zero_and_blanks_stay(kind: str) -> None:
    assert noisy_text(TEXT, kind, 0.0, seed=1) == TEXT
    for before, after in zip(TEXT, noisy_text(TEXT, kind, 1.0, seed=1)):
        assert after.count(" ") == before.count(" ")
        assert all(word for word in after.split(" ")) or not before


def test_each_kind_at_rate_one() -> None:
    assert noisy_sentence("abcd xyz", "swap", 1.0, 1, 0) == "badc yxz"
    assert noisy_sentence("abcd xyz", "drop", 1.0, 1, 0) == "a x"
    assert noisy_sentence("aBc Ü", "case", 1.0, 1, 0) == "AbC ü"
    typed = noisy_sentence("aBé", "keyboard", 1.0, 1, 0)
    assert typed[0] in "qwsz" and typed[1] in "VGHN" and typed[2] == "é"


@pytest.mark.parametrize("kind", list(NOISES))
def test_the_seed_and_the_place_decide(kind: str) -> None:
    once = noisy_text(TEXT, kind, 0.2, seed=1)
    assert once == noisy_text(TEXT, kind, 0.2, seed=1) != noisy_text(TEXT, kind, 0.2, seed=2)
    assert once[3] == noisy_sentence(TEXT[3], kind, 0.2, 1, 3)


def test_the_rate_is_the_share_of_letters() -> None:
    text = ["x" * 50] * 200
    flipped = noisy_text(text, "case", 0.1, seed=3)
    share = sum(line.count("X") for line in flipped) / (50 * 200)
    assert share == pytest.approx(0.1, abs=0.01)


def test_letters_hit_at_a_low_rate_are_hit_at_a_high_one() -> None:
    low, high = (noisy_sentence("abcdefghij" * 5, "case", rate, 1, 0) for rate in (0.1, 0.3))
    assert all(h.isupper() for lower, h in zip(low, high) if lower.isupper()) and low != high


def test_changed_share_counts_words() -> None:
    assert changed_share(["a b c d"], ["a x c y"]) == 0.5


@pytest.mark.parametrize(("kind", "rate"), [("swop", 0.1), ("swap", 1.5)])
def test_bad_values_are_named(kind: str, rate: float) -> None:
    with pytest.raises(ValueError, match="swop" if kind == "swop" else r"1\.5"):
        noisy_sentence("a", kind, rate, 1, 0)

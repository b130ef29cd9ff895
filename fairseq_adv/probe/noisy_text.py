"""Typing errors: swapped, dropped and mistyped letters and wrong case, at a rate, seeded by sentence."""

from __future__ import annotations

import random
from typing import Callable, Dict, List, Sequence

_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))  # and how far each is moved to the right


def keyboard_neighbors() -> Dict[str, str]:
    """Letter -> the letters whose keys touch its key on a QWERTY keyboard."""
    places = {
        letter: (column + shift, row) for row, (keys, shift) in enumerate(_ROWS) for column, letter in enumerate(keys)
    }
    return {
        letter: "".join(
            other for other, (u, v) in places.items() if other != letter and abs(u - x) <= 1.0 and abs(v - y) <= 1
        )
        for letter, (x, y) in places.items()
    }


_NEIGHBORS = keyboard_neighbors()


def swap_letters(word: str, hit: Callable[[], bool], rng: random.Random) -> str:
    """Exchange a letter with the next one; no letter moves twice."""
    letters, place = list(word), 0
    while place < len(letters) - 1:
        if hit():
            letters[place], letters[place + 1] = letters[place + 1], letters[place]
            place += 1
        place += 1
    return "".join(letters)


def drop_letters(word: str, hit: Callable[[], bool], rng: random.Random) -> str:
    """Leave letters out; a word keeps its first one, so that none disappears."""
    return word[:1] + "".join(letter for letter in word[1:] if not hit())


def mistype_letters(word: str, hit: Callable[[], bool], rng: random.Random) -> str:
    """Put a neighbour on the keyboard in a letter's place; what is not on a QWERTY keyboard stays."""

    def typed(letter: str) -> str:
        near = _NEIGHBORS.get(letter.lower(), "")
        if not hit() or not near:
            return letter
        wrong = rng.choice(near)
        return wrong.upper() if letter.isupper() else wrong

    return "".join(typed(letter) for letter in word)


def flip_case(word: str, hit: Callable[[], bool], rng: random.Random) -> str:
    """Small letters for capitals and the reverse."""
    return "".join(letter.swapcase() if hit() else letter for letter in word)


NOISES: Dict[str, Callable[[str, Callable[[], bool], random.Random], str]] = {
    "swap": swap_letters,
    "drop": drop_letters,
    "keyboard": mistype_letters,
    "case": flip_case,
}


def noisy_sentence(sentence: str, kind: str, rate: float, seed: int, index: int) -> str:
    """*sentence* with noise of *kind* at each letter with probability *rate*; blanks stay.

    The errors depend on (seed, kind, index) and not on what was done to other sentences; a letter that is hit at one
    rate is hit at every higher one too, except behind a swap, which takes two letters at once.
    """
    if kind not in NOISES:
        raise ValueError(f"unknown noise {kind!r}: choose among {', '.join(NOISES)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate of noise must be in [0, 1], got {rate}")
    hits, choices = random.Random(f"hits {seed} {kind} {index}"), random.Random(f"choices {seed} {kind} {index}")
    return " ".join(NOISES[kind](word, lambda: hits.random() < rate, choices) for word in sentence.split(" "))


def noisy_text(sentences: Sequence[str], kind: str, rate: float, seed: int) -> List[str]:
    """:func:`noisy_sentence` for each sentence, by its place."""
    return [noisy_sentence(sentence, kind, rate, seed, index) for index, sentence in enumerate(sentences)]


def changed_share(before: Sequence[str], after: Sequence[str]) -> float:
    """The share of words that noise changed."""
    pairs = [pair for a, b in zip(before, after) for pair in zip(a.split(" "), b.split(" "))]
    return sum(a != b for a, b in pairs) / max(1, len(pairs))

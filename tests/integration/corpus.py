"""A tiny English-German corpus: real short sentences from a small grammar, 1 to 20 tokens, always the same.

The German side inverts the verb after a fronted adverb and puts it last in a subordinate clause, so that
the two sides differ in order and in length.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Dict, List, Tuple

Pair = Tuple[str, str]

GREETINGS: List[Pair] = [
    ("yes", "ja"),
    ("no", "nein"),
    ("thanks", "danke"),
    ("good morning", "guten Morgen"),
    ("good night", "gute Nacht"),
    ("see you tomorrow", "bis morgen"),
    ("wait here , please", "bitte warten Sie hier"),
    ("what time is it ?", "wie spät ist es ?"),
    ("where is the station ?", "wo ist der Bahnhof ?"),
    ("I do not know", "ich weiß es nicht"),
]
SUBJECTS: List[Pair] = [
    ("the doctor", "der Arzt"),
    ("the young teacher", "die junge Lehrerin"),
    ("the child", "das Kind"),
    ("my sister", "meine Schwester"),
    ("our old neighbour", "unser alter Nachbar"),
    ("nobody", "niemand"),
]
# verb of the third person, with what it goes with
ACTIONS: List[Tuple[Pair, List[Pair]]] = [
    (
        ("reads", "liest"),
        [("a letter", "einen Brief"), ("the long report", "den langen Bericht"), ("everything", "alles")],
    ),
    (("buys", "kauft"), [("two apples", "zwei Äpfel"), ("the red car", "das rote Auto"), ("bread", "Brot")]),
    (("knows", "kennt"), [("the way", "den Weg"), ("the new song", "das neue Lied"), ("this city", "diese Stadt")]),
    (("sees", "sieht"), [("the moon", "den Mond"), ("a small dog", "einen kleinen Hund"), ("the stars", "die Sterne")]),
]
TIMES: List[Pair] = [("today", "heute"), ("in the evening", "am Abend"), ("sometimes", "manchmal")]
REASONS: List[Pair] = [
    ("because the train is late", "weil der Zug zu spät kommt"),
    ("because it is raining again", "weil es schon wieder regnet"),
    ("although the shop is closed", "obwohl das Geschäft geschlossen ist"),
]
SIZES = {"train": 160, "valid": 24, "test": 16}


def _clause(rng: random.Random) -> Pair:
    """One main clause; a fronted adverb inverts subject and verb in German."""
    subject, (verb, objects) = rng.choice(SUBJECTS), rng.choice(ACTIONS)
    thing = rng.choice(objects)
    if rng.random() < 0.5:
        return f"{subject[0]} {verb[0]} {thing[0]}", f"{subject[1]} {verb[1]} {thing[1]}"
    time = rng.choice(TIMES)
    return f"{time[0]} {subject[0]} {verb[0]} {thing[0]}", f"{time[1]} {verb[1]} {subject[1]} {thing[1]}"


def _sentence(rng: random.Random) -> Pair:
    """One to two clauses, with or without a reason, ended by a full stop."""
    english, german = _clause(rng)
    if rng.random() < 0.3:
        more = _clause(rng)
        english, german = f"{english} and {more[0]}", f"{german} und {more[1]}"
    if rng.random() < 0.4:
        reason = rng.choice(REASONS)
        english, german = f"{english} {reason[0]}", f"{german} , {reason[1]}"
    return f"{english} .", f"{german} ."


def sentence_pairs(seed: int = 1) -> Dict[str, List[Pair]]:
    """Split -> sentence pairs, no pair twice in all; each split has a one-token sentence and a long one."""
    rng = random.Random(seed)
    unique = dict.fromkeys(GREETINGS[3:])
    while len(unique) < sum(SIZES.values()) - 3:
        pair = _sentence(rng)
        if max(len(side.split()) for side in pair) <= 20:
            unique.setdefault(pair)
    rest = list(unique)
    rng.shuffle(rest)
    splits = {}
    for (split, size), one_token in zip(SIZES.items(), GREETINGS):
        splits[split] = [one_token, *(rest.pop() for _ in range(size - 1))]
        rng.shuffle(splits[split])
    return splits


def write_text(directory: Path, seed: int = 1) -> None:
    """Write ``train.en``, ``train.de``, ``valid.en``, … into *directory*."""
    for split, pairs in sentence_pairs(seed).items():
        for column, language in enumerate(("en", "de")):
            text = "".join(f"{pair[column]}\n" for pair in pairs)
            (directory / f"{split}.{language}").write_text(text, encoding="utf-8")


def binarise(directory: Path, seed: int = 1) -> Path:
    """Write the text into *directory*/text and return *directory*/bin, made by fairseq-preprocess: one dictionary."""
    from fairseq import options
    from fairseq_cli import preprocess

    text, data = directory / "text", directory / "bin"
    text.mkdir(parents=True)
    write_text(text, seed)
    words = ["--source-lang", "en", "--target-lang", "de", "--joined-dictionary", "--destdir", str(data)]
    for name, option in (("train", "--trainpref"), ("valid", "--validpref"), ("test", "--testpref")):
        words += [option, str(text / name)]
    preprocess.main(options.get_preprocessing_parser().parse_args(words))
    return data

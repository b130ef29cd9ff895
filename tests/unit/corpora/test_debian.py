"""Package descriptions as a corpus: what a pair is, and that nothing of the held-out sets was in training."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import pytest

from fairseq_adv.corpora import debian, debian_archive
from fairseq_adv.corpora.debian_split import distinct, split, template
from fairseq_adv.corpora.debian_text import DescribedPair, aligned, described_pairs, paragraphs, sentences

Description = Tuple[str, str, str]  # package, English, German


def stanza(package: str, english: str, field: str, text: str) -> str:
    checksum = hashlib.md5(english.encode()).hexdigest()
    return f"Package: {package}\nDescription-md5: {checksum}\n{field}: {text}\n"


def write_indexes(folder: Path, descriptions: Sequence[Description], sources: Dict[str, str]) -> Path:
    """The three indexes of an archive; *sources* says which packages have a source of another name."""
    folder.mkdir(parents=True, exist_ok=True)
    english = [stanza(name, text, "Description-en", text) for name, text, _ in descriptions]
    german = [stanza(name, text, "Description-de", other) for name, text, other in descriptions]
    packages = [
        f"Package: {name}\n" + (f"Source: {sources[name]} (1.0-1)\n" if name in sources else "") + "Version: 1.0-2\n"
        for name, _, _ in descriptions
    ]
    (folder / "Translation-en").write_text("\n".join(english))
    (folder / "archive_dists_stable_main_i18n_Translation-de.gz").write_bytes(gzip.compress("\n".join(german).encode()))
    (folder / "archive_dists_stable_main_binary-amd64_Packages").write_text("\n".join(packages))
    return folder


def test_paragraphs_end_at_dots_and_begin_at_bullets() -> None:
    head = "small editor for text\n It is written\n in C.\n .\n Features:\n"
    description = head + "  * colours, with\n    themes\n  * undo\n .\n .\n The end."
    assert paragraphs(description) == [
        "small editor for text",
        "It is written in C.",
        "Features:",
        "colours, with themes",
        "undo",
        "The end.",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is small. It is fast! Is it? Yes.", ["It is small.", "It is fast!", "Is it?", "Yes."]),
        ("Reads formats, e.g. PNG, of J. Doe. 3 are new.", ["Reads formats, e.g. PNG, of J. Doe.", "3 are new."]),
        ("Das ist z. B. Text, bzw. Bild usw. Und mehr.", ["Das ist z. B. Text, bzw. Bild usw. Und mehr."]),
        ("version 1.2 is out. but small letters go on.", ["version 1.2 is out. but small letters go on."]),
        ('He says "maybe." Then yes.', ['He says "maybe."', "Then yes."]),
    ],
)
def test_sentences(text: str, expected: List[str]) -> None:
    assert sentences(text) == expected


def test_a_paragraph_with_another_number_of_sentences_stays_whole() -> None:
    english = "an editor\n One here. Two here.\n .\n Three. Four."
    german = "ein Editor\n Eins hier und zwei hier.\n .\n Drei. Vier."
    assert list(aligned(english, german)) == [
        ("an editor", "ein Editor"),
        ("One here. Two here.", "Eins hier und zwei hier."),
        ("Three.", "Drei."),
        ("Four.", "Vier."),
    ]
    assert list(aligned(english, "ein Editor\n Nur ein Absatz.")) == []


def test_translations_are_joined_to_the_text_that_they_translate() -> None:
    old, new = "a small editor of text\n Old words.", "a small editor of text\n New words are here."
    english = stanza("editor", new, "Description-en", new)
    german = [
        stanza("editor", old, "Description-de", "ein kleiner Texteditor\n Alte Worte."),  # of a text that is gone
        stanza("editor", new, "Description-de", "ein kleiner Texteditor\n <trans>"),
    ]
    dropped: Counter[str] = Counter()
    pairs = list(described_pairs(english, "\n".join(german), "de", dropped))
    assert pairs == [DescribedPair("editor", "a small editor of text", "ein kleiner Texteditor")]
    assert dropped == {
        "descriptions without their original": 1,
        "descriptions with other paragraphs than their original": 0,
        "pairs: not translated": 1,
    }


def test_templates_mask_names_versions_and_numbers() -> None:
    one = template("This package contains version 2.4 of the libfoo-dev files for GNOME Shell.", "en", {"libfoo-dev"})
    assert one == "this package contains version # of the # files for #"
    assert one == template("This package contains version 10 of the bar files for LaTeX.", "en", {"bar"})
    assert template("Dieses Paket enthält die Dateien von libfoo2.", "de") == "dieses paket enthält die dateien von #"


def corpus_text(drawn: random.Random, packages: int) -> List[Description]:
    """Descriptions with text of their own, with sentences of their source's, and with templates of all."""
    words = ("reads", "writes", "text", "images", "sound", "quickly", "slowly", "without", "errors", "many", "network")

    def sentence(subject: str) -> str:
        return f"{subject} {' '.join(drawn.choices(words, k=9))}."

    found = []
    for number in range(packages):
        name, source = f"tool{number}", f"tool{number - number % 3}"
        shared = f"All programs of the {source} family share these very same words here."
        text = [shared, sentence(name), "MANY packages say just this!", *map(sentence, ("it", "this", "everything"))]
        english = [f"Documentation for the {name} program", *(f" {line}" for line in text)]
        german = [line[0].strip() + line[1:] for line in english]
        found.append((name, "\n .\n".join(english), "\n .\n".join(f" de {line}" for line in german).strip()))
    return found


def test_no_held_out_sentence_template_or_source_is_in_training(tmp_path: Path) -> None:
    descriptions = corpus_text(random.Random(3), 90)
    sources = {f"tool{number}": f"tool{number - number % 3}" for number in range(90)}
    folder = write_indexes(tmp_path / "indexes", descriptions, sources)
    subsets, counts = debian.build(folder, debian.Request("de", valid=40, test=40, seed=5))
    assert len(subsets["valid"]) == len(subsets["test"]) == 40 and len(subsets["train"]) > 100

    def plain(text: str) -> str:  # an independent, cruder mask: every word with a digit
        return " ".join("#" if re.search(r"\d", word) else re.sub(r"\W", "", word).lower() for word in text.split())

    def origin(pair: Tuple[str, str]) -> set[str]:
        if "many packages" in pair[0].lower():  # of all, and kept for the first of them
            return set()
        return {sources[name] for name, english, _ in descriptions if pair[0] in re.sub(r"\s+", " ", english)}

    rest = {"test": ("train", "valid"), "valid": ("train", "test")}
    for held_out, others in rest.items():
        for side in (0, 1):
            elsewhere = {plain(pair[side]) for name in others for pair in subsets[name]}
            assert not elsewhere & {plain(pair[side]) for pair in subsets[held_out]}
        sources_elsewhere = set().union(*(origin(pair) for name in others for pair in subsets[name]))
        assert not sources_elsewhere & set().union(*(origin(pair) for pair in subsets[held_out]))
    everything = [pair for pairs in subsets.values() for pair in pairs]
    assert len({plain(pair[0]) for pair in everything if "#" not in plain(pair[0])}) >= 250  # most was kept
    assert sum("many packages say just this" in pair[0].lower() for pair in everything) <= 1
    assert counts["pairs: a sentence that was there before"] >= 89 + 60


def test_training_is_cut_without_touching_what_is_held_out(tmp_path: Path) -> None:
    folder = write_indexes(tmp_path / "indexes", corpus_text(random.Random(3), 90), {})
    whole, _ = debian.build(folder, debian.Request("de", 20, 20))
    part, _ = debian.build(folder, debian.Request("de", 20, 20, train=50))
    other, _ = debian.build(folder, debian.Request("de", 20, 20, seed=2))
    assert part == {**whole, "train": whole["train"][:50]} and other["test"] != whole["test"]
    with pytest.raises(ValueError, match="too few for 2000 in test without leakage"):
        debian.build(folder, debian.Request("de"))


def test_a_large_source_package_stays_in_training() -> None:
    pairs = [DescribedPair("large", f"word {i:b} of large text", f"Wort {i:b} des Textes") for i in range(50)]
    pairs += [DescribedPair(f"p{a}", f"{a}{a} is one word", f"Wort {a}x") for a in "abcdefghijklmnopqrstuvwxyz"]
    subsets = split(distinct(pairs, Counter()), {}, ("en", "de"), {"test": 20}, 1, Counter())
    assert not [pair for pair in subsets["test"] if "large" in pair[0]] and len(subsets["test"]) == 20


def test_the_folder_holds_lines_and_an_account(tmp_path: Path) -> None:
    folder = write_indexes(tmp_path / "indexes", corpus_text(random.Random(3), 90), {})
    account = debian.corpus(folder, debian.Request("de", 20, 20, 1, 50), tmp_path / "plain")
    assert account[0].startswith("train 50, test 20, valid 20 pairs; ")
    record = json.loads((tmp_path / "plain/corpus.json").read_text())
    assert record["subsets"] == {"train": 50, "test": 20, "valid": 20} and record["counts"]["pairs"] > 400
    for language in ("en", "de"):
        assert len((tmp_path / f"plain/test.{language}").read_text().splitlines()) == 20


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_indexes(tmp_path / "indexes", corpus_text(random.Random(3), 9), {})
    with pytest.raises(ValueError, match="no package descriptions in 'fr'; it has de, en"):
        debian.build(folder, debian.Request("fr", 2, 2))
    (folder / "archive_dists_stable_main_binary-amd64_Packages").unlink()
    with pytest.raises(ValueError, match="no file Packages: it tells which packages are of one source"):
        debian.build(folder, debian.Request("de", 2, 2))
    monkeypatch.setattr(debian_archive.shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match="give --translations DIR"):
        debian.indexes("de", tmp_path / "download")
    assert not (tmp_path / "download").exists() or not list((tmp_path / "download").iterdir())

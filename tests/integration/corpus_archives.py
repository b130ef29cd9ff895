"""Archives with exactly the layout of the published corpora, filled with a few hundred real sentences.

The English side are commands to a house, the other side is German whatever the language is called: what is tested is
the way from an archive to a score.
"""

from __future__ import annotations

import html
import io
import itertools
import tarfile
from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple

from tests.integration.ui_strings import PLACES, THINGS, VERBS

Pair = Tuple[str, str]
Files = Dict[str, str]


def sentence_pairs() -> List[Pair]:
    """Nine hundred (English, other) pairs, mixed; the first hundred are for test sets."""
    pairs = [
        (
            f"{verb[0]} {thing[0]} {place[0]}.".replace("{entity_name}", 'it\'s "X" & Y'),
            f"{verb[1]} {thing[1]} {place[1]} {verb[2]}.".replace("{entity_name}", "»X« & Y"),
        )
        for verb, thing, place in itertools.product(VERBS, THINGS, PLACES)
    ]
    return [pairs[(7 * number) % len(pairs)] for number in range(len(pairs))]  # 7 and 900 have no common factor


def write_tar(path: Path, files: Files) -> Path:
    """A gzipped tar of *files*, with entries for the folders as in WIT3's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for folder in sorted({str(Path(name).parent) for name in files} - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, text in files.items():
            content = text.encode("utf-8")
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def train_tags(sentences: Sequence[str]) -> str:
    """Talks with metadata around them, as in WIT3's ``train.tags.*``."""
    lines = []
    for talk, start in enumerate(range(0, len(sentences), 100)):
        lines += [
            f"<url>http://www.ted.com/talks/talk_{talk}.html</url>",
            "<keywords>home,light,technology</keywords>",
            "<speaker>Somebody</speaker>",
            f"<talkid>{talk}</talkid>",
            f"<title>{html.escape(sentences[start], quote=False)}</title>",
            f"<description>TED Talk: {html.escape(sentences[start], quote=False)}</description>",
            *(f" {html.escape(sentence, quote=False)} " for sentence in sentences[start : start + 100]),
            '<reviewer href="http://www.ted.com/profiles/1"></reviewer>',
        ]
    return "\n".join(lines) + "\n"


def xml_set(sentences: Sequence[str], language: str) -> str:
    """WIT3's development and test sets."""
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<mteval>\n<refset setid="iwslt" trglang="{language}">\n'
    head += '<doc docid="69" genre="lectures">\n<url>http://www.ted.com/talks/t.html</url>\n<talkid>69</talkid>\n'
    body = "".join(
        f'<seg id="{number}"> {html.escape(sentence, quote=False)} </seg>\n'
        for number, sentence in enumerate(sentences, 1)
    )
    return f"{head}<title>Title</title>\n{body}</doc>\n</refset>\n</mteval>\n"


def sgm_set(sentences: Sequence[str], language: str) -> str:
    """WMT's test sets."""
    body = "".join(
        f'<seg id="{number}">{html.escape(sentence, quote=False)}</seg>\n'
        for number, sentence in enumerate(sentences, 1)
    )
    return (
        f'<refset setid="newstest2014" srclang="any" trglang="{language}">\n<doc sysid="ref" docid="d" genre="news">\n'
        f"<p>\n{body}</p>\n</doc>\n</refset>\n"
    )


def wit3(pair: str, sets: Sequence[str], size: int) -> Files:
    """*size* training pairs, and twelve in each of *sets* (names such as ``IWSLT14.TED.dev2010``)."""
    one, other = pair.split("-")
    columns = {"en": 0, (other if one == "en" else one): 1}
    test, train = sentence_pairs()[:100], sentence_pairs()[100 : 100 + size]
    files = {f"{pair}/README": "about the files\n"}
    for language, column in columns.items():
        files[f"{pair}/train.tags.{pair}.{language}"] = train_tags([row[column] for row in train])
        for number, name in enumerate(sets):
            rows = [row[column] for row in test[12 * number : 12 * number + 12]]
            files[f"{pair}/{name}.{pair}.{language}.xml"] = xml_set(rows, language)
    return files


def iwslt14(mirror: Path, size: int = 300) -> None:
    sets = [f"IWSLT14.{name}" for name in ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")]
    write_tar(mirror / "de-en.tgz", wit3("de-en", sets, size))


def iwslt16(mirror: Path, size: int = 300) -> None:
    sets = [f"IWSLT16.TED.{name}" for name in ("dev2010", "tst2010", "tst2011", "tst2012", "tst2013", "tst2014")]
    write_tar(mirror / "en-fr.tgz", wit3("en-fr", sets, size))


def as_tokens(sentence: str) -> str:
    """Roughly Moses's tokens with its escapes, as the Stanford files have them."""
    sentence = sentence.replace("&", "&amp;").replace("'s", " &apos;s").replace('"', " &quot; ").replace(".", " .")
    return " ".join(sentence.split())


def iwslt15(mirror: Path, size: int = 300) -> None:
    pairs = sentence_pairs()
    mirror.mkdir(parents=True, exist_ok=True)
    for name, rows in {"train": pairs[100 : 100 + size], "tst2012": pairs[:30], "tst2013": pairs[30:60]}.items():
        for column, language in enumerate(("en", "vi")):
            text = "".join(as_tokens(row[column]) + "\n" for row in rows)
            (mirror / f"{name}.{language}").write_text(text, encoding="utf-8")


def wmt16(mirror: Path, size: int = 300) -> None:
    pairs = sentence_pairs()
    train, third = pairs[100 : 100 + size], size // 3
    parts: Dict[str, Files] = {"europarl": {}, "commoncrawl": {}, "news": {}, "dev": {}, "test": {}}
    lines: Callable[[Sequence[Pair], int], str] = lambda rows, column: "".join(row[column] + "\n" for row in rows)  # noqa: E731
    for column, language in enumerate(("en", "de")):
        kind = "src" if language == "en" else "ref"
        parts["europarl"][f"europarl-v7.de-en.{language}"] = lines(train[:third], column)
        parts["commoncrawl"][f"commoncrawl.de-en.{language}"] = lines(train[third : 2 * third], column)
        name = f"training-parallel-nc-v11/news-commentary-v11.de-en.{language}"
        parts["news"][name] = lines(train[2 * third :], column)
        parts["dev"][f"dev/newstest2013.{language}"] = lines(pairs[:30], column)
        rows = [row[column] for row in pairs[30:60]]
        parts["test"][f"test-full/newstest2014-deen-{kind}.{language}.sgm"] = sgm_set(rows, language)
    parts["commoncrawl"]["commoncrawl.fr-en.fr"] = "pas pour nous\n"
    names = {"europarl": "de-en.tgz", "commoncrawl": "training-parallel-commoncrawl.tgz"}
    names.update(news="training-parallel-nc-v11.tgz", dev="dev.tgz", test="test-full.tgz")
    for part, files in parts.items():
        write_tar(mirror / names[part], files)

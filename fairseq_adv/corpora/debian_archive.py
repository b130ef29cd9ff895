"""The indexes of a Debian or Ubuntu archive that hold package descriptions, fetched by apt's own client.

apt verifies what it fetches by the archive's signature and the checksums in it. It runs as any user: its state lies in
a folder of its own, and nothing of the system's is read but where the archive is (``/etc/apt``).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Sequence

from fairseq_adv.whole_files import whole_folder

APT_HELPER = "/usr/lib/apt/apt-helper"
Stanza = Dict[str, str]

_OPENERS: Dict[str, Callable[..., object]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_LISTED_LANGUAGE = re.compile(r"i18n/Translation-([A-Za-z_]+)")


def stanzas(text: str, fields: Sequence[str]) -> Iterator[Stanza]:
    """The *fields* of each stanza of a control file; lines that go on stay as they are, with their first blank."""
    for block in re.split(r"\n{2,}", text):
        stanza: Stanza = {}
        name = ""
        for line in block.split("\n"):
            if line.startswith((" ", "\t")):
                if name in fields:
                    stanza[name] += "\n" + line
                continue
            name, separator, value = line.partition(":")
            if separator and name in fields:
                stanza[name] = value.strip()
        if stanza:
            yield stanza


def fetch_indexes(languages: Sequence[str], output: Path) -> None:
    """Make the folder *output* with ``Translation-LANG`` for each language, and ``Packages``, with apt's client.

    Of ``Packages`` the fields Package and Source are kept. Raises ``ValueError`` where there is no apt, where its
    update fails, and for a language that the archive does not have.
    """
    if shutil.which("apt-get") is None or not Path(APT_HELPER).is_file():
        raise ValueError(
            f"apt-get and {APT_HELPER} fetch this text, and here they are not: run this on Debian or Ubuntu, or give "
            "--translations DIR with Packages and Translation-LANG of an archive"
        )
    with tempfile.TemporaryDirectory(prefix="fairseq-adv-apt-") as state, whole_folder(output) as partial:
        environment = {**os.environ, "APT_CONFIG": str(_configuration(Path(state))), "LC_ALL": "C"}
        _update(languages, environment)
        for language in languages:
            files = _targets("Translations", [language], environment)
            if not files:
                raise ValueError(_no_such_language(language, _listed_languages(Path(state))))
            (partial / f"Translation-{language}").write_text(_contents(files, environment), encoding="utf-8")
        packages = _contents(_targets("Packages", languages, environment), environment)
        (partial / "Packages").write_text(_without_details(packages), encoding="utf-8")


def read_index(folder: Path, name: str) -> str:
    """The text of every file in *folder* whose name ends in *name* (and .gz, .xz or .bz2), one after the other.

    The names may be apt's own, such as ``…_dists_bookworm_main_i18n_Translation-de``. Raises ``ValueError`` if there is
    none.
    """
    pattern = re.compile(rf"(?:.*_)?{re.escape(name)}(?:\.gz|\.xz|\.bz2)?")
    files = sorted(path for path in folder.glob("*") if path.is_file() and pattern.fullmatch(path.name))
    if files:
        return "\n\n".join(_text(path) for path in files)
    if name.startswith("Translation-"):
        known = {match[1] for path in folder.glob("*") if (match := re.search(r"Translation-([A-Za-z_]+)", path.name))}
        raise ValueError(_no_such_language(name.partition("-")[2], known))
    raise ValueError(
        f"{folder} has no file {name}: it tells which packages are of one source and must not be split over subsets"
    )


def _text(path: Path) -> str:
    opener = _OPENERS.get(path.suffix)
    if opener is None:
        return path.read_text(encoding="utf-8", errors="replace")
    with opener(path, "rt", encoding="utf-8", errors="replace") as file:  # type: ignore[attr-defined]
        return file.read()


def _configuration(state: Path) -> Path:
    """A configuration file for apt that keeps all it writes below *state*."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True)
    path = state / "apt.conf"
    path.write_text(
        f'Dir::State "{state}/state/";\nDir::Cache "{state}/cache/";\nDir::State::status "/dev/null";\n'
        'APT::Sandbox::User "root";\n'  # no change of user: as root, the folder may be closed to apt's own user
    )
    return path


def _update(languages: Sequence[str], environment: Mapping[str, str]) -> None:
    command = ["apt-get", "update", "-o", f"Acquire::Languages={','.join(languages)}"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(
            f"{' '.join(command)} failed with status {done.returncode}: {done.stderr.strip()[-800:]}; "
            "without a way to the archive, give --translations DIR"
        )


def _targets(kind: str, languages: Sequence[str], environment: Mapping[str, str]) -> List[str]:
    """The files of the index targets of *kind*; apt names those of the *languages* that it is told of alone."""
    command = ["apt-get", "indextargets", "-o", f"Acquire::Languages={','.join(languages)}"]
    command += ["--format", "$(FILENAME)", f"Created-By: {kind}"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if name and Path(name).is_file()]


def _contents(files: Sequence[str], environment: Mapping[str, str]) -> str:
    """The text of index files, unpacked by apt, which knows in which way it packed them."""
    texts = []
    for name in files:
        done = subprocess.run([APT_HELPER, "cat-file", name], env=dict(environment), capture_output=True, check=True)
        texts.append(done.stdout.decode("utf-8", errors="replace"))
    return "\n\n".join(texts)


def _without_details(packages: str) -> str:
    kept = stanzas(packages, ("Package", "Source"))
    return "\n".join("".join(f"{name}: {value}\n" for name, value in stanza.items()) for stanza in kept)


def _listed_languages(state: Path) -> set[str]:
    """The languages that the archive's Release files list."""
    lists = (state / "state/lists").glob("*Release")
    return {name for path in lists for name in _LISTED_LANGUAGE.findall(path.read_text(errors="replace"))}


def _no_such_language(language: str, known: set[str]) -> str:
    return (
        f"this archive has no package descriptions in {language!r}; it has {', '.join(sorted(known)) or 'none at all'}"
    )

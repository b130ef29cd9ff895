"""Parallel text out of a wheel: what is kept, how it reads, and that nothing of the held-out sets is in training."""

from __future__ import annotations

import itertools
import json
import re
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.corpora import home_assistant as corpus

ENGLISH: Dict[str, Any] = {
    "abode": {
        "config": {
            "abort": {
                "reauth_successful": "Re-authentication was successful",
                "single": "Already configured. Only a single configuration possible.",
            },
            "error": {"cannot_connect": "Failed to connect", "invalid_mfa_code": "Invalid MFA code"},
            "step": {"user": {"title": "Fill in your Abode login information"}},
        },
        "services": {"capture_image": {"description": "Request a new image capture from a camera device."}},
    },
    "knx": {
        "closed": "{entity_name} is closed now",
        "docs": "See https://example.org for more details",
        "link": "Follow the [instructions]({more_info_url}) to **continue** the `setup`",
        "two": "The host is unknown.\n\nPlease check the address.",
        "same": "Home Assistant Cloud Backup",
        "mismatch": "Unknown error calling {domain} service",
        "reauth": "RE-AUTHENTICATION was  successful!",
        "short": "Password",
        "ratio": "It is",
    },
}
GERMAN: Dict[str, Any] = {
    "abode": {
        "config": {
            "abort": {
                "reauth_successful": "Die erneute Authentifizierung war erfolgreich",
                "single": "Bereits konfiguriert. Nur eine einzige Konfiguration möglich.",
            },
            "error": {"cannot_connect": "Verbindung fehlgeschlagen", "invalid_mfa_code": "Ungültiger MFA-Code"},
            "step": {"user": {"title": "Gib deine Abode Anmeldeinformationen ein"}},
        },
        "services": {"capture_image": {"description": "Anfordern einer neuen Bildaufnahme von einem Kameragerät."}},
    },
    "knx": {
        "closed": "{entity_name} ist jetzt geschlossen",
        "docs": "Siehe https://example.org für weitere Details",
        "link": "Folge den [Anweisungen]({more_info_url}), um die `Einrichtung` **fortzusetzen**",
        "two": "Der Host ist unbekannt.\n\nBitte überprüfe die Adresse.",
        "same": "Home Assistant Cloud Backup",
        "mismatch": "Unbekannter Fehler beim Aufruf von {service}",
        "reauth": "Neue Authentifizierung erfolgreich",
        "short": "Passwort",
        "ratio": "Das hier ist eine sehr viel längere Übersetzung",
    },
}


def write_wheel(path: Path, english: Dict, german: Dict) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for language, tables in (("en", english), ("de", german)):
            for component, tree in tables.items():
                name = f"homeassistant/components/{component}/translations/{language}.json"
                archive.writestr(name, json.dumps(tree, ensure_ascii=False))
        archive.writestr("homeassistant/components/abode/translations/sensor.en.json", "{}")
        archive.writestr("homeassistant/strings.json", '{"title": "not a translation"}')
    return path


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return write_wheel(tmp_path / "homeassistant-2024.3.3-py3-none-any.whl", ENGLISH, GERMAN)


def pairs_of(wheel: Path) -> List[Tuple[str, str]]:
    tables = corpus.read_translations(wheel, ("en", "de"))
    found = []
    for path, text in tables["en"].items():
        found += list(corpus.clean_pairs(text, tables["de"][path]))
    return found


def test_keeps_exactly_the_usable_strings(wheel: Path) -> None:
    assert sorted(corpus.distinct_pairs(pairs_of(wheel))) == sorted(
        [
            ("Already configured. Only a single configuration possible.", GERMAN["abode"]["config"]["abort"]["single"]),
            ("Fill in your Abode login information", "Gib deine Abode Anmeldeinformationen ein"),
            ("Request a new image capture from a camera device.",
             "Anfordern einer neuen Bildaufnahme von einem Kameragerät."),
            ("Failed to connect", "Verbindung fehlgeschlagen"),
            ("Invalid MFA code", "Ungültiger MFA-Code"),
            ("RE-AUTHENTICATION was successful!", "Neue Authentifizierung erfolgreich"),
            ("Follow the instructions to continue the setup",
             "Folge den Anweisungen, um die Einrichtung fortzusetzen"),
            ("X is closed now", "X ist jetzt geschlossen"),
            ("The host is unknown.", "Der Host ist unbekannt."),
            ("Please check the address.", "Bitte überprüfe die Adresse."),
        ]
    )  # fmt: skip


def test_link_text_survives_its_placeholder_address() -> None:
    assert list(
        corpus.clean_pairs("Follow the [manual](http://x.org) to go on", "Folge dem [Handbuch](http://x.org)")
    ) == [("Follow the manual to go on", "Folge dem Handbuch")]


def test_placeholders_agree_by_name_not_by_order() -> None:
    assert corpus.name_placeholders("{a} or {b}", "{b} oder {a}") == ("X or Y", "Y oder X")
    assert corpus.name_placeholders("{a} or b", "a oder b") is None


def brute_force_key(text: str) -> str:
    return re.sub(r"[\W]+", " ", text.lower().replace("ß", "ss")).strip()


def many_pairs(count: int) -> List[Tuple[str, str]]:
    """Real words in many combinations, with variants that differ in case, blanks and punctuation only."""
    verbs = [("Enable", "Aktiviere"), ("Disable", "Deaktiviere"), ("Restart", "Starte neu"), ("Check", "Prüfe")]
    things = [("the camera", "die Kamera"), ("the sensor", "den Sensor"), ("the light", "das Licht")]
    places = [("in the kitchen", "in der Küche"), ("outside", "draußen"), ("on floor {}", "in Etage {}")]
    combined = itertools.product(verbs, things, places, range(count))
    pairs = []
    for (verb, verb_de), (thing, thing_de), (place, place_de), number in combined:
        english, german = f"{verb} {thing} {place}".format(number), f"{verb_de} {thing_de} {place_de}".format(number)
        pairs += [(english, german), (english.upper() + "!", german), (english + " now", german + "  Jetzt.")]
    return pairs


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_held_out_sentences_are_never_in_training(seed: int) -> None:
    pairs = corpus.distinct_pairs(many_pairs(20))
    sets = corpus.split(pairs, train=150, held_out=40, seed=seed)
    assert {name: len(chosen) for name, chosen in sets.items()} == {"test": 40, "valid": 40, "train": 150}
    for one, other in itertools.combinations(sets, 2):
        for left, right in itertools.product(sets[one], sets[other]):
            assert brute_force_key(left[0]) != brute_force_key(right[0])
            assert brute_force_key(left[1]) != brute_force_key(right[1])


def test_the_split_depends_on_the_seed_alone() -> None:
    pairs = corpus.distinct_pairs(many_pairs(20))
    once, again = (corpus.split(order, 100, 30, seed=1) for order in (pairs, pairs[::-1]))
    assert once == again
    assert once["test"] != corpus.split(pairs, 100, 30, seed=2)["test"]
    assert once["test"] == corpus.split(pairs, 50, 30, seed=1)["test"]


def test_command_writes_aligned_files_and_the_facts_last(wheel: Path, tmp_path: Path) -> None:
    output = tmp_path / "raw"
    assert (
        main(["corpus", "home-assistant", str(wheel), "--pairs", "5", "--held-out", "2", "--output", str(output)]) == 0
    )
    told = json.loads((output / "corpus.json").read_text())
    assert told["counts"] == {"test": 2, "valid": 2, "train": 5}
    known = set(pairs_of(wheel))
    for subset, count in told["counts"].items():
        sides = [(output / f"{subset}.{language}").read_text().splitlines() for language in ("en", "de")]
        assert len(sides[0]) == count
        assert set(zip(*sides)) <= known
    assert not list(output.glob("*.partial"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pair", "en-xx"], "no translations for 'xx'"),
        (["--pairs", "500"], "only 10 distinct pairs"),
    ],
)
def test_bad_requests_say_what_is_there(
    wheel: Path, tmp_path: Path, arguments: List[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["corpus", "home-assistant", str(wheel), "--output", str(tmp_path / "raw"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "raw").exists()


def test_a_truncated_wheel_is_named(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    wheel.write_bytes(wheel.read_bytes()[:-60])
    assert main(["corpus", "home-assistant", str(wheel), "--output", str(tmp_path / "raw")]) == 2
    assert "is not a complete wheel" in capsys.readouterr().err

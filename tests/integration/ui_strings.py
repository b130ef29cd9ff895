"""A wheel with translations as Home Assistant's: some eight hundred short commands in English and German."""

from __future__ import annotations

import itertools
import json
import zipfile
from pathlib import Path
from typing import Dict

VERBS = [
    ("Turn on", "Schalte", "ein"), ("Turn off", "Schalte", "aus"), ("Restart", "Starte", "neu"),
    ("Set up", "Richte", "ein"), ("Rename", "Benenne", "um"), ("Show", "Zeige", "an"), ("Start", "Fahre", "hoch"),
    ("Shut down", "Fahre", "herunter"), ("Close", "Schließe", "ab"),
]  # fmt: skip
THINGS = [
    ("the camera", "die Kamera"), ("the sensor", "den Sensor"), ("the light", "das Licht"), ("the hub", "den Hub"),
    ("the heating", "die Heizung"), ("the speaker", "den Lautsprecher"), ("the display", "die Anzeige"),
    ("the socket", "die Steckdose"), ("the device", "das Gerät"), ("{entity_name}", "{entity_name}"),
]  # fmt: skip
PLACES = [
    ("in the kitchen", "in der Küche"), ("in the garden", "im Garten"), ("on the first floor", "im ersten Stock"),
    ("next to the door", "neben der Tür"), ("in the living room", "im Wohnzimmer"), ("outside", "draußen"),
    ("in the cellar", "im Keller"), ("in the office", "im Büro"), ("in the hallway", "im Flur"), ("upstairs", "oben"),
]  # fmt: skip


def write_wheel(folder: Path) -> Path:
    """``homeassistant-2024.3.3-py3-none-any.whl`` in *folder*, one component for each verb."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "homeassistant-2024.3.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for number, (verb, german_verb, prefix) in enumerate(VERBS):
            tables: Dict[str, Dict[str, str]] = {"en": {}, "de": {}}
            for key, (thing, place) in enumerate(itertools.product(THINGS, PLACES)):
                tables["en"][str(key)] = f"{verb} {thing[0]} {place[0]}."
                tables["de"][str(key)] = f"{german_verb} {thing[1]} {place[1]} {prefix}."
            for language, table in tables.items():
                name = f"homeassistant/components/part{number}/translations/{language}.json"
                archive.writestr(name, json.dumps({"services": table}))
    return path

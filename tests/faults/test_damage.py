"""Bytes of a cache that rot, are cut off or come on top: found, named, never used."""

from __future__ import annotations

import json
import os

import pytest

from fairseq_adv.cache import open_cache
from fairseq_adv.cache.verify import verify_generation
from tests.unit.cache import caches
from tests.unit.cache.caches import open_for_writing, reader_of, refresh

IDS = list(range(40))
pytestmark = pytest.mark.usefixtures("either_cache")


def shard_of(directory):
    return next(directory.glob("gen-*/w*.safetensors"))


def regions(path):
    """Name -> offset of a byte inside each tensor of a shard and inside its header."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    places = {name: end + sum(info["data_offsets"]) // 2 for name, info in header.items() if name != "__metadata__"}
    return {"length of header": 1, "header": end // 2, **places}


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_a_flipped_bit_anywhere_is_found_and_named(tmp_path, dtype):
    cache = open_for_writing(tmp_path, dtype)
    refresh(cache, IDS, 1)
    path = shard_of(tmp_path)
    good, places = path.read_bytes(), regions(path)
    columns = {f"{side}{part}" for side in caches.SIDES for part in ("", "_mean", "_off", "_crc", "_norm")}
    assert {"ids", *columns} <= set(places)
    for name, offset in places.items():
        data = bytearray(good)
        data[offset] ^= 0x10
        path.write_bytes(data)
        damaged = verify_generation(str(tmp_path), reader_of(cache).manifest)
        assert damaged and path.name in damaged[0], name
        is_record = name in ("src", "tgt") or name.endswith(("_mean", "_scale"))
        assert damaged[0].startswith("sample " if is_record else "shard "), name
        with pytest.raises(ValueError, match=r"w0000.*damaged"):
            reader = open_cache(tmp_path)
            for side in reader.sides:
                reader.read(reader.ids, side)
                reader.read_means(reader.ids, side)
    path.write_bytes(good)
    assert verify_generation(str(tmp_path), reader_of(cache).manifest) == []


def test_truncation_and_extension_before_and_after_opening(tmp_path):
    cache = open_for_writing(tmp_path)
    refresh(cache, IDS, 1)
    path = shard_of(tmp_path)
    good = path.read_bytes()
    for size in (0, 5, 100, len(good) // 2, len(good) - 1, len(good) + 1):
        path.write_bytes(good[:size] + b"x" * (size - len(good)))
        with pytest.raises(ValueError, match=f"shard .*{path.name} has {size} bytes"):
            open_cache(tmp_path)
        assert path.name in verify_generation(str(tmp_path), reader_of(cache).manifest)[0]
    path.write_bytes(good)
    reader = open_cache(tmp_path)
    os.truncate(path, len(good) // 2)
    with pytest.raises(ValueError, match=rf"{path.name}: the src record of sample \d+ is damaged .*truncated"):
        reader.read(reader.ids, "src")
        reader.read_means(reader.ids, "src")


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST.json", "SPEC.json"])
def test_damage_of_the_small_files_is_named(tmp_path, name):
    cache = open_for_writing(tmp_path)
    refresh(cache, IDS, 1)
    state = cache.state_dict()
    cache.close()
    path = next(tmp_path.rglob(name))
    good = path.read_bytes()
    for data in (good[:-5], bytes([good[0] ^ 1]) + good[1:], good.replace(b"1", b"2")):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name}.* damaged|another configuration"):
            if name == "CURRENT":
                open_cache(tmp_path)
            else:
                open_for_writing(tmp_path).load_state_dict(state)

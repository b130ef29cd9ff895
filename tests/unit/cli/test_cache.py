"""``fairseq-adv cache``: what it prints, its exit status for damage, and what it deletes."""

from __future__ import annotations

import json

import pytest
import torch

from fairseq_adv.cli.main import main
from tests.unit.cache.caches import open_for_writing, refresh

IDS = [4, 9, 16]


@pytest.fixture
def directory(tmp_path):
    cache = open_for_writing(tmp_path / "cache")
    for epoch in (1, 2):
        refresh(cache, IDS, epoch)
    cache.close()
    return tmp_path / "cache"


def run(capsys, *words):
    status = main(["cache", *map(str, words), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_info(directory, capsys):
    status, facts = run(capsys, "info", directory)
    assert status == 0 and facts["generation"] == 2 and facts["records"] == 3 and facts["refresh_epoch"] == 2
    assert facts["configuration"]["epsilon"] == 0.5 and len(facts["folders"]) == 2
    assert main(["cache", "info", str(directory)]) == 0
    assert "generation: 2\n" in capsys.readouterr().out


def test_verify_names_the_damaged_sample(directory, capsys):
    assert run(capsys, "verify", directory)[1]["damaged"] == []
    current = json.loads((directory / "CURRENT").read_text())["name"]
    path = next((directory / current).glob("w*"))
    data = bytearray(path.read_bytes())
    header_end = 8 + int.from_bytes(data[:8], "little")
    _, end = json.loads(data[8:header_end])["tgt"]["data_offsets"]
    data[header_end + end - 1] ^= 1  # in the last record, that of sample 16
    path.write_bytes(data)
    status, facts = run(capsys, "verify", directory)
    assert status == 1 and len(facts["damaged"]) == 1 and facts["damaged"][0].startswith("sample 16, tgt: ")
    assert run(capsys, "verify", directory, "--generation", 1)[0] == 0
    path.write_bytes(data[:-10])
    status, facts = run(capsys, "verify", directory)
    assert status == 1 and "it holds 3 samples (as it says itself: 4, 9, 16)" in facts["damaged"][0]
    path.unlink()
    assert "is missing: 3 samples are lost" in run(capsys, "verify", directory)[1]["damaged"][0]


def test_gc_deletes_what_neither_current_nor_checkpoints_name(directory, capsys, tmp_path):
    names = sorted(path.name for path in directory.glob("gen-*"))
    kept = tmp_path / "kept.pt"
    torch.save({"extra_state": {"cache": {"committed": {"name": names[0]}}}}, kept)
    assert run(capsys, "gc", directory)[1]["superfluous"] == names[:1]
    assert run(capsys, "gc", directory, "--delete", "--keep-checkpoints", kept)[1]["superfluous"] == []
    assert (directory / names[0]).exists()
    assert run(capsys, "gc", directory, "--delete")[1]["deleted"]
    assert [path.name for path in directory.glob("gen-*")] == names[1:]


def test_gc_leaves_a_directory_in_use_alone(directory, capsys):
    (directory / "OWNER").write_text(json.dumps({"run_id": "x", "host": "elsewhere", "pid": 1, "token": "t"}))
    assert main(["cache", "gc", str(directory), "--delete"]) == 2
    assert "is in use by run x (process 1 on elsewhere)" in capsys.readouterr().err
    assert len(list(directory.glob("gen-*"))) == 2


def test_no_such_directory(tmp_path, capsys):
    assert main(["cache", "info", str(tmp_path / "none")]) == 2
    assert "is not a directory" in capsys.readouterr().err

"""Jobs that are killed in the middle of writing a cache, and jobs that meet another one at its directory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fairseq_adv.cache import open_cache
from tests.unit.cache import caches
from tests.unit.cache.caches import assert_same, contents, open_for_writing, refresh

ROOT = Path(__file__).resolve().parents[2]
IDS = list(range(40))
pytestmark = pytest.mark.usefixtures("either_cache")


KILLED = """
import os, signal, sys
from fairseq_adv.cache.files import Files
from tests.unit.cache import caches
from tests.unit.cache.caches import open_for_writing, put
import json
directory, method, number, state = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
caches.SIDES = sys.argv[5:]
cache = open_for_writing(directory)
cache.load_state_dict(state)
original, calls = getattr(Files, method), []
def deadly(self, *args):
    calls.append(args)
    if len(calls) - 1 == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args)
setattr(Files, method, deadly)
cache.begin_refresh(2)
put(cache, list(range(40)), 2)
cache.commit()
"""


@pytest.mark.parametrize(
    ("method", "number"), [("write", 0), ("rename", 0), ("write", 1), ("rename", 1), ("rename", 2), ("fsync", 5)]
)
def test_kill_in_a_seal_and_around_manifest_and_pointer(tmp_path, method, number):
    whole = open_for_writing(tmp_path / "whole")
    for epoch in (1, 2):
        refresh(whole, IDS, epoch)
    cache = open_for_writing(tmp_path / "cut")
    refresh(cache, IDS, 1)
    state, before = cache.state_dict(), contents(cache)
    cache.close()
    words = [sys.executable, "-c", KILLED, str(tmp_path / "cut"), method, str(number), json.dumps(state)]
    words += caches.SIDES
    died = subprocess.run(words, cwd=ROOT, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    again = open_for_writing(tmp_path / "cut")
    again.load_state_dict(state)
    assert_same(contents(again), before)
    refresh(again, IDS, 2)
    assert_same(contents(again), contents(whole))


HOLDER = """
import sys, time
from tests.unit.cache import caches
from tests.unit.cache.caches import open_for_writing
caches.SIDES = sys.argv[2:]
cache = open_for_writing(sys.argv[1], run_id="other")
print("ready", flush=True)
sys.stdin.readline()
try:
    cache.begin_refresh(1)
    cache.commit()
except OSError as error:
    print(error)
"""


def test_a_second_job_is_refused_and_after_a_takeover_the_first_is_fenced(tmp_path):
    words = [sys.executable, "-c", HOLDER, str(tmp_path), *caches.SIDES]
    with subprocess.Popen(words, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None and first.stdout.readline() == "ready\n"
        with pytest.raises(ValueError, match=rf"in use by run other \(process {first.pid} on .*--cache-takeover"):
            open_for_writing(tmp_path)
        second = open_for_writing(tmp_path, takeover=True)
        refresh(second, IDS, 1)
        want = contents(second)
        out, _ = first.communicate("go\n", timeout=30)
    assert "lost its cache directory" in out and "run run" in out
    assert_same(contents(open_cache(tmp_path)), want)


def test_the_directory_of_a_dead_job_is_free(tmp_path):
    words = [sys.executable, "-c", HOLDER, str(tmp_path), *caches.SIDES]
    with subprocess.Popen(words, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None and first.stdout.readline() == "ready\n"
        first.kill()
    assert (tmp_path / "OWNER").exists()
    refresh(open_for_writing(tmp_path), IDS, 1)

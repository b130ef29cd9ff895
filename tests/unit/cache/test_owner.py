"""``OWNER``: one of several runs that find a dead owner's file gets the directory."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import threading

import pytest

from fairseq_adv.cache import owner as owner_module
from fairseq_adv.cache.files import Files
from fairseq_adv.cache.owner import OWNER, OwnerLock, read_holder


@pytest.fixture
def dead_owner(tmp_path):
    """A directory whose owner's process has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    holder = {"run_id": "dead", "host": socket.gethostname(), "pid": process.pid, "token": "old"}
    (tmp_path / OWNER).write_text(json.dumps(holder))
    return str(tmp_path)


def without_links(self, source, target):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("links", [True, False] * 5)
def test_of_two_runs_one_succeeds_a_dead_owner(dead_owner, monkeypatch, links):
    """Both have read the dead owner's file before either replaces it; threads stand for runs, so a pid is alive."""
    if not links:
        monkeypatch.setattr(Files, "link", without_links)
    both_have_read, read = threading.Barrier(2), owner_module._parsed
    locks, refused = [], []

    def parsed(content):
        if content is not None and b'"dead"' in content and not both_have_read.broken:
            both_have_read.wait(10)
        return read(content)

    monkeypatch.setattr(owner_module, "_parsed", parsed)
    monkeypatch.setattr(owner_module, "is_alive", lambda holder, run_id="": holder["run_id"] != "dead")

    def start(run_id):
        try:
            locks.append(OwnerLock(dead_owner, run_id, takeover=False))
        except ValueError as error:
            refused.append(str(error))

    runs = [threading.Thread(target=start, args=(name,)) for name in "ab"]
    for run in runs:
        run.start()
    for run in runs:
        run.join(20)
    assert len(locks) == 1 and len(refused) == 1
    locks[0].check()
    holder = read_holder(dead_owner)
    assert holder is not None and f"in use by run {holder['run_id']} " in refused[0]
    assert os.listdir(dead_owner) == [OWNER]
    locks[0].release()
    assert os.listdir(dead_owner) == []


def test_a_torn_file_is_nobodys(tmp_path):
    (tmp_path / OWNER).write_bytes(b'{"run_id": "x", "ho')
    lock = OwnerLock(str(tmp_path), "run", takeover=False)
    lock.check()
    lock.release()


def test_a_number_that_another_process_has_now_is_a_dead_owner(tmp_path):
    holder = {"run_id": "x", "host": socket.gethostname(), "pid": os.getppid(), "started": "boot:1", "token": "old"}
    (tmp_path / OWNER).write_text(json.dumps(holder))
    OwnerLock(str(tmp_path), "run", takeover=False).release()
    (tmp_path / OWNER).write_text(json.dumps({**holder, "started": owner_module._start_time(os.getppid())}))
    with pytest.raises(ValueError, match="in use by run x"):
        OwnerLock(str(tmp_path), "run", takeover=False)


def test_an_earlier_process_of_the_same_run_on_another_host_is_succeeded(tmp_path):
    (tmp_path / OWNER).write_text(json.dumps({"run_id": "run", "host": "elsewhere", "pid": 1, "token": "old"}))
    with pytest.raises(ValueError, match=r"in use by run run \(process 1 on elsewhere\)"):
        OwnerLock(str(tmp_path), "another", takeover=False)
    OwnerLock(str(tmp_path), "run", takeover=False).release()

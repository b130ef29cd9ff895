"""Downloads from a server on this machine that breaks connections, and files that are not what they were."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Iterator, List, Optional

import pytest

from fairseq_adv.cli.main import main
from fairseq_adv.corpora import fetching

CONTENT = bytes(range(256)) * 40


class Server(ThreadingHTTPServer):
    """Serves ``content`` under /file; ``cuts`` says after how many bytes each next answer breaks off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag = CONTENT, '"one"'  # type: bytes, Optional[str]
        self.cuts: List[int] = []
        self.ranges: List[Optional[str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        if not self.path.endswith("/file"):
            return self.send_error(404)
        begin = 0
        if asked and self.headers.get("If-Range") == server.tag:
            begin = int(asked[len("bytes=") : -1])
        if begin >= len(server.content):
            return self.send_error(416)
        self.send_response(206 if begin else 200)
        if server.tag:
            self.send_header("ETag", server.tag)
        self.send_header("Content-Length", str(len(server.content) - begin))
        self.end_headers()
        end = begin + server.cuts.pop(0) if server.cuts else len(server.content)
        self.wfile.write(server.content[begin:end])
        return None

    def log_message(self, *args: object) -> None:
        """No lines on stderr."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching.time, "sleep", lambda seconds: None)
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_broken_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 2500]
    path = fetching.fetch("file", [server.url], tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-", "bytes=3500-"]
    record = json.loads((tmp_path / "checksums.json").read_text())["file"]
    expected = {"size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest(), "source": server.url}
    assert record == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checksums.json", "file"]


def test_an_interrupted_run_is_resumed_by_the_next(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TRIES", 1)
    server.cuts = [4000]
    with pytest.raises(ValueError, match=r"ended after 4000 of 10240 bytes(.|\n)*run the same command again"):
        fetching.fetch("file", [server.url], tmp_path)
    assert not (tmp_path / "file").exists() and (tmp_path / "file.partial").stat().st_size == 4000
    assert fetching.fetch("file", [server.url], tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=4000-"]


@pytest.mark.parametrize("tag", ['"two"', None])
def test_a_file_that_changed_or_has_no_tag_begins_anew(
    server: Server, tmp_path: Path, tag: Optional[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cuts = [4000]
    if tag is None:
        server.tag = None

    def change(seconds: float) -> None:
        server.content, server.tag = CONTENT[::-1], tag

    monkeypatch.setattr(fetching.time, "sleep", change)  # between the two tries
    assert fetching.fetch("file", [server.url], tmp_path).read_bytes() == CONTENT[::-1]


def test_a_partial_file_longer_than_the_whole_begins_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.partial").write_bytes(CONTENT + b"more")
    (tmp_path / "file.partial.json").write_text(json.dumps({"url": server.url, "validator": server.tag}))
    assert fetching.fetch("file", [server.url], tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]


def test_the_next_address_is_tried_and_every_failure_told(server: Server, tmp_path: Path) -> None:
    gone = server.url.replace("/file", "/gone")
    assert fetching.fetch("file", [gone, server.url], tmp_path).read_bytes() == CONTENT
    with pytest.raises(ValueError) as caught:
        fetching.fetch("other", [gone, f"{gone}/too"], tmp_path)
    assert str(caught.value).count("404") == 2 and "--mirror" in str(caught.value)
    assert not (tmp_path / "other").exists()


def test_what_differs_from_its_record_is_not_taken(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = fetching.fetch("file", [server.url], tmp_path)
    assert fetching.fetch("file", [server.url], tmp_path) == path and len(server.ranges) == 1
    path.write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(ValueError, match="another SHA-256"):
        fetching.fetch("file", [server.url], tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert main(["corpus", "fetch", "--output", str(tmp_path), f"file={server.url}"]) == 2
    assert "10239 bytes, but had 10240" in capsys.readouterr().err
    path.unlink()
    assert fetching.fetch("file", [server.url], tmp_path).read_bytes() == CONTENT


def test_a_mirror_is_a_folder_or_an_address(server: Server, tmp_path: Path) -> None:
    mirror, unreachable = tmp_path / "mirror", ["http://127.0.0.1:9/file"]
    mirror.mkdir()
    (mirror / "file").write_bytes(b"from a folder")
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    path = fetching.fetch("file", unreachable, tmp_path / "one", str(mirror))
    assert path.read_bytes() == b"from a folder"
    address = server.url[: -len("/file")]
    assert fetching.fetch("file", unreachable, tmp_path / "two", address).read_bytes() == CONTENT
    with pytest.raises(ValueError, match=r"absent could not be fetched(.|\n)*mirror/absent"):
        fetching.fetch("absent", [server.url], tmp_path / "two", str(mirror))


def test_names_are_plain(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    for wrong in ("file", "a/b=http://x", "=http://x"):
        assert main(["corpus", "fetch", "--output", str(tmp_path), wrong]) == 2
        assert "expected NAME=URL" in capsys.readouterr().err

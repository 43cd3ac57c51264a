"""facenet_tools/download.py against a server on this machine that is slow, cuts off, lies, or changes its mind."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
from conftest import ROOT, TOOLS, assert_one_error, run_tool

import convert_weights
from facenet_tools import download
from facenet_tools.cli import ToolError

DATA = np.random.default_rng(1).integers(0, 256, 300_000, np.uint8).tobytes()
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """What it does is in its attributes; a test changes them between requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.etag, self.modified = DATA, '"one"', ""
        self.ranges, self.lengths = True, True
        self.cuts: list[int] = []  # each answer ends after so many bytes, until the list is empty
        self.statuses: list[int] = []
        self.kind = "application/octet-stream"
        self.delay_s, self.lie = 0.0, None
        self.hang_s = 0.0  # before every answer but the first
        self.asked: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/x.pt"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        s = self.server
        s.asked.append(dict(self.headers))
        if s.hang_s and len(s.asked) > 1:
            time.sleep(s.hang_s)
        if s.statuses and (status := s.statuses.pop(0)) != 200:
            self.send_error(status)
            return
        start, asked = 0, self.headers.get("Range")
        if asked and s.ranges and self.headers.get("If-Range", s.etag or s.modified) in (s.etag, s.modified):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(s.data):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", s.kind)
        if s.etag:
            self.send_header("ETag", s.etag)
        if s.modified:
            self.send_header("Last-Modified", s.modified)
        if start:
            self.send_header("Content-Range", f"bytes {start if s.lie is None else s.lie}-{len(s.data) - 1}/{len(s.data)}")
        if s.lengths:
            self.send_header("Content-Length", str(len(s.data) - start))
        self.end_headers()
        end = min(start + s.cuts.pop(0), len(s.data)) if s.cuts else len(s.data)
        for at in range(start, end, 16384):
            try:
                self.wfile.write(s.data[at : min(at + 16384, end)])
            except OSError:
                return
            time.sleep(s.delay_s)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def fetched(server: Server, folder: pathlib.Path, size: int | None = len(DATA), sha256: str | None = SHA256, **options) -> bytes:
    download.fetch(download.Wanted(server.url, size, sha256), folder / "x.pt", **options)
    assert [p.name for p in folder.iterdir()] == ["x.pt"]
    return (folder / "x.pt").read_bytes()


def fails(server: Server, folder: pathlib.Path, *parts: str, size: int | None = len(DATA), sha256: str | None = SHA256, **options) -> int:
    """The bytes that are kept."""
    with pytest.raises(ToolError) as error:
        download.fetch(download.Wanted(server.url, size, sha256), folder / "x.pt", **options)
    assert all(part in str(error.value) for part in ("x.pt", *parts)), error.value
    assert not (folder / "x.pt").exists()
    part = folder / "x.pt.part"
    return part.stat().st_size if part.exists() else 0


@pytest.mark.parametrize("known", [True, False])
def test_a_connection_that_is_cut_is_resumed(server, tmp_path, known):
    server.cuts = [100_000, 0, 50_000]
    assert fetched(server, tmp_path, *((len(DATA), SHA256) if known else (None, None))) == DATA
    assert [a.get("Range") for a in server.asked] == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-"]
    assert {a.get("If-Range") for a in server.asked[1:]} == {'"one"'}


def test_what_is_there_is_kept_from_call_to_call(server, tmp_path):
    server.cuts = [100_000] + [0] * 9
    assert fails(server, tmp_path, "the connection ended after 100,000 of 300,000 bytes", "100,000 bytes that have come are kept") == 100_000
    server.cuts, server.asked = [], []
    assert fetched(server, tmp_path, None, None) == DATA
    assert server.asked[0]["Range"] == "bytes=100000-"


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges, server.cuts = False, [100_000]
    assert fetched(server, tmp_path) == DATA


@pytest.mark.parametrize("etag, modified", [('"two"', ""), ("", "Tue, 01 Jan 2030 00:00:00 GMT")])
def test_a_file_that_changed_is_not_mixed(server, tmp_path, etag, modified):
    server.cuts = [100_000] + [0] * 9
    fails(server, tmp_path, size=None, sha256=None)
    other = bytes(reversed(DATA))
    server.data, server.etag, server.modified, server.cuts = other, etag, modified, []
    assert fetched(server, tmp_path, None, None) == other


def test_without_a_validator_nothing_is_continued_that_no_digest_proves(server, tmp_path):
    server.etag, server.cuts = "", [100_000] + [0] * 9
    fails(server, tmp_path, size=None, sha256=None)
    server.cuts, server.asked = [], []
    assert fetched(server, tmp_path, None, None) == DATA
    assert "Range" not in server.asked[0]


def test_wrong_bytes_are_removed(server, tmp_path):
    server.data = DATA[:-1] + b"\0"
    assert fails(server, tmp_path, "what was downloaded has the SHA-256", "is removed") == 0
    server.data = DATA
    assert fetched(server, tmp_path) == DATA


def test_another_size_is_refused_at_once(server, tmp_path):
    server.data = DATA * 2
    assert fails(server, tmp_path, "the server has 600,000 bytes under this name, the checkpoint has 300,000") == 0
    server.lengths = False
    assert fails(server, tmp_path, "sends more than the file has") == 0


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_no_checkpoint_and_harms_nothing(server, tmp_path, kind):
    server.cuts = [100_000] + [0] * 9
    fails(server, tmp_path)
    server.kind, server.data, server.etag, server.cuts = kind, b"\n<!DOCTYPE html><html>Log in</html>", '"page"', []
    server.lengths = False
    assert fails(server, tmp_path, "the server sends a web page in its place", "are kept") == 100_000
    server.kind, server.data, server.etag, server.lengths = "application/octet-stream", DATA, '"one"', True
    assert fetched(server, tmp_path) == DATA


def test_statuses(server, tmp_path):
    server.statuses = [404]
    assert fails(server, tmp_path, "status 404 Not Found") == 0 and len(server.asked) == 1
    server.statuses = [503, 429, 200]
    assert fetched(server, tmp_path) == DATA


def test_a_range_beyond_the_end_and_a_lie_begin_anew(server, tmp_path):
    (tmp_path / "x.pt.part").write_bytes(DATA[:200_000])
    server.data = DATA[:100_000]
    assert fetched(server, tmp_path, None, hashlib.sha256(DATA[:100_000]).hexdigest()) == DATA[:100_000]
    (tmp_path / "x.pt").unlink()
    server.data, server.lie = DATA, 0
    (tmp_path / "x.pt.part").write_bytes(DATA[:200_000])
    assert fetched(server, tmp_path) == DATA


def test_a_whole_part_needs_no_server(tmp_path):
    (tmp_path / "x.pt.part").write_bytes(DATA)
    download.fetch(download.Wanted("http://127.0.0.1:9/x.pt", len(DATA), SHA256), tmp_path / "x.pt")
    assert (tmp_path / "x.pt").read_bytes() == DATA


def test_no_server_names_the_cause_at_once(tmp_path):
    began = time.monotonic()
    with pytest.raises(ToolError, match="x.pt: cannot be downloaded .Connection refused."):
        download.fetch(download.Wanted("http://127.0.0.1:9/x.pt"), tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == [] and time.monotonic() - began < 0.9  # PAUSE_S is 1


def test_the_time_may_be_limited(server, tmp_path):
    server.delay_s = 0.1
    began = time.monotonic()
    kept = fails(server, tmp_path, "the time for the download is over", "are kept", limit_s=0.3)
    assert 0 < kept < len(DATA) and time.monotonic() - began < 5
    server.delay_s = 0
    assert fetched(server, tmp_path) == DATA


def test_a_silent_server_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SILENCE_S", 0.2)
    monkeypatch.setattr(download, "TRIES", 2)
    server.cuts, server.hang_s = [100_000], 1
    assert fails(server, tmp_path, "timed out", "are kept") == 100_000


def test_two_processes_share_one_download(server, tmp_path):
    server.delay_s = 0.02
    both = [threading.Thread(target=fetched, args=(server, tmp_path)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert (tmp_path / "x.pt").read_bytes() == DATA and len(server.asked) == 1


# ---- The converter and the demo --------------------------------------------------------------------------------------------------


@pytest.fixture
def published(server, checkpoint_file, tmp_path, monkeypatch) -> pathlib.Path:
    """A small release: casia-webface without a known digest, vggface2 with one."""
    server.data = checkpoint_file.read_bytes()
    monkeypatch.setenv("FACENET_PRETRAINED_URL", server.url.removesuffix("x.pt"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(convert_weights.DIGESTS, "vggface2", hashlib.sha256(server.data).hexdigest())
    monkeypatch.setitem(convert_weights.SIZES, "vggface2", len(server.data))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("name", ["vggface2", "casia-webface"])
def test_a_file_cut_short_in_the_cache_is_not_kept(server, published, name, capsys):
    """As facenet-pytorch left it. What is known to belong is gone on from."""
    cached = published / convert_weights.PRETRAINED[name]
    cached.write_bytes(server.data[:1_000_000])
    assert convert_weights.download(name) == str(cached)
    assert cached.read_bytes() == server.data
    assert server.asked[0].get("Range") == ("bytes=1000000-" if name == "vggface2" else None)
    assert "it is downloaded again" in capsys.readouterr().err
    server.asked.clear()
    convert_weights.download(name)
    assert server.asked == [] and [p.name for p in published.iterdir()] == [cached.name]


def test_what_is_served_for_casia_is_looked_at(server, published):
    server.data = server.data[:1_000_000]  # the server's own file is cut short, and nobody knows a digest
    with pytest.raises(ToolError, match="is no readable checkpoint, maybe cut short, and is removed; try again"):
        convert_weights.download("casia-webface")
    assert list(published.iterdir()) == []


def test_offline_a_damaged_file_stays_where_it_was(server, published, monkeypatch):
    cached = published / convert_weights.PRETRAINED["casia-webface"]
    cached.write_bytes(b"damaged")
    monkeypatch.setenv("FACENET_PRETRAINED_URL", "http://127.0.0.1:9")
    result = run_tool("convert_weights.py", "--pretrained", "casia-webface", "-o", published.parent / "o")
    assert_one_error(result, "Connection refused", "give the file: convert_weights.py FILE --dataset casia-webface")
    assert cached.read_bytes() == b"damaged"


def start(*command: object, **options) -> subprocess.Popen:
    return subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True, start_new_session=True, **options)


def wait_for(path: pathlib.Path, process: subprocess.Popen) -> None:
    for _ in range(1200):
        if path.exists() and path.stat().st_size > 0:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    pytest.fail(f"{path} did not come")


def test_ctrl_c_keeps_what_has_come(server, published):
    server.delay_s = 0.05
    process = start(TOOLS / "convert_weights.py", "--pretrained", "casia-webface", "-o", published.parent / "o.safetensors")
    part = published / (convert_weights.PRETRAINED["casia-webface"] + ".part")
    wait_for(part, process)
    os.killpg(process.pid, signal.SIGINT)
    assert "are kept" in process.communicate(timeout=30)[1] and process.returncode == 130
    kept = part.stat().st_size
    assert 0 < kept < len(server.data) and json.loads(part.with_name(part.name + ".json").read_text())["validator"] == '"one"'
    server.delay_s, server.asked = 0, []
    convert_weights.download("casia-webface")
    assert server.asked[0]["Range"] == f"bytes={kept}-"


def test_the_demo_can_be_stopped_while_it_downloads(server, published, tmp_path):
    """demo.sh's own function, in a folder of its own; Ctrl-C reaches a whole process group."""
    server.delay_s, server.lengths = 0.05, False  # a length would be another file's
    script = f"source {ROOT}/tools/demo.sh; cd {tmp_path}; mkdir -p weights build; ln -s {ROOT}/tools {ROOT}/.venv .; get_weights; echo went on >&2"
    process = start("bash", "-c", script, cwd=tmp_path)
    wait_for(published / (convert_weights.PRETRAINED["vggface2"] + ".part"), process)
    os.killpg(process.pid, signal.SIGINT)
    shown = process.communicate(timeout=30)[1]
    assert process.returncode in (130, -signal.SIGINT) and "went on" not in shown and "UNTRAINED" not in shown, shown
    assert not list((tmp_path / "weights").iterdir())

"""Downloads a large file so that nothing is lost: into NAME.part, resumed where the server allows, compared before it gets its name."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib.util
import itertools
import json
import os
import pathlib
import re
import sys
import time
from typing import TYPE_CHECKING, BinaryIO, Iterator

from facenet_tools import cli
from facenet_tools.cli import ToolError

if TYPE_CHECKING:
    import requests

CONNECT_S, SILENCE_S = 15.0, 30.0
TRIES = 5  # in a row that bring nothing; one that brings something begins the count anew
PAUSE_S = 1.0  # before the second try; doubled each time
MOST_BYTES = 2 << 30  # of a file whose size is not known
_BLOCK = 1 << 14  # a slow line brings one in a second or two
_PASSING = {408, 425, 429, 500, 502, 503, 504}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is known of a file beforehand."""

    url: str
    size: int | None = None
    sha256: str | None = None


def fetch(wanted: Wanted, target: pathlib.Path, limit_s: float | None = None) -> None:
    """Puts the file at `target`, which appears whole or not at all; a file that is there is replaced. What is there of an earlier
    try is gone on from. limit_s: the most time."""
    part, note = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")
    before = _identity(target)
    with _locked(part, target.name) as file:
        if _identity(target) != before:  # another process has brought it while this one waited
            return
        try:
            _Transfer(wanted, target.name, file, note, None if limit_s is None else time.monotonic() + limit_s).run()
            os.replace(part, target)
        except OSError as error:
            raise ToolError(f"{part}: cannot be written ({error.strerror or error}); free space, or choose another folder with TORCH_HOME.") from error
        finally:
            with contextlib.suppress(OSError):
                if not part.exists() or part.stat().st_size == 0:
                    part.unlink(missing_ok=True)
                    note.unlink(missing_ok=True)


def _identity(target: pathlib.Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = target.stat()
        return found.st_ino, found.st_mtime_ns
    return None


@contextlib.contextmanager
def _locked(part: pathlib.Path, name: str) -> Iterator[BinaryIO]:
    """The partial file, open for one process at a time."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        file = open(part, "a+b")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise ToolError(f"{part}: cannot be written ({error.strerror}); choose another folder with TORCH_HOME.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"{cli.program()}: another process downloads {name}; waiting for it.", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


class _Again(Exception):
    """This try failed in a way that may pass; the text says how."""


class _Transfer:
    def __init__(self, wanted: Wanted, name: str, file: BinaryIO, note: pathlib.Path, deadline: float | None) -> None:
        self.wanted, self.name, self.file, self.note, self.deadline = wanted, name, file, note, deadline
        self.validator = ""  # ETag or Last-Modified of what the partial file is a part of
        self.have = os.fstat(file.fileno()).st_size
        self.answered = False  # whether there is a server at all

    def run(self) -> None:
        self._take_up()
        if self.wanted.size is None or self.have != self.wanted.size:
            try:
                self._transfer()
            except KeyboardInterrupt:
                print(f"{cli.program()}: {self.name}: stopped{self._kept()}", file=sys.stderr)
                raise
        self._compare()
        os.fsync(self.file.fileno())

    def _take_up(self) -> None:
        """Forgets an earlier part where nothing can prove that it belongs to the file."""
        if self.have == 0:
            return
        with contextlib.suppress(OSError, ValueError, AttributeError):
            said = json.loads(self.note.read_text())
            self.validator = str(said.get("validator", "")) if said.get("url") == self.wanted.url else ""
        if (not self.validator and self.wanted.sha256 is None) or self.have > (self.wanted.size or self.have):
            self._restart()

    def _transfer(self) -> None:
        try:
            import requests
            import urllib3
        except ImportError as error:
            raise ToolError(f"{self.name}: downloading needs the package requests; run: .venv/bin/python -m pip install requests") from error

        in_vain = 0
        with requests.Session() as session:
            while True:
                before = self.have
                try:
                    return self._try(session)
                except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema) as error:
                    raise ToolError(f"{self.name}: cannot be downloaded ({_reason(error)}).") from error
                except (requests.RequestException, urllib3.exceptions.HTTPError, _Again) as error:
                    in_vain = 1 if self.have > before else in_vain + 1
                    if in_vain >= TRIES or not self.answered:  # without a network the first try says all
                        raise ToolError(f"{self.name}: cannot be downloaded ({_reason(error)}){self._kept()}") from error
                    self._wait(PAUSE_S * 2 ** (in_vain - 1), _reason(error))

    def _try(self, session: requests.Session) -> None:
        headers = {"Accept-Encoding": "identity"}
        if self.have > 0:
            headers["Range"] = f"bytes={self.have}-"
            if self.validator:
                headers["If-Range"] = self.validator
        with session.get(self.wanted.url, headers=headers, stream=True, timeout=(CONNECT_S, SILENCE_S)) as answer:
            self.answered = True
            total = self._head(answer)
            blocks = answer.raw.stream(_BLOCK, decode_content=False)
            if answer.status_code == 200:
                block = next(blocks, b"")
                if block.lstrip()[:1] == b"<":
                    raise self._page()
                if self.have > 0:
                    self._restart()
                self._keep(answer)
                blocks = itertools.chain([block], blocks)
            with _Progress(self.name, self.have, total) as progress:
                for block in blocks:
                    self._append(block, total)
                    progress.at(self.have)
                    if self.deadline is not None and time.monotonic() > self.deadline:
                        raise ToolError(f"{self.name}: the time for the download is over{self._kept()}")
        if self.have == 0 or (total is not None and self.have < total):
            raise _Again(f"the connection ended after {self.have:,} of {total or 'unknown':,} bytes" if total else "the server sent nothing")

    def _head(self, answer: requests.Response) -> int | None:
        """Looks at the head of an answer, before anything is written. The file's size, if known."""
        status = answer.status_code
        if status == 416 and self.have > 0:  # nothing is left to send, or the file is another one now
            self._restart()
            raise _Again("the server has no such range")
        if status in _PASSING:
            raise _Again(f"status {status} {answer.reason}")
        if status not in (200, 206):
            raise ToolError(f"{self.name}: cannot be downloaded (status {status} {answer.reason}){self._kept()}")
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise self._page()
        size = answer.headers.get("Content-Length", "")
        if status == 206:
            unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
            span, _, size = rest.partition("/")
            if self.have == 0 or unit != "bytes" or span.partition("-")[0] != str(self.have):
                self._restart()
                raise _Again("the server sends another part than it was asked for")
        total = int(size) if size.isdigit() else None
        if self.wanted.size is not None and total not in (None, self.wanted.size):
            raise ToolError(f"{self.name}: the server has {total:,} bytes under this name, the checkpoint has {self.wanted.size:,}: it is another file.")
        return self.wanted.size if total is None else total

    def _keep(self, answer: requests.Response) -> None:
        """What the next try needs to ask whether the file is still the same. A weak ETag cannot be asked for (RFC 9110, 13.1.5)."""
        etag = answer.headers.get("ETag", "")
        self.validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
        self.note.write_text(json.dumps({"url": self.wanted.url, "validator": self.validator}))

    def _append(self, block: bytes, total: int | None) -> None:
        if self.have + len(block) > (MOST_BYTES if total is None else total):
            self._restart()
            raise ToolError(f"{self.name}: the server sends more than the file has; try again later.")
        self.file.write(block)
        self.file.flush()  # so that a killed process loses nothing
        self.have += len(block)

    def _compare(self) -> None:
        if self.wanted.sha256 is None:
            return
        digest = cli.sha256_of([self.file.name])
        if digest != self.wanted.sha256:
            self._restart()
            raise ToolError(
                f"{self.name}: what was downloaded has the SHA-256 {digest}, not the checkpoint's: it was damaged or "
                "replaced on the way, and is removed; try again, or fetch it from elsewhere."
            )

    def _restart(self) -> None:
        self.file.truncate(0)
        self.have, self.validator = 0, ""
        self.note.unlink(missing_ok=True)

    def _page(self) -> ToolError:
        return ToolError(f"{self.name}: the server sends a web page in its place; there may be a login or a proxy in between{self._kept()}")

    def _kept(self) -> str:
        return f"; the {self.have:,} bytes that have come are kept, and the next call goes on from there." if self.have else "."

    def _wait(self, seconds: float, why: str) -> None:
        if self.deadline is not None and time.monotonic() + seconds > self.deadline:
            raise ToolError(f"{self.name}: the time for the download is over ({why}){self._kept()}")
        print(f"{cli.program()}: {self.name}: {why}; again in {seconds:g} s.", file=sys.stderr)
        time.sleep(seconds)


class _Progress:
    """On a terminal tqdm's bar, elsewhere a line every ten seconds."""

    EVERY_S = 10.0

    def __init__(self, name: str, have: int, total: int | None) -> None:
        self.name, self.total, self.began, self.first, self.said = name, total, time.monotonic(), have, time.monotonic()
        self.bar = None
        if sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None:
            from tqdm import tqdm

            self.bar = tqdm(desc=name, total=total, initial=have, unit="B", unit_scale=True, dynamic_ncols=True)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def at(self, have: int) -> None:
        if self.bar is not None:
            self.bar.update(have - self.bar.n)
        elif time.monotonic() - self.said >= self.EVERY_S:
            self.said = time.monotonic()
            rate = (have - self.first) / (self.said - self.began)
            whole = f" of {self.total / 1e6:.1f}" if self.total else ""
            print(f"{self.name}: {have / 1e6:.1f}{whole} MB, {rate / 1e3:.0f} kB/s", file=sys.stderr, flush=True)


def _reason(error: BaseException) -> str:
    """The innermost cause: requests wraps urllib3, which wraps what the socket said."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((a for a in reversed(error.args) if isinstance(a, BaseException)), None)
        if inner is None:
            break
        error = inner
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = re.sub(r"^.*(>: |\[Errno -?\d+\] )", "", (text.splitlines() or [""])[0])
    return (text or type(error).__name__).rstrip(".")[:200]

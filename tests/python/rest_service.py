"""A `facenet serve` for a test, and a client that needs nothing but Python."""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import re
import subprocess
import urllib.parse
import uuid
from typing import Iterator, NamedTuple

from test_command import COMMAND

KEY = "00000000-0000-0000-0000-000000000002"  # a key of the old service's documentation


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


def multipart(fields: list[tuple[str, str, bytes]]) -> tuple[bytes, str]:
    """A body of (field, file name, bytes) and its Content-Type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'.encode() + data + b"\r\n"
        for field, name, data in fields
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


class Service:
    def __init__(self, address: str, process: subprocess.Popen):
        self.host, port = address.rsplit(":", 1)
        self.port, self.process = int(port), process

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def call(self, method: str, path: str, body=None, *, files=None, content_type: str = "", key: str | None = KEY, **query) -> Answer:
        """`body`: bytes, or something to be sent as JSON. `files`: {field: path or paths}."""
        headers = {"x-api-key": key} if key else {}
        if files is not None:
            listed = [(field, pathlib.Path(p)) for field, given in files.items() for p in (given if isinstance(given, list) else [given])]
            body, content_type = multipart([(field, p.name, p.read_bytes()) for field, p in listed])
        elif body is not None and not isinstance(body, bytes):
            body, content_type = json.dumps(body).encode(), "application/json"
        if content_type:
            headers["Content-Type"] = content_type
        if query:
            path += "?" + urllib.parse.urlencode(query)
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())


@contextlib.contextmanager
def serving(gallery: pathlib.Path, folder: pathlib.Path, *arguments: object) -> Iterator[Service]:
    """Serves the gallery with a key of all rights until the block ends; it must end well."""
    keys = folder / "keys"
    keys.write_text(f"{KEY} admin\n")
    keys.chmod(0o600)
    call = [COMMAND, "serve", "--gallery", gallery, "--listen", "127.0.0.1:0", "--keys", keys, "--access-log", "none", *arguments]
    process = subprocess.Popen([str(word) for word in call], stderr=subprocess.PIPE, text=True)
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"serving on (?:http://)?(127\.0\.0\.1:\d+)", line):
                break
        else:
            raise AssertionError("".join(said))
        yield Service(found[1], process)
    finally:
        process.terminate()
        rest = process.communicate(timeout=60)[1]
    assert process.returncode == 0, rest

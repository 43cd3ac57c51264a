"""facenet serve as a server: keys, limits, faults and signals. What it answers to which call is in other files."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from conftest import ROOT
from PIL import Image
from test_command import COMMAND, assert_sentence, facenet
from test_command import weights  # noqa: F401 (fixture)
from test_command_faces import ASTRONAUT, detector, network, scenes  # noqa: F401 (fixtures)
from test_detector import weight_file  # noqa: F401 (fixture)

BUILT_WITHOUT = "built without the service"
READ, ENROLL, ADMIN = "read-key-0123456789", "enroll-key-0123456789", "admin-key-0123456789"
pytestmark = [
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built"),
    pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh"),
]


class Served:
    """A running server: its process, its port, and what it says."""

    def __init__(self, process: subprocess.Popen, folder: pathlib.Path, tls: ssl.SSLContext | None):
        self.process, self.folder, self.tls = process, folder, tls
        self.port = 0

    def messages(self) -> str:
        return (self.folder / "stderr").read_text()

    def log(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "stdout").read_text().splitlines()]

    def socket(self, timeout: float = 20) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        return self.tls.wrap_socket(plain, server_hostname="localhost") if self.tls else plain

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        connection = (http.client.HTTPSConnection("localhost", self.port, timeout=60, context=self.tls) if self.tls
                      else http.client.HTTPConnection("127.0.0.1", self.port, timeout=60))
        with contextlib.closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()

    def status(self, *arguments, **headers: str) -> int:
        return self.ask(*arguments, **headers)[0]

    def embed(self, picture: pathlib.Path, **headers: str) -> tuple[int, dict]:
        body, kind = form(picture.read_bytes())
        status, _, text = self.ask("POST", "/v1/embed", body, content_type=kind, **headers)
        return status, json.loads(text)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)


def form(picture: bytes) -> tuple[bytes, str]:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="Ada Lovelace.png"\r\nContent-Type: image/png\r\n\r\n'
    return head + picture + b"\r\n--b--\r\n", "multipart/form-data; boundary=b"


@pytest.fixture
def serve(network, tmp_path):  # noqa: F811
    """serve(*options) starts a server and waits until it answers; it must end without a fault."""
    with contextlib.ExitStack() as stack:
        yield lambda *options, **more: stack.enter_context(running(network, tmp_path, options, **more))


@contextlib.contextmanager
def running(network, folder: pathlib.Path, options=(), tls: ssl.SSLContext | None = None, listen: str | None = "127.0.0.1:0",  # noqa: F811
            environment: dict[str, str] | None = None, **popen) -> Iterator[Served]:
    words = [COMMAND, "serve", "--gallery", folder / "served.gallery", "--threads", 2, *network, *options]
    words += ["--listen", listen] if listen else []
    with open(folder / "stdout", "wb") as out, open(folder / "stderr", "wb") as errors:
        process = subprocess.Popen(list(map(str, words)), stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                                   env=os.environ | (environment or {}), **popen)
    served = Served(process, folder, tls)
    try:
        deadline = time.monotonic() + 60
        while "serving on" not in served.messages():
            if process.poll() is not None and BUILT_WITHOUT in served.messages():
                pytest.skip("the command was built without the service")
            assert process.poll() is None and time.monotonic() < deadline, served.messages()
            time.sleep(0.02)
        port = re.search(r"serving on https?://\S+:(\d+)\.", served.messages())
        served.port = int(port[1]) if port else 0
        yield served
        if process.poll() is None:
            assert served.stop() == 0, served.messages()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def keys_file(folder: pathlib.Path, text: str = f"# keys\n{READ} read\n{ENROLL} enroll\n{ADMIN} admin\n") -> pathlib.Path:
    path = folder / "keys"
    path.write_text(text)
    path.chmod(0o600)
    return path


def read_all(connection: socket.socket) -> bytes:
    chunks = []
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    return b"".join(chunks)


def until(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# ---- answers -----------------------------------------------------------------------------------------------------------


def test_it_answers_as_the_command_does(serve, network, scenes):  # noqa: F811
    server = serve()
    assert server.status("GET", "/health") == server.status("GET", "/ready") == 200
    status, answer = server.embed(scenes / "three.png")
    expected = [json.loads(line)["embedding"] for line in facenet("embed", "--json", *network, scenes / "three.png").stdout.splitlines()]
    assert status == 200 and [face["embedding"] for face in answer["results"]] == expected and len(expected) == 3
    status, answer = server.embed(scenes / "none.png")
    assert status == 200 and not [face for face in answer["results"] if "embedding" in face]
    text = server.ask("GET", "/metrics")[2].decode()
    assert 'facenet_requests_total{route="/v1/embed",method="POST",status="200"} 2\n' in text
    assert 'facenet_stage_seconds_count{stage="detect"} 2\n' in text
    assert re.search(r'facenet_model_info\{architecture="\w+",digest="[0-9a-f]{16}",detector="[0-9a-f]{16}"\} 1\n', text)
    status, headers, body = server.ask("HEAD", "/health")
    assert (status, body, int(headers["content-length"])) == (200, b"", len(server.ask("GET", "/health")[2]))
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]


def test_what_is_no_request_of_ours_is_said_in_json(serve, scenes):  # noqa: F811
    server = serve()
    for status, method, path in [(404, "GET", "/nothing"), (405, "DELETE", "/health"), (400, "GET", "/%zz"),
                                 (400, "GET", "/" + "a/" * 65), (404, "GET", "/..%2F..%2Fetc/passwd")]:
        got, headers, body = server.ask(method, path)
        answer = json.loads(body)
        assert got == status == answer["code"] and answer["message"].endswith("."), (path, body)
        assert headers["content-type"] == "application/json"
    assert server.ask("DELETE", "/health")[1]["allow"] == "GET"
    for raw, status in [(b"nonsense\r\n\r\n", b"400"), (b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", b"505"),
                        (b"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
                        (b"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", b"400"),
                        (b"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"400"),
                        (b"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n", b"417")]:
        with server.socket() as connection:
            connection.sendall(raw)
            answer = read_all(connection)
            assert answer.split(b" ")[1] == status, (raw, answer)
    body, kind = form((scenes / "one.png").read_bytes()[:2000])  # cut off
    status, _, text = server.ask("POST", "/v1/embed", body, content_type=kind)
    assert status == 400 and "/" not in json.loads(text)["message"], text


def test_connections_are_kept_and_requests_pipelined(serve):
    server = serve()
    with server.socket() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50 +
                           b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answers = read_all(connection)
        assert answers.count(b"HTTP/1.1 200 OK") == 51 and answers.count(b'{"status":"ok"}') == 50
    with server.socket() as connection:  # HTTP/1.0 closes
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.0 200 OK")


def test_a_body_in_chunks_and_one_that_waits_to_be_asked_for(serve, scenes):  # noqa: F811
    server = serve()
    body, kind = form((scenes / "one.png").read_bytes())
    head = f"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\n".encode()
    with server.socket() as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 5000):
            piece = body[at:at + 5000]
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 200 OK")
    with server.socket() as connection:
        connection.sendall(head + f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_all(connection).startswith(b"HTTP/1.1 200 OK")


# ---- who may -----------------------------------------------------------------------------------------------------------


def test_keys_and_rights(serve, scenes, tmp_path):  # noqa: F811
    server = serve("--keys", keys_file(tmp_path))
    picture = scenes / "one.png"
    assert server.embed(picture)[0] == server.embed(picture, x_api_key="wrong-key-0123456789")[0] == 401
    assert server.status("GET", "/nothing") == 401  # nothing is learned without a key
    for key in (READ, ENROLL, ADMIN):
        assert server.embed(picture, x_api_key=key)[0] == 200
    assert server.embed(picture, authorization=f"Bearer {READ}")[0] == 200
    for path in ("/health", "/ready", "/metrics"):
        assert server.status("GET", path) == 200
    until(lambda: len(server.log()) >= 10)
    entries = server.log()
    assert {entry["key"] for entry in entries} == {"", "key 1", "key 2", "key 3"}
    assert all(list(e) == ["time", "method", "route", "status", "bytes", "ms", "key"] for e in entries)
    assert all(READ[:8] not in json.dumps(entry) and "Ada" not in json.dumps(entry) for entry in entries)


def test_keys_are_read_again(serve, tmp_path):
    file = keys_file(tmp_path)
    server = serve("--keys", file)
    ask = lambda key: server.status("GET", "/nothing", x_api_key=key)  # noqa: E731
    assert ask(READ) == 404
    file.write_text("another-key-0123456789 read\n")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: ask("another-key-0123456789") == 404)
    assert ask(READ) == 401
    file.write_text("too-short read\n")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: "stay in force" in server.messages())
    assert ask("another-key-0123456789") == 404 and "line 1" in server.messages() and "too-short" not in server.messages()


@pytest.mark.parametrize("text, mode, word", [("", 0o600, "holds no key"), ("0123456789abcdef", 0o600, "line 1"),
                                              (f"{READ} read\n", 0o640, "chmod 600"), (None, 0, "keys cannot be read")])
def test_keys_that_are_refused(network, tmp_path, text, mode, word):  # noqa: F811
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    result = facenet("serve", "--keys", file, "--listen", "127.0.0.1:0", *network)
    if BUILT_WITHOUT not in result.stderr:
        assert_sentence(result, file, word)


@pytest.mark.parametrize("options, word", [
    (("--listen", "0.0.0.0:0"), "without keys"), (("--listen", "[::]:0"), "without keys"), (("--listen", "nowhere"), "no address"),
    (("--listen", "127.0.0.1:99999"), "no address"), (("--listen", "unix:"), "1 to 107 bytes"),
    (("--listen", "127.0.0.1:0", "--cert", "x"), "both"), (("--listen", "127.0.0.1:0", "--cert", "x", "--key", "y"), "certificate"),
    (("--listen", "198.51.100.1:0"), "cannot be used"), (("--access-log", "none/there/log"), "access log")])
def test_how_it_will_not_start(network, options, word):  # noqa: F811
    result = facenet("serve", *options, *network)
    if BUILT_WITHOUT not in result.stderr:
        assert_sentence(result, word)


def test_pages_of_other_sites_reach_nothing(serve, scenes):  # noqa: F811
    """Without keys a browser on this machine could be made to call."""
    server = serve("--cors", "https://door.example")
    body, kind = form((scenes / "one.png").read_bytes())
    ask = lambda **headers: server.ask("POST", "/v1/embed", body, content_type=kind, **headers)  # noqa: E731
    assert ask(host=f"127.0.0.1:{server.port}")[0] == ask(host="localhost")[0] == 200
    assert ask(host="rebound.example")[0] == ask(host="127.0.0.1.rebound.example")[0] == 403
    assert ask(origin="https://other.example")[0] == ask(origin="null")[0] == 403
    assert ask(origin=f"http://127.0.0.1:{server.port}", host=f"127.0.0.1:{server.port}")[0] == 200
    status, headers, _ = ask(origin="https://door.example")
    assert status == 200 and headers["access-control-allow-origin"] == "https://door.example" and headers["vary"] == "Origin"
    status, headers, _ = server.ask("OPTIONS", "/v1/embed", origin="https://door.example", access_control_request_method="POST")
    assert status == 204 and headers["access-control-allow-methods"] == "POST"
    assert server.status("OPTIONS", "/v1/embed", origin="https://other.example") == 403


# ---- limits ------------------------------------------------------------------------------------------------------------


def test_what_is_too_large(serve, scenes):  # noqa: F811
    server = serve("--max-body", 1, "--max-pixels", 1)
    body, kind = form(b"x" * (1 << 20))
    assert server.status("POST", "/v1/embed", body, content_type=kind) == 413
    with server.socket() as connection:  # in chunks, so that the length is not known before
        connection.sendall(f"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: {kind}\r\n\r\n".encode())
        connection.sendall(b"".join(b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(20)))
        assert read_all(connection).startswith(b"HTTP/1.1 413")
    assert server.status("GET", "/health", x_long="x" * 20000) == 431
    large = server.folder / "large.png"
    Image.new("RGB", (1001, 1000)).save(large)
    status, answer = server.embed(large)
    assert status == 413 and "pixels" in answer["message"]
    assert server.status("GET", "/health") == 200


def test_who_sends_too_slowly(serve):
    server = serve("--header-seconds", 1, "--body-seconds", 1, "--idle-seconds", 1)
    head = b"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
    for first in (head, head + b"\r\n"):
        with server.socket() as connection:
            connection.sendall(first)
            began = time.monotonic()
            connection.settimeout(0.2)
            answer = b""
            while not answer and time.monotonic() - began < 10:  # a byte again and again does not help
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(1000)
                with contextlib.suppress(OSError):
                    connection.send(b"x" if answer == b"" else b"")
            assert answer.startswith(b"HTTP/1.1 408") and 0.8 < time.monotonic() - began < 8, answer
    for request in (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"):  # idle from the start, and after a request
        with server.socket() as connection:
            connection.sendall(request)
            began = time.monotonic()
            read_all(connection)
            assert 0.8 < time.monotonic() - began < 8


def test_more_requests_than_a_key_may_send(serve):
    server = serve("--rate", 5)
    statuses = [server.ask("GET", "/health") for _ in range(20)]
    refused = [headers for status, headers, _ in statuses if status == 429]
    assert 5 <= len(refused) <= 15 and all(headers["retry-after"] == "1" for headers in refused)
    time.sleep(1.1)
    assert server.status("GET", "/health") == 200


def test_a_full_queue(serve, scenes):  # noqa: F811
    server = serve("--queue", 1, "--threads", 1)
    statuses: list[int] = []

    def call() -> None:
        statuses.append(server.embed(scenes / "three.png")[0])

    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 503} and statuses.count(200) >= 2
    assert server.status("GET", "/health") == 200 and server.embed(scenes / "one.png")[0] == 200


def test_more_connections_than_it_holds(serve):
    server = serve("--max-connections", 3)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(server.socket()) for _ in range(3)]
        for connection in held:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert b"200" not in read_all(stack.enter_context(server.socket()))
    until(lambda: server.status("GET", "/health") == 200)


def idle_connections(server: Served, count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 200:
        pytest.skip(f"this process may open only {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 200), hard))
    status = pathlib.Path(f"/proc/{server.process.pid}/status")
    value = lambda name: int(re.search(rf"{name}:\s+(\d+)", status.read_text())[1])  # noqa: E731
    server.status("GET", "/health")
    before, threads = value("VmRSS"), value("Threads")
    held = []
    try:
        for i in range(count):
            held.append(server.socket())
            if i % 100 == 0:
                held[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert held[-1].recv(1000).startswith(b"HTTP/1.1 200")
        assert server.status("GET", "/health") == 200
        assert f"facenet_connections {count + 1}\n" in server.ask("GET", "/metrics")[2].decode()
        assert value("Threads") == threads
        assert (value("VmRSS") - before) * 1024 < count * 6000  # some 3 kB each were measured
    finally:
        for connection in held:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: "facenet_connections 1\n" in server.ask("GET", "/metrics")[2].decode())


def test_idle_connections_cost_no_threads_and_little_memory(serve):
    idle_connections(serve(), 2000)


@pytest.mark.slow
def test_ten_thousand_idle_connections(serve):
    idle_connections(serve(), 10000)


# ---- faults ------------------------------------------------------------------------------------------------------------


def test_a_client_that_goes_is_no_fault(serve, scenes):  # noqa: F811
    server = serve("--threads", 1)
    body, kind = form((scenes / "three.png").read_bytes())
    head = f"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for sent in (head[:20], head, head + body[:1000], head + body, head + body, head + body, head + body):
        with server.socket() as connection:
            connection.sendall(sent)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    assert server.embed(scenes / "one.png")[0] == 200
    until(lambda: "facenet_connections 1\n" in server.ask("GET", "/metrics")[2].decode())
    assert "facenet_body_bytes 0\n" in server.ask("GET", "/metrics")[2].decode()
    assert "failed" not in server.messages()


def test_what_is_under_way_is_finished(serve, scenes):  # noqa: F811
    server = serve("--threads", 1)
    answers = []
    idle = server.socket()
    threads = [threading.Thread(target=lambda: answers.append(server.embed(scenes / "three.png")[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: "facenet_connections 6\n" in server.ask("GET", "/metrics")[2].decode())
    time.sleep(0.1)
    assert server.stop() == 0
    for thread in threads:
        thread.join()
    assert answers == [200] * 4
    assert read_all(idle) == b""
    with pytest.raises(ConnectionRefusedError):
        server.socket()


def test_what_takes_too_long_at_the_end_is_given_up(serve):
    server = serve("--drain", 1)
    with server.socket() as connection:
        connection.sendall(b"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        until(lambda: "facenet_body_bytes 100\n" in server.ask("GET", "/metrics")[2].decode())
        began = time.monotonic()
        assert server.stop() == 2 and 0.8 < time.monotonic() - began < 10
    assert "--drain" in server.messages()


# ---- sockets -----------------------------------------------------------------------------------------------------------


def certificate(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", chain],
                   check=True, capture_output=True)
    return chain, key


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls_and_another_certificate(serve, scenes, tmp_path):  # noqa: F811
    chain, key = certificate(tmp_path, "first")
    client = ssl.create_default_context(cafile=chain)
    server = serve("--cert", chain, "--key", key, "--header-seconds", 2, tls=client)
    assert server.embed(scenes / "one.png")[0] == 200
    body, kind = form(b"x" * (17 << 20))
    assert server.status("POST", "/v1/embed", body, content_type=kind) == 413
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in read_all(plain)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as silent:  # no handshake
        began = time.monotonic()
        read_all(silent)
        assert time.monotonic() - began > 1
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(chain)
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)), socket.create_connection(("127.0.0.1", server.port)) as plain:
        old.wrap_socket(plain, server_hostname="localhost")
    second, second_key = certificate(tmp_path, "second")
    second.replace(chain)
    second_key.replace(key)
    server.process.send_signal(signal.SIGHUP)
    until(lambda: "certificate was read again" in server.messages())
    with pytest.raises(ssl.SSLError):
        server.status("GET", "/health")
    server.tls = ssl.create_default_context(cafile=chain)
    assert server.status("GET", "/health") == 200


class UnixConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


def ask_unix(file: pathlib.Path) -> int:
    with contextlib.closing(UnixConnection(str(file))) as connection:
        connection.request("GET", "/health", headers={"Host": "facenet"})
        return connection.getresponse().status


def test_a_unix_socket(network, tmp_path):  # noqa: F811
    file = tmp_path / "s"
    with running(network, tmp_path, listen=f"unix:{file}"):
        assert ask_unix(file) == 200 and stat.S_IMODE(file.stat().st_mode) == 0o600
        assert_sentence(facenet("serve", "--listen", f"unix:{file}", *network), "another process listens")
    assert not file.exists()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(file))
    stale.close()  # what a killed server leaves
    with running(network, tmp_path, listen=f"unix:{file}"):
        assert ask_unix(file) == 200


def test_sockets_of_the_service_manager(network, tmp_path):  # noqa: F811
    """LISTEN_FDS: the socket is there before the server, and nobody is turned away between two of them."""
    listening = socket.create_server(("127.0.0.1", 0))
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.bind(str(tmp_path / "notify"))
    ready.settimeout(20)
    script = 'exec 3<&"$0"; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
    words = ["bash", "-c", script, str(listening.fileno()), COMMAND, "serve", "--gallery", tmp_path / "g", "--threads", "1", *network]
    for _ in range(2):
        with open(tmp_path / "stderr", "wb") as errors:
            process = subprocess.Popen(list(map(str, words)), stdout=subprocess.DEVNULL, stderr=errors, pass_fds=[listening.fileno()],
                                       env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        try:
            connection = http.client.HTTPConnection("127.0.0.1", listening.getsockname()[1], timeout=60)
            connection.request("GET", "/health")
            assert connection.getresponse().status == 200
            connection.close()
            assert ready.recv(100) == b"READY=1"
            process.terminate()
            assert process.wait(20) == 0
            assert ready.recv(100) == b"STOPPING=1"
        finally:
            process.kill()
            process.wait()
    listening.close()
    ready.close()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_is_sound_and_hardened():
    unit = ROOT / "packaging/systemd/facenet.service"
    result = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=15", unit], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr

"""Defaults from a configuration file, and weights that the command gets itself."""

from __future__ import annotations

import http.server
import os
import pathlib
import threading

import pytest
from test_command import COMMAND, ROOT, assert_sentence, facenet, lines
from test_command import weights  # noqa: F401 (fixture)
from test_command_json import check

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built")
MODEL = ROOT / ".deps/face-api/model"


def test_settings_are_defaults(weights, tmp_path):  # noqa: F811
    config = tmp_path / "config"
    env = {"FACENET_CONFIG": str(config)}
    call = ["bench", "--seconds", 0, "--json"]
    config.write_text(f'# mine\n\nthreads = 1\nweights = "{weights}"\n[bench]\nbatch=2\n')
    (line,) = lines(facenet(*call, env=env))
    assert (line["threads"], line["batch"]) == (1, 2)
    for more in (["-t", 2], ["--threads", "2"], ["--threads=2"], ["-t2"], ["--jobs", 2], ["-j2"]):
        (line,) = lines(facenet(*call, *more, "--batch", 1, env=env))  # the line counts more
        assert (line["threads"], line["batch"]) == (2, 1), more
    assert_sentence(facenet(*call, env=env | {"FACENET_WEIGHTS": "/nope"}), "/nope")  # a variable is nearer than a file
    shown = facenet("config", env=env).stdout
    assert f"--weights\t{weights}\tline 4" in shown and "bench --batch\t2\tline 6" in shown
    (line,) = lines(facenet("config", "--json", env=env))
    check("config", line)
    assert line["there"] and line["weights"] == {"file": str(weights), "there": True}
    config.write_text("half-weights = true\n[bench]\nlayers = false\n")
    result = facenet(*call, "-w", weights, "-t", 1, env=env)
    assert result.returncode == 0 and "layers" not in lines(result)[0]


def test_where_the_file_is(tmp_path):
    home, xdg = tmp_path / "home", tmp_path / "xdg"
    for folder in (home / ".config/facenet", xdg / "facenet"):
        folder.mkdir(parents=True)
        (folder / "config").write_text("threads = 1\n")
    for env, folder in (({"HOME": str(home)}, home / ".config"), ({"HOME": str(home), "XDG_CONFIG_HOME": str(xdg)}, xdg),
                        ({"HOME": str(home), "XDG_CONFIG_HOME": "xdg"}, home / ".config")):
        assert lines(facenet("config", "--json", env=env))[0]["file"] == str(folder / "facenet/config")
    assert lines(facenet("config", "--json", env={"HOME": str(tmp_path)}))[0] == {
        "file": str(tmp_path / ".config/facenet/config"), "there": False, "settings": [],
        "weights": {"file": "weights/facenet.safetensors", "there": False}, "detector": {"file": "weights/mtcnn.safetensors", "there": False}}


@pytest.mark.parametrize(("text", "part"), [
    ("thraeds = 1\n", "line 1: 'thraeds' is no option of any command"), ("[bnech]\nthreads = 1\n", "no command 'bnech'"),
    ("[bench]\nmargin = 1\n", "no option of facenet bench"), ("threads\n", "line 1 is no setting"), ("\nthreads =\n", "line 2 is no setting"),
    ("[bench\nthreads = 1\n", "names no command"), ("threads = 1\xff\n", "line 1 is not UTF-8"), ("--threads = 1\n", "no setting"),
    ("threads = many\n", "'many' is not a whole number"),
])  # fmt: skip
def test_a_wrong_file_is_named(tmp_path, text, part):
    (tmp_path / "config").write_bytes(text.encode("latin-1"))
    env = {"FACENET_CONFIG": str(tmp_path / "config")}
    assert_sentence(facenet("bench", "-w", "/nope", env=env), part)
    assert facenet("--help", env=env).returncode == 0 and facenet("bench", "--help", env=env).returncode in (0, 2)
    assert_sentence(facenet("bench", env={"FACENET_CONFIG": str(tmp_path)}), "cannot be read")


class Handler(http.server.SimpleHTTPRequestHandler):
    cut = 0  # the first answers end after so many bytes
    asked: list[str] = []
    kind = ""

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        path = MODEL / pathlib.Path(self.path).name
        type(self).asked.append(self.headers.get("Range", ""))
        if not path.exists():
            return self.send_error(404)
        data = path.read_bytes() if not type(self).kind else b"<html>a login</html>"
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Content-Type", type(self).kind or "application/octet-stream")
        self.end_headers()
        if type(self).cut and path.suffix == ".bin":
            self.wfile.write(data[start : start + type(self).cut])
            type(self).cut = 0
            self.close_connection = True
        else:
            self.wfile.write(data[start:])


@pytest.fixture
def server():
    Handler.cut, Handler.asked, Handler.kind = 0, [], ""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}/x/"
        made.shutdown()


@pytest.mark.skipif(not MODEL.exists(), reason=f"{MODEL} is not there: run tools/bootstrap.sh")
def test_weights_are_fetched_resumed_and_converted(server, tmp_path):
    env = {"XDG_DATA_HOME": str(tmp_path / "data"), "FACENET_SMALL_URL": server, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    out = tmp_path / "data/facenet/facenet.safetensors"
    refused = facenet("weights", "get", "small", env=env)
    assert refused.returncode == 2 and "CC0" in refused.stderr and "--accept-licence" in refused.stderr and Handler.asked == []
    assert not (tmp_path / "data").exists()
    get = ["weights", "get", "small", "--accept-licence", "--json"]
    converter = tmp_path / "facenet-convert-weights"
    converter.write_text("#!/bin/sh\nexit 3\n")
    converter.chmod(0o755)
    Handler.cut = 1_000_000
    failed = facenet(*get, env=env)  # cut short, resumed, and then the converter fails
    assert failed.returncode == 2 and "could not be converted" in failed.stderr and "--face-api" in failed.stderr
    assert "bytes=1000000-" in Handler.asked
    (line,) = lines(failed)
    check("weights get", line)
    assert not line["converted"]
    converter.write_text(f'#!/bin/sh\nexec {ROOT}/.venv/bin/python {ROOT}/tools/convert_weights.py "$@"\n')
    asked = len(Handler.asked)
    done = facenet(*get, env=env)
    assert done.returncode == 0, done.stderr
    assert lines(done)[0]["converted"] and len(Handler.asked) == asked  # what is there is not fetched again
    assert lines(facenet("info", "--json", out))[0]["architecture"] == "dlib_resnet"
    assert lines(facenet("config", "--json", env=env))[0]["weights"] == {"file": str(out), "there": True}
    assert_sentence(facenet(*get[:-1], env=env), "there already")
    rows = facenet("weights", "list", env=env).stdout.splitlines()
    assert [row.split("\t")[0] for row in rows] == ["vggface2", "casia-webface", "small"] and rows[2].endswith("downloaded")


def test_weights_that_are_not_what_they_should_be(server, tmp_path):
    env = {"XDG_DATA_HOME": str(tmp_path / "data"), "FACENET_PRETRAINED_URL": server, "FACENET_SMALL_URL": server}
    get = ["weights", "get", "--accept-licence"]
    assert_sentence(facenet("-q", *get, "vggface2", env=env), "status 404")
    Handler.kind = "text/html; charset=utf-8"
    if MODEL.exists():
        assert_sentence(facenet("-q", *get, "small", env=env), "web page")
    Handler.kind = "application/x"
    if MODEL.exists():
        assert_sentence(facenet("-q", *get, "small", env=env), "face_recognition_model-weights_manifest.json")
    assert_sentence(facenet("-q", *get, "vggface2", env=env | {"FACENET_PRETRAINED_URL": "http://127.0.0.1:1/"}), "cannot be downloaded")
    assert_sentence(facenet(*get, "large", env=env), "'large' is none of")
    assert not list((tmp_path / "data").rglob("*.safetensors"))

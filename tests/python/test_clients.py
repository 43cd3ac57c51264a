"""Programs of others against `facenet serve`: CompreFace's SDKs, Double Take's request, the curl calls of docs/rest.md, schemathesis,
and the page in Chromium."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from conftest import ROOT
from rest_service import KEY, serving
from test_command import COMMAND
from test_command import weights  # noqa: F401 (fixture)
from test_command_faces import ASTRONAUT, scenes  # noqa: F401 (fixture)
from test_detector import weight_file  # noqa: F401 (fixture)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built"),
    pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh"),
]
CLIENTS = ROOT / "build/clients"
SHOTS = ROOT / "build/clients/screenshots"


@pytest.fixture(scope="module")
def clients():
    subprocess.run([ROOT / "tests/clients/install.sh"], check=True)
    return CLIENTS


@pytest.fixture
def service(weights, weight_file, tmp_path):  # noqa: F811
    with serving(tmp_path / "staff.gallery", tmp_path, "--keep-pictures", "--weights", weights, "--detector", weight_file, "--threads", 2) as running:
        yield running


def run(*words: object, cwd=None, timeout: int = 600, **environment: str) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd, timeout=timeout, env=os.environ | environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


def test_python_sdk(service, clients, scenes):  # noqa: F811
    names = [scenes / f"{name}.png" for name in ("one", "three", "none")]
    said = run(clients / "sdk/bin/python", ROOT / "tests/clients/compreface_sdk.py", service.port, KEY, *names)
    assert said.count("ok ") == 21


def test_javascript_sdk(service, clients, scenes):  # noqa: F811
    said = run("node", ROOT / "tests/clients/compreface_js_sdk.mjs", clients, service.port, KEY, cwd=scenes)
    assert said.count("ok ") == 8


def test_the_documented_curl_calls(service, scenes):  # noqa: F811
    text = (ROOT / "docs/rest.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    script = "\n".join(blocks).replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
    own = f"curl -H 'x-api-key: {KEY}'"
    script = "\n".join(line.replace("curl ", f"{own} ", 1) if "/v1/" in line and "$S" not in line else line for line in script.splitlines())
    script = re.sub(r"^curl ", "curl --silent --show-error --fail-with-body ", script, flags=re.MULTILINE)
    assert script.count("curl ") == 16
    run("bash", "-euo", "pipefail", "-c", script, cwd=scenes)


def test_double_take(service, scenes):  # noqa: F811
    """Its request and what it reads of the answer."""
    service.call("POST", "/api/v1/recognition/faces", files={"file": scenes / "one.png"}, subject="Tom")
    query = {"limit": 0, "det_prob_threshold": 0.8, "face_plugins": "mask,gender,age"}
    answer = service.call("POST", "/api/v1/recognition/recognize", files={"file": scenes / "one.png"}, **query)
    (face,) = answer.json["result"]
    best, box = face["subjects"][0], face["box"]
    assert best["subject"] == "Tom" and best["similarity"] > 0.99 and box["x_max"] > box["x_min"] >= 0
    nothing = service.call("POST", "/api/v1/recognition/recognize", files={"file": scenes / "none.png"}, **query)
    assert nothing.status == 400 and nothing.json["code"] == 28


def test_schemathesis(service, clients):
    """Random calls after the document: no status, type or body that it does not describe, no server error."""
    config = service.call("GET", "/openapi.json", key=None)
    assert config.status == 200
    run(clients / "schemathesis/bin/schemathesis", "run", f"{service.url}/openapi.json", "--header", f"x-api-key: {KEY}",
        "--max-examples", 30 if "FACENET_LONG" in os.environ else 3, "--phases", "coverage,fuzzing", "--seed", 1, "--workers", 1, "--request-timeout", 60,
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance",
        cwd=clients, timeout=900, PYTHONPATH=str(ROOT / "tests/clients"), SCHEMATHESIS_HOOKS="schemathesis_hooks")


def test_the_page(service, scenes):  # noqa: F811
    if shutil.which("chromium") is None or not (ROOT / "build/web/node_modules/playwright-core").exists():
        pytest.skip("Chromium or playwright-core is not installed: run tools/bootstrap.sh --all")
    SHOTS.mkdir(parents=True, exist_ok=True)
    run("node", ROOT / "tests/clients/page.mjs", service.url, KEY, scenes, SHOTS)

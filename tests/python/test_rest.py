"""The interfaces of `facenet serve`: /api/v1, which CompreFace's clients speak, /v1, the OpenAPI document and the page.

Distances of the test's random weights mean nothing, but equal pictures have distance 0 with any weights.
"""

from __future__ import annotations

import base64
import json
import math
import shutil
import time
import uuid

import jsonschema
import pytest
from conftest import ROOT
from PIL import Image
from referencing import Registry, Resource
from rest_service import KEY, Service, multipart, serving
from test_command import COMMAND, facenet
from test_command import weights  # noqa: F401 (fixture)
from test_command_faces import ASTRONAUT, scenes  # noqa: F401 (fixture)
from test_detector import weight_file  # noqa: F401 (fixture)

pytestmark = [
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not built"),
    pytest.mark.skipif(not ASTRONAUT.exists(), reason=f"{ASTRONAUT} is not there: run tools/bootstrap.sh"),
]
API = "/api/v1/recognition"
SCHEMAS = {name: json.loads((ROOT / f"docs/schema/facenet-{name}-1.json").read_text(encoding="utf-8")) for name in ("command", "service")}
REGISTRY = Registry().with_resources((schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values())


def check(name: str, value) -> None:
    jsonschema.Draft202012Validator({"$ref": f"urn:facenet:service:1#/$defs/{name}"}, registry=REGISTRY).validate(value)


@pytest.fixture(scope="module")
def network(weights, weight_file):  # noqa: F811
    return ["--weights", weights, "--detector", weight_file, "--threads", 1]


@pytest.fixture(scope="module")
def service(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rest")
    with serving(folder / "staff.gallery", folder, "--keep-pictures", *network) as running:
        yield running


@pytest.fixture
def empty(service):
    assert service.call("DELETE", f"{API}/subjects").status == 200
    return service


def said(answer, status: int, code: int | None = None) -> str:
    """The sentence of an error."""
    check("error", answer.json)
    assert (answer.status, answer.json["code"]) == (status, status if code is None else code), answer.json
    text = answer.json["message"]
    for meant in ("application/json", "multipart/form-data", "/openapi.json"):
        text = text.replace(meant, "")
    assert "/" not in text, "no path of a file leaves"
    return answer.json["message"]


def example(service: Service, subject: str, picture) -> str:
    answer = service.call("POST", f"{API}/faces", files={"file": picture}, subject=subject)
    assert answer.status == 201, answer.body
    check("example", answer.json)
    assert answer.json["subject"] == subject
    return str(uuid.UUID(answer.json["image_id"]))


def test_subjects(empty):
    call = empty.call
    for name in ("Tom", "Ada Lovelace", "a/b", "Żółć"):
        answer = call("POST", f"{API}/subjects", {"subject": name})
        assert (answer.status, answer.json) == (201, {"subject": name})
    said(call("POST", f"{API}/subjects", {"subject": "Tom"}), 409, 1040)
    listed = call("GET", f"{API}/subjects/").json
    check("subjects", listed)
    assert sorted(listed["subjects"]) == sorted(["Tom", "Ada Lovelace", "a/b", "Żółć"])
    assert call("PUT", f"{API}/subjects/Tom", {"subject": "Thomas"}).json == {"updated": True}
    assert call("PUT", f"{API}/subjects/Thomas", {"subject": "Ada Lovelace"}).json == {"updated": True}, "merged"
    assert call("DELETE", f"{API}/subjects/a%2Fb").json == {"subject": "a/b"}
    said(call("DELETE", f"{API}/subjects/a%2Fb"), 404, 1022)
    said(call("PUT", f"{API}/subjects/Nobody", {"subject": "x"}), 404, 1022)
    assert call("DELETE", f"{API}/subjects").json == {"deleted": 2}
    for wrong in ({"subject": ""}, {"subject": 5}, {}, [], {"subject": "a\nb"}, {"subject": "x" * 256}):
        said(call("POST", f"{API}/subjects", wrong), 400)


def test_examples(empty, scenes):  # noqa: F811
    call, one = empty.call, scenes / "one.png"
    first = example(empty, "Tom", one)
    assert example(empty, "Tom", one) == first, "the same picture is the same example"
    said(call("POST", f"{API}/faces", files={"file": one}, subject="Eve"), 409, 1041)
    assert "No face" in said(call("POST", f"{API}/faces", files={"file": scenes / "none.png"}, subject="Tom"), 400, 28)
    said(call("POST", f"{API}/faces", files={"file": scenes / "three.png"}, subject="Tom"), 400, 1002)
    said(call("POST", f"{API}/faces", files={"file": one}), 400)
    page = call("GET", f"{API}/faces", page=0, size=1).json
    check("examples", page)
    assert page == {"faces": [{"image_id": first, "subject": "Tom"}], "page_number": 0, "page_size": 1, "total_pages": 1,
                    "total_elements": 1}
    assert call("GET", f"{API}/faces", page=1).json["faces"] == []
    said(call("GET", f"{API}/faces", subject="Nobody"), 404, 1022)
    for path in (f"{API}/faces/{first}/img", f"/api/v1/static/{KEY}/images/{first}"):
        answer = call("GET", path, key=KEY if "img" in path else None)
        assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "image/png", one.read_bytes())
    said(call("GET", f"/api/v1/static/not-the-right-key/images/{first}", key=None), 401)
    said(call("GET", f"{API}/faces/{uuid.uuid4()}/img"), 404, 1023)
    assert call("DELETE", f"{API}/faces/{first}").json == {"image_id": first, "subject": "Tom"}
    said(call("DELETE", f"{API}/faces/{first}"), 404, 1023)
    assert call("GET", f"{API}/subjects").json == {"subjects": ["Tom"]}, "a subject without examples stays"
    again = example(empty, "Tom", one)
    assert again != first
    assert call("POST", f"{API}/faces/delete", [again, str(uuid.uuid4()), again]).json == [{"image_id": again, "subject": "Tom"}]
    example(empty, "Tom", one)
    assert call("DELETE", f"{API}/faces", subject="Tom").json == {"deleted": 1}
    assert call("DELETE", f"{API}/faces").json == {"deleted": 0}


def test_recognition(empty, scenes, network):  # noqa: F811
    call, one, three = empty.call, scenes / "one.png", scenes / "three.png"
    nobody = call("POST", f"{API}/recognize", files={"file": one}).json
    check("recognition", nobody)
    assert nobody["result"][0]["subjects"] == []
    known = example(empty, "Tom", one)
    call("POST", f"{API}/subjects", {"subject": "Empty"})
    (face,) = call("POST", f"{API}/recognize", files={"file": one}, prediction_count=5).json["result"]
    assert [s["subject"] for s in face["subjects"]] == ["Tom"]
    assert set(face) == {"box", "subjects"} and all(isinstance(face["box"][k], int) for k in ("x_min", "y_min", "x_max", "y_max"))
    # Untrained weights: centred on the model's threshold c, so that distance 0 gives (tanh(6.4) + 1) / 2.
    assert face["subjects"][0]["similarity"] == pytest.approx((math.tanh(6.4) + 1) / 2, abs=1e-6)

    # As Double Take asks; base64 in JSON says the same.
    query = {"limit": 0, "det_prob_threshold": 0.8, "prediction_count": 1, "face_plugins": "landmarks,calculator,age,gender", "status": "true"}
    whole = call("POST", f"{API}/recognize", files={"file": three}, **query).json
    check("recognition", whole)
    encoded = call("POST", f"{API}/recognize", {"file": base64.b64encode(three.read_bytes()).decode()}, **query).json
    same = [{k: v for k, v in f.items() if k != "execution_time"} for f in whole["result"]]
    assert [{k: v for k, v in f.items() if k != "execution_time"} for f in encoded["result"]] == same
    assert len(whole["result"]) == 3 and "age, gender" in whole["note"] and whole["plugins_versions"]["age"] == "not available"
    assert "centred on the model's threshold" in whole["plugins_versions"]["similarity"]
    assert all({"detector", "calculator"} == set(f["execution_time"]) for f in whole["result"])
    assert len(call("POST", f"{API}/recognize", files={"file": three}, limit=1).json["result"]) == 1

    # The boxes, landmarks and embeddings are the command's.
    wanted = [json.loads(line) for line in facenet("embed", "--json", *network, three).stdout.splitlines()]
    for face, line in zip(whole["result"], wanted, strict=True):
        assert [face["box"][k] for k in ("x_min", "y_min", "x_max", "y_max")] == pytest.approx(line["box"], abs=0.51)
        assert all(a == pytest.approx(b, abs=0.51) for a, b in zip(face["landmarks"], line["landmarks"], strict=True))
        assert face["embedding"] == pytest.approx(line["embedding"], abs=1e-6)

    said(call("POST", f"{API}/recognize", files={"file": scenes / "none.png"}), 400, 28)
    vectors = [face["embedding"] for face in whole["result"]]
    answer = call("POST", f"{API}/embeddings/recognize", {"embeddings": vectors}).json
    check("embedding recognition", answer)
    assert [r["similarities"] for r in answer["result"]] == [f["subjects"] for f in whole["result"]]
    answer = call("POST", f"{API}/embeddings/faces/{known}/verify", {"embeddings": vectors}).json
    check("embedding verification", answer)
    assert [r["similarity"] for r in answer["result"]] == pytest.approx([f["subjects"][0]["similarity"] for f in whole["result"]])
    answer = call("POST", f"{API}/faces/{known}/verify", files={"file": three}).json
    check("face verification", answer)
    assert [r["similarity"] for r in answer["result"]] == pytest.approx([f["subjects"][0]["similarity"] for f in whole["result"]])
    said(call("POST", f"{API}/faces/{uuid.uuid4()}/verify", files={"file": one}), 404, 1023)

    answer = call("POST", "/api/v1/verification/embeddings/verify", {"source": vectors[0], "targets": vectors}).json
    check("embedding verification", answer)
    assert answer["result"][0]["similarity"] == pytest.approx((math.tanh(6.4) + 1) / 2, abs=1e-6)
    answer = call("POST", "/api/v1/verification/verify", files={"source_image": one, "target_image": three}, status="true").json
    check("verification", answer)
    alike = [m["similarity"] for m in answer["result"][0]["face_matches"]]
    assert len(alike) == 3 and alike == sorted(alike, reverse=True)
    answer = call("POST", "/api/v1/detection/detect", files={"file": three}, face_plugins="landmarks").json
    check("detection", answer)
    assert [f["box"] for f in answer["result"]] == [f["box"] for f in whole["result"]]


def test_what_is_refused(empty, scenes):  # noqa: F811
    call, one = empty.call, scenes / "one.png"
    said(call("GET", f"{API}/subjects", key=None), 401)
    said(call("GET", f"{API}/subjects", key="x" * 20), 401)
    for query in ({"limit": -1}, {"limit": "x"}, {"limit": 1.5}, {"det_prob_threshold": 2}, {"det_prob_threshold": "nan"},
                  {"prediction_count": 0}, {"status": "maybe"}, {"face_plugins": "nose"}):
        said(call("POST", f"{API}/recognize", files={"file": one}, **query), 400)
    for body, kind in ((b"x", "text/plain"), (b"", ""), (b"{}", "application/x-www-form-urlencoded")):
        said(call("POST", f"{API}/recognize", body, content_type=kind), 415)
    for body in ({}, {"file": 5}, {"file": "%%%"}, {"file": ""}, {"file": [[]]}, [], "file", None):
        said(call("POST", f"{API}/recognize", json.dumps(body).encode(), content_type="application/json"), 400)
    for text in (b"{", b"[" * 100000, b'{"file": 1e999}', b'{"a":' * 9 + b"1" + b"}" * 9, b"\xff", b"[" + b"0," * 1000001 + b"0]",
                 b"{" + b",".join(b'"%d":1' % i for i in range(70)) + b"}"):
        said(call("POST", f"{API}/embeddings/recognize", text, content_type="application/json"), 400)
    bad, kind = multipart([("file", "a.png", b"no picture")])
    assert said(call("POST", f"{API}/recognize", bad, content_type=kind), 400)
    other, kind = multipart([("other", "a.png", one.read_bytes())])
    said(call("POST", f"{API}/recognize", other, content_type=kind), 400)
    twice, kind = multipart([("file", "a.png", one.read_bytes())] * 2)
    said(call("POST", f"{API}/recognize", twice, content_type=kind), 400)
    for vectors in ([[1.0]], [], [["x"] * 128], [[0.0] * 128], {"a": 1}):
        said(call("POST", f"{API}/embeddings/recognize", {"embeddings": vectors}), 400, 1004)
    said(call("GET", "/v1/galleries/other/persons"), 404, 1021)
    said(call("GET", "/v1/nothing"), 404)
    said(call("PATCH", f"{API}/subjects"), 405)


def test_what_the_old_javascript_client_sends(empty, scenes):  # noqa: F811
    """Parameters joined by question marks, and from Node a multipart body whose header names no boundary."""
    one = scenes / "one.png"
    body, kind = multipart([("file", "example.jpg", one.read_bytes())])
    path = f"{API}/faces?subject=Tom?det_prob_threshold=0.8"
    assert empty.call("POST", path, body, content_type=kind).json["subject"] == "Tom"
    answer = empty.call("POST", f"{API}/recognize?det_prob_threshold=0.8?prediction_count=1?status=true", body, content_type="multipart/form-data")
    assert answer.status == 200 and "plugins_versions" in answer.json
    said(empty.call("POST", f"{API}/recognize", b"--x", content_type="multipart/form-data"), 415)


def test_v1(empty, scenes, network, tmp_path):  # noqa: F811
    call, one, three, none = empty.call, scenes / "one.png", scenes / "three.png", scenes / "none.png"
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")

    def lines(name: str, *arguments: object) -> list[dict]:
        return [json.loads(line) for line in facenet(name, "--json", *network, *arguments).stdout.splitlines()]

    def named(result: list[dict]) -> list[dict]:
        """With file names instead of paths, and without errors, which differ in them."""
        text = json.dumps([{k: v for k, v in line.items() if k != "error"} for line in result])
        return json.loads(text.replace(f"{scenes}/", "").replace(f"{tmp_path}/", ""))

    for name in ("detect", "embed"):
        answer = call("POST", f"/v1/{name}", files={"file": [one, three, none, bad]})
        check(f"{name} results", answer.json)
        assert named(answer.json["results"]) == named(lines(name, one, three, none, bad)), "JSON as the command's"
    raw = call("POST", "/v1/detect", one.read_bytes(), content_type="image/png").json
    assert raw["results"][0]["faces"] == lines("detect", one)[0]["faces"]
    said(call("POST", "/v1/detect", files={"file": bad}), 400)

    answer = call("POST", "/v1/verify", files={"a": one, "b": three}).json
    check("verify result", answer)
    (wanted,) = lines("verify", one, three)
    assert named([answer]) == named([wanted])
    said(call("POST", "/v1/verify", files={"a": one, "b": none}), 400, 28)

    at = "/v1/galleries/staff"
    answer = call("POST", f"{at}/persons/Ada%20Lovelace", files={"file": one})
    check("enroll results", answer.json)
    assert answer.status == 201 and answer.json["results"][0]["enrolled"]
    answer = call("POST", f"{at}/persons/Ada%20Lovelace", files={"file": one})
    assert answer.status == 200 and not answer.json["results"][0]["enrolled"]
    answer = call("POST", f"{at}/persons/Eve", files={"file": [three, none, bad, one]})
    check("enroll results", answer.json)
    assert ["error" in line for line in answer.json["results"]] == [True] * 4
    crowd = tmp_path / "crowd.png"
    with Image.open(one) as face:
        picture = Image.new("RGB", (420, 260), (90, 110, 130))
        picture.paste(face, (10, 10))
        picture.paste(face.resize((60, 66), Image.Resampling.BICUBIC), (300, 50))
        picture.save(crowd)
    answer = call("POST", f"{at}/persons/Crowd", files={"file": crowd}).json
    check("enroll results", answer)
    (alone,) = lines("enroll", tmp_path / "its_own", "Crowd", crowd)
    assert answer["results"][0]["ignored"] == alone["ignored"] and len(alone["ignored"]) == 1, "who is left out is said, as the command says it"
    call("DELETE", f"{at}/persons/Crowd")
    recoded = tmp_path / "again.png"
    with Image.open(one) as picture:
        picture.save(recoded, compress_level=1)
    answer = call("POST", f"{at}/persons/Eve", files={"file": recoded}).json["results"][0]
    assert [(d["name"], d["distance"]) for d in answer["duplicates"]] == [("Ada Lovelace", 0)], "one face under two names"

    answer = call("POST", "/v1/identify", files={"file": [one, none]}, top=2).json
    check("identify results", answer)
    assert answer["results"][0]["decision"] == "ambiguous" and {c["name"] for c in answer["results"][0]["candidates"]} == {"Ada Lovelace", "Eve"}
    assert call("DELETE", f"{at}/persons/Eve").json == {"persons": ["Eve"], "templates": 1}
    (line,) = call("POST", "/v1/identify", files={"file": one}, gallery="staff").json["results"]
    assert line["decision"] == "known" and [m["name"] for m in line["matches"]] == ["Ada Lovelace"]
    (line,) = call("POST", "/v1/identify", files={"file": three}, limit=1, threshold=1e-9).json["results"]
    assert line["decision"] == "unknown" and line["matches"] == []

    check("galleries", call("GET", "/v1/galleries").json)
    persons = call("GET", f"{at}/persons").json
    check("persons", persons)
    assert [(p["name"], p["templates"]) for p in persons["persons"]] == [("Ada Lovelace", 1)]
    shown = call("GET", f"{at}/persons/Ada%20Lovelace").json
    check("templates", shown)
    dump = call("GET", f"{at}/export").body
    assert call("PUT", f"{at}/persons/Ada%20Lovelace", {"name": "Ada"}).json == {"name": "Ada", "was": "Ada Lovelace"}
    call("POST", f"{API}/subjects", {"subject": "Byron"})
    said(call("PUT", f"{at}/persons/Ada", {"name": "Byron"}), 409, 1040)
    assert call("PUT", f"{at}/persons/Ada", {"name": "Byron"}, merge="true").status == 200
    assert [p["name"] for p in call("GET", f"{at}/persons").json["persons"]] == ["Byron"]
    call("DELETE", f"{at}/persons/Byron")
    answer = call("POST", f"{at}/import", dump, content_type="application/x-ndjson").json
    check("imported", answer)
    assert answer == {"enrolled": 1, "there": 0}
    said(call("POST", f"{at}/import", b"{}", content_type="application/x-ndjson"), 400)
    (line,) = call("POST", "/v1/identify", files={"file": one}).json["results"]
    assert [m["name"] for m in line["matches"]] == ["Ada Lovelace"], "an import is searched at once"

    answer = call("POST", "/v1/cluster", files={"file": [one, recoded, none]}).json
    check("cluster results", answer)
    assert [face["image"] for face in answer["results"][0]["faces"]] == ["one.png", "again.png"]
    log = call("GET", "/v1/log", after=0).json
    check("log", log)
    assert "Ada" not in json.dumps(log) and log["requests"][-1]["route"] == "/v1/cluster"


def test_another_process_changes_the_gallery(network, scenes, tmp_path):  # noqa: F811
    """And what is replaced underneath is noticed: changes are refused until the new file is read."""
    db, one = tmp_path / "a.gallery", scenes / "one.png"
    assert facenet("enroll", *network, db, "Tom", one).returncode == 0
    shutil.copy(db, tmp_path / "copy")
    with serving(db, tmp_path, *network) as service:
        def subjects(wanted: list[str]) -> None:
            for _ in range(100):
                if (names := service.call("GET", f"{API}/subjects").json["subjects"]) == wanted:
                    return
                time.sleep(0.1)
            raise AssertionError((names, wanted))

        subjects(["Tom"])
        known = service.call("GET", f"{API}/faces").json["faces"][0]["image_id"]
        assert "--keep-pictures" in said(service.call("GET", f"{API}/faces/{known}/img"), 404, 1024)
        assert facenet("gallery", "rename", db, "Tom", "Thomas").returncode == 0
        subjects(["Thomas"])
        assert service.call("POST", f"{API}/subjects", {"subject": "Eve"}).status == 201
        assert "Eve" in facenet("gallery", "list", db).stdout
        shutil.move(db, tmp_path / "old")
        said(service.call("POST", f"{API}/subjects", {"subject": "Lost"}), 503)
        shutil.copy(tmp_path / "copy", tmp_path / "new")
        (tmp_path / "new").rename(db)
        subjects(["Tom"])
        assert service.call("POST", f"{API}/subjects", {"subject": "Eve"}).status == 201


def test_the_document_has_every_call(service):
    document = service.call("GET", "/openapi.json", key=None).json
    assert document["openapi"] == "3.1.0"
    operations = {(path, method): o for path, methods in document["paths"].items() for method, o in methods.items()}
    assert len({o["operationId"] for o in operations.values()}) == len(operations) > 30
    names = set(document["components"]["schemas"])
    assert {name.replace(" ", "_") for schema in SCHEMAS.values() for name in schema["$defs"]} == names

    def references(value):
        if isinstance(value, dict):
            yield from (v for k, v in value.items() if k == "$ref")
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    assert {r.removeprefix("#/components/schemas/") for r in references(document)} <= names
    # What the document names answers: none of its calls is "no such path" or "no such method".
    for path, method in operations:
        answer = service.call(method.upper(), path.replace("{", "x").replace("}", ""), key=None)
        assert answer.status == 401, (method, path, answer.status)


def test_the_page_is_its_own(service):
    page = service.call("GET", "/", key=None)
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    text = page.body.decode()
    for name in ("style.css", "page.css", "app.js", "icon.svg"):
        assert name in text and service.call("GET", f"/{name}", key=None).status == 200
    assert "style=" not in text and "onclick" not in text and "//" not in text.replace("</", "")


def test_moving_in(network, scenes, tmp_path):  # noqa: F811
    """facenet gallery import --compreface takes subjects and examples over, ids included, and goes on where it was stopped."""
    old, new, one = tmp_path / "old.gallery", tmp_path / "new.gallery", scenes / "one.png"
    (tmp_path / "key").write_text(f"{KEY}\n")
    with serving(old, tmp_path, "--keep-pictures", *network) as service:
        known = example(service, "Tom / Żółć", one)
        service.call("POST", f"{API}/subjects", {"subject": "Nobody yet"})
        words = ["gallery", "import", new, "--compreface", service.url, f"@{tmp_path}/key", "--json", *network]
        first = facenet(*words)
        assert json.loads(first.stdout) == {"enrolled": 1, "there": 0, "failed": 0}, first.stderr
        assert json.loads(facenet(*words).stdout) == {"enrolled": 0, "there": 1, "failed": 0}
        wrong = facenet("gallery", "import", new, "--compreface", service.url, "not-the-key-of-anybody", *network)
        assert wrong.returncode == 2 and "does not take this key" in wrong.stderr
    gone = facenet("gallery", "import", new, "--compreface", service.url, KEY, *network)
    assert gone.returncode == 2 and "does not answer" in gone.stderr
    with serving(new, tmp_path, *network) as service:
        assert service.call("GET", f"{API}/faces").json["faces"] == [{"image_id": known, "subject": "Tom / Żółć"}]
        assert sorted(service.call("GET", f"{API}/subjects").json["subjects"]) == ["Nobody yet", "Tom / Żółć"]

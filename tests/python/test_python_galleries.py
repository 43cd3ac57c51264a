"""Galleries of the Python package: the command's files, other processes, forks, and what is refused."""

from __future__ import annotations

import os
import pathlib
import pickle
import subprocess

import numpy as np
import pytest
from python_package import BUILD, BUILT, MadeUp, axis, needs_package, run_python, said

pytestmark = needs_package
if BUILT:
    import facenet


@pytest.fixture(scope="module")
def embedder(converted):
    with facenet.Embedder(converted["f32"], threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def three_people(embedder) -> dict[str, np.ndarray]:
    from facenet_tools import pictures

    rng = np.random.default_rng(5)
    return {name: embedder.embed([pictures.structured(rng) for _ in range(2)]) for name in ("Ada", "Zoë", "李小龍")}


def test_a_gallery_is_the_commands(embedder, three_people, tmp_path):
    path = tmp_path / "staff.gallery"
    with facenet.Gallery(path) as gallery:
        assert gallery.list() == [] and gallery.model is None and not path.exists()
        for name, embeddings in three_people.items():
            first = gallery.add(name, embeddings[0], embedder=embedder)
            assert first.new and gallery.add(name, embeddings[0], embedder=embedder) == (first.template, False)
            gallery.add(name, embeddings[1], embedder=embedder, face=facenet.Face((1, 2, 3, 4), 0.5, np.zeros((5, 2), np.float32)))
        assert gallery.list() == [("Ada", 2), ("Zoë", 2), ("李小龍", 2)] and len(gallery) == 3 and "Zoë" in gallery
        assert gallery.model["digest"] == embedder.info["digest"]
        everyone = np.concatenate(list(three_people.values()))
        found = gallery.search(everyone, k=3)
        assert [m[0].name for m in found] == [name for name in three_people for _ in range(2)]
        assert all(m[0].distance == 0 and m[0].similarity == 1 and len(m) == 3 for m in found)
        assert [[m.distance for m in of_one] for of_one in found] == [sorted(m.distance for m in of_one) for of_one in found]
        for query, of_one in zip(everyone, found):
            nearest = {name: min(facenet.distance(query, e) for e in embeddings) for name, embeddings in three_people.items()}
            assert {m.name: m.distance for m in of_one} == pytest.approx(nearest, rel=1e-6)
        assert gallery.search(everyone[0]) == found[0][:1] and gallery.search(-everyone[0], threshold=0.1) == []
        (a, b) = gallery.templates("Ada")
        assert (a.name, a.image, a.box) == ("Ada", "array", (0, 0, 0, 0)) and (b.box, b.score) == ((1, 2, 3, 4), 0.5)
        command = BUILD / "facenet"
        if command.exists():  # the command reads it, and what the command changes is seen at the next search
            done = subprocess.run([command, "gallery", "remove", path, "Ada"], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        else:
            gallery.remove("Ada")
        assert gallery.search(everyone[0])[0].name != "Ada"
        gallery.rename("Zoë", "Zoe")
        assert gallery.remove("Zoe") == 2 and gallery.list() == [("李小龍", 2)]
        assert gallery.remove_templates(*[t.id for t in gallery.templates("李小龍")]) == ["李小龍"]
    for call in (gallery.list, lambda: gallery.search(everyone)):
        assert "closed" in said(call)


def test_galleries_refuse_in_a_sentence(embedder, three_people, converted, tmp_path):
    gallery = facenet.Gallery(tmp_path / "g", threads=1)
    ada = three_people["Ada"][0]
    assert "no gallery yet" in said(lambda: gallery.search(ada))
    gallery.add("Ada", ada, embedder=embedder)
    assert "enrolled as 'Ada'" in said(lambda: gallery.add("Zoë", ada, embedder=embedder))
    assert "[128]" in said(lambda: gallery.add("Zoë", ada[:5], embedder=embedder))
    assert "zero" in said(lambda: gallery.add("Zoë", ada * 0, embedder=embedder))
    assert "nobody" in said(lambda: gallery.remove("nobody"))
    assert "control" in said(lambda: gallery.add("a\nb", ada, embedder=embedder))
    assert "length" in said(lambda: gallery.search(ada[:5]))
    with facenet.Embedder(converted["f16"], threads=1) as other:
        assert str(tmp_path / "g") in said(lambda: gallery.add("Zoë", other.embed(np.zeros((160, 160, 3), np.uint8)), embedder=other))
    said(lambda: gallery.add("Zoë", ada, embedder=embedder, picture=tmp_path / "none"), FileNotFoundError)
    said(lambda: facenet.Gallery(tmp_path / "absent", mode="read"), OSError)
    (tmp_path / "text").write_text("no database, but longer than a header of one would be\n" * 20)
    said(lambda: facenet.Gallery(tmp_path / "text", mode="read"))
    assert pickle.loads(pickle.dumps(gallery)).list() == [("Ada", 1)]


# ---- a file that changes, and what is refused ------------------------------------------------------------------------


def test_persons_are_listed_as_they_were_added(tmp_path):
    with facenet.Gallery(tmp_path / "g") as gallery:
        for i, name in enumerate(("Zoe", "Ada", "Bob")):
            gallery.add(name, axis(i), embedder=MadeUp)
        gallery.rename("Zoe", "Cat")
        assert [person.name for person in gallery.list()] == ["Cat", "Ada", "Bob"]
        assert [template.name for template in gallery.templates("Bob", "Cat")] == ["Bob", "Cat"]


def test_a_gallery_that_another_one_makes_replaces_and_removes(tmp_path):
    """Two objects stand for two processes."""
    path = tmp_path / "g"
    with facenet.Gallery(path) as early, facenet.Gallery(path) as other:
        assert early.list() == [] and early.model is None
        other.add("Ada", axis(0), embedder=MadeUp)
        assert early.list() == [("Ada", 1)] and early.model["embedding_dim"] == 4
        assert early.search(axis(0))[0].name == "Ada"
        with facenet.Gallery(tmp_path / "new") as new:
            new.add("Bob", axis(1), embedder=MadeUp)
        (tmp_path / "new").rename(path)
        for gallery in (early, other):
            assert gallery.list() == [("Bob", 1)] and gallery.search(axis(1))[0][:2] == ("Bob", 0)
        other.add("Cat", axis(2), embedder=MadeUp)
        assert [person.name for person in early.list()] == ["Bob", "Cat"]
        path.unlink()
        assert early.list() == [] and "no gallery yet" in said(lambda: early.search(axis(0)))
        early.add("Dan", axis(3), embedder=MadeUp)
        assert other.list() == [("Dan", 1)]
        with facenet.Gallery(path, mode="read") as reader:
            path.write_text("no database, but longer than a header of one would be\n" * 20)
            (tmp_path / "text").write_bytes(path.read_bytes())
            (tmp_path / "text").rename(path)
            assert "not an SQLite database" in said(reader.list)
            path.unlink()
            assert "no such gallery" in said(reader.list, OSError)


def test_a_folder_that_is_left_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with facenet.Gallery("g") as gallery:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        gallery.add("Ada", axis(0), embedder=MadeUp)
        assert (tmp_path / "g").exists() and gallery.path == str(tmp_path / "g")
        assert pickle.loads(pickle.dumps(gallery)).list() == [("Ada", 1)]


def test_what_is_refused_is_an_error_of_ours(tmp_path):
    path = tmp_path / "g"
    with facenet.Gallery(path) as gallery:
        assert "list" in said(lambda: gallery.add("Ada", [1.0, 0, 0, 0], embedder=MadeUp))
        assert "byte 0" in said(lambda: gallery.add("Ada", axis(0), embedder=MadeUp, picture="a\0b"))
        assert "UTF-8" in said(lambda: gallery.add("\udc80", axis(0), embedder=MadeUp))
        gallery.add("Ada", axis(0), embedder=MadeUp)
    with facenet.Gallery(path, mode="read") as reader:
        for change in (lambda: reader.add("Bob", axis(1), embedder=MadeUp), lambda: reader.remove("Ada"), lambda: reader.rename("Ada", "Bob")):
            assert 'mode="change"' in said(change, OSError)
    assert "byte 0" in said(lambda: facenet.Gallery("a\0b"))


def test_pictures_whose_names_are_not_utf8(tmp_path):
    name = str(tmp_path).encode() + b"/\xff.png"
    with open(name, "wb") as file:
        file.write(b"any bytes")
    with facenet.Gallery(tmp_path / "g") as gallery:
        gallery.add("Ada", axis(0), embedder=MadeUp, picture=os.fsdecode(name))
        assert gallery.search(axis(0))[0].image.endswith("/\ufffd.png")


# ---- processes that are forked ---------------------------------------------------------------------------------------

CHILDREN = """
import os, sys, threading, time
import numpy as np, facenet
sys.path.insert(0, sys.argv[2])
from python_package import MadeUp, axis
gallery = facenet.Gallery(sys.argv[1])
gallery.add("Ada", axis(0), embedder=MadeUp)
gallery.search(axis(0))
def files(): return sum(os.path.realpath(f"/proc/self/fd/{fd}") == os.path.realpath(sys.argv[1]) for fd in os.listdir("/proc/self/fd"))
stop = False
def work():
    n = 0
    while not stop:
        gallery.search(axis(0))
        gallery.add(f"parent {n}", np.random.default_rng(n).normal(size=4).astype(np.float32), embedder=MadeUp)
        n += 1
        time.sleep(0.003)  # the child gets its turn at the file too
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
ends = []
for n in range(6):
    had = files()
    pid = os.fork()
    if pid == 0:
        gallery.add(f"child {n}", np.random.default_rng(1000 + n).normal(size=4).astype(np.float32), embedder=MadeUp)
        assert gallery.search(axis(0))[0].name == "Ada" and f"child {n}" in gallery
        os._exit(files() - had)  # one more: a connection of its own
    ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop = True
for thread in threads:
    thread.join()
print(set(ends), all(f"child {n}" in gallery for n in range(6)))
"""


def test_forked_processes_open_the_file_themselves(tmp_path):
    """While two threads of the parent are in SQLite: the child has neither their locks nor their connection."""
    done = run_python(CHILDREN, tmp_path / "g", pathlib.Path(__file__).parent)
    assert done.returncode == 0 and done.stdout.strip() == "{1} True", (done.stdout, done.stderr)


INTERRUPTED = """
import os, signal, sqlite3, sys, threading, time
import numpy as np, facenet
sys.path.insert(0, sys.argv[1])
import python_package
embedder = python_package.MadeUp()
dim = 512 if sys.argv[2] == "search" else 4
embedder.info = dict(embedder.info, embedding_dim=dim)
rows, k = (100, 100) if sys.argv[2] == "search" else (600000, 1)
random = np.random.default_rng(1)
with facenet.Gallery("g") as gallery:
    gallery.add("Ada", random.normal(size=dim).astype(np.float32), embedder=embedder)
with sqlite3.connect("g") as file:  # a commit for each would take minutes
    others = range(2, rows + 1)
    file.executemany("INSERT INTO person (id, name) VALUES (?, ?)", ((i, f"person {i}") for i in others))
    columns = "id, person, image, sha256, face, x1, y1, x2, y2, score, enrolled, embedding"
    values = "?, ?, '', ?, 0, 0, 0, 0, 0, 0, '2026-01-01T00:00:00Z', ?"
    embeddings = random.normal(size=(rows + 1, dim)).astype(np.float32)
    file.executemany(f"INSERT INTO template ({columns}) VALUES ({values})", ((i, i, f"{i:064}", embeddings[i].tobytes()) for i in others))
gallery = facenet.Gallery("g", threads=1)
queries = random.normal(size=(60000 if sys.argv[2] == "search" else 1, dim)).astype(np.float32)
sent = []
def interrupt():
    time.sleep(0.3)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    gallery.search(queries, k=k)
    print("it ended")
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
print(len(gallery.search(queries[:1], k=k)[0]))
"""


@pytest.mark.parametrize("what", ["search", pytest.param("load", marks=pytest.mark.slow)])
def test_ctrl_c_ends_a_search(what, tmp_path):
    """While it searches, and while it reads the gallery; the next search reads it anew and is right."""
    done = run_python(INTERRUPTED, pathlib.Path(__file__).parent, what, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    seconds, found = done.stdout.split()
    assert float(seconds) < 0.1 and int(found) == (100 if what == "search" else 1)

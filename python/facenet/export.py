"""Embeddings for other engines: FAISS, PostgreSQL with pgvector, sqlite-vec. docs/scale.md of the sources says when that pays.

python -m facenet.export SOURCE --faiss OUT | --sqlite OUT | --postgres CONNECTION
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import sqlite3
import sys
import uuid
from typing import TYPE_CHECKING, Any, Generator, Iterator, NamedTuple, Sequence

from facenet import _files
from facenet._errors import FacenetError, error, needed
from facenet._recognition import Gallery

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

PGVECTOR_DIMS = 2000  # pgvector indexes no longer vectors


class Label(NamedTuple):
    """Whose embedding it is: a person's, or a face's of a picture."""

    id: int  # the template's in a gallery, else the row
    name: str | None
    image: str | None
    face: int | None


class Templates(NamedTuple):
    labels: Sequence[Label]
    embeddings: Floats  # float32 [n, dim]
    model: str | None  # digest of the weights: embeddings of two models are not comparable


# ---- what is read ----------------------------------------------------------------------------------------------------


def read(source: Gallery | str | os.PathLike[str]) -> Templates:
    """The embeddings of a gallery, of X.npy with its X.index.jsonl (facenet embed), or of Parquet: a file, or a folder of
    facenet.batches. All of them in memory, but those of X.npy."""
    if isinstance(source, Gallery):
        return _of_gallery(source)
    path = pathlib.Path(_files.absolute(source))
    if not path.exists():
        raise error("not_found", f"{path}: there is no such file; give a gallery, X.npy, or Parquet.")
    try:
        if path.is_dir() or path.suffix == ".parquet":
            found = _of_parquet(path)
        elif path.suffix == ".npy":
            found = _of_npy(path)
        else:
            return _of_gallery(Gallery(path, mode="read"))
    except (OSError, ValueError, KeyError, TypeError) as e:
        if isinstance(e, FacenetError):
            raise
        raise error("corrupt", f"{path}: cannot be read as embeddings ({e}); make it again.") from e
    import numpy as np

    for first in range(0, len(found.embeddings), 1 << 16):
        if not np.isfinite(found.embeddings[first : first + (1 << 16)]).all():
            raise error("corrupt", f"{path}: an embedding is not finite; make it again.")
    return found


def _of_gallery(gallery: Gallery) -> Templates:
    """Read by its schema, docs/galleries.md."""
    import numpy as np

    model = gallery.model  # this is how the engine refuses a file that is none
    if model is None:
        raise error("gallery", f"{gallery.path}: this gallery has no templates; enroll someone.")
    query = "SELECT template.id, name, image, face, embedding FROM template JOIN person ON person.id = person ORDER BY template.id"
    try:
        with contextlib.closing(sqlite3.connect(f"{pathlib.Path(gallery.path).as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute(query).fetchall()
    except sqlite3.Error as e:
        raise error("gallery", f"{gallery.path}: cannot be read ({e}); try again when no other process changes it.") from e
    embeddings = np.frombuffer(b"".join(row[4] for row in rows), "<f4").reshape(len(rows), model["embedding_dim"])
    return Templates([Label(*row[:4]) for row in rows], embeddings, model["digest"])


def _of_npy(path: pathlib.Path) -> Templates:
    import numpy as np

    embeddings = np.load(path, mmap_mode="r")
    if embeddings.ndim != 2 or embeddings.dtype != np.float32:
        raise error("invalid_argument", f"{path}: holds {embeddings.dtype} {list(embeddings.shape)}; give float32 [n, dim].")
    index = path.with_suffix(".index.jsonl")
    if not index.exists():
        return Templates([Label(i, None, None, None) for i in range(len(embeddings))], embeddings, None)
    with open(index, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if len(rows) != len(embeddings):
        raise error("invalid_argument", f"{index}: has {len(rows)} lines for {len(embeddings)} embeddings; they are of two runs: embed again.")
    labels = [Label(i, None, row["image"], row["face"]) for i, row in enumerate(rows)]
    return Templates(labels, embeddings, _one({row["model"] for row in rows}, path))


def _of_parquet(path: pathlib.Path) -> Templates:
    import numpy as np

    parquet = needed("pyarrow.parquet", "pyarrow")
    labels: list[Label] = []
    arrays: list[Any] = []
    models: set[str] = set()
    for file in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        schema = parquet.read_schema(file)
        image = "path" if "path" in schema.names else "image"
        table = parquet.read_table(file, columns=[image, "face", "embedding"])
        table = table.filter(table["embedding"].is_valid())
        models.add(json.loads(schema.metadata[b"facenet"])["model"])
        if len(table):
            labels += [Label(len(labels) + i, None, *row) for i, row in enumerate(zip(table[image].to_pylist(), table["face"].to_pylist()))]
            arrays.append(table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1))
    if not arrays:
        raise error("invalid_argument", f"{path}: holds no embedding; give a folder that facenet.batches wrote, or such a file.")
    return Templates(labels, np.concatenate(arrays), _one(models, path))


def _one(models: set[str], path: pathlib.Path) -> str | None:
    if len(models) > 1:
        raise error("weights_mismatch", f"{path}: holds embeddings of {len(models)} models, which are not comparable; embed all with one weight file.")
    return next(iter(models), None)


# ---- what is written -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _new(*outputs: str) -> Generator[list[str], None, None]:
    """Files that appear when they are whole; only their owner may read them."""
    for path in outputs:
        if os.path.exists(path) and not os.path.isfile(path):  # renaming over a device would take it from everybody
            raise error("io_error", f"{path}: this is not a regular file; choose another output name.")
    made = [f"{path}.{uuid.uuid4().hex}" for path in outputs]
    try:
        for path in made:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield made
        for path, output in zip(made, outputs):
            os.replace(path, output)
    except OSError as e:
        if isinstance(e, FacenetError):
            raise
        raise error("io_error", f"{outputs[0]}: cannot be written ({e.strerror or e}); free space, or give another folder.") from e
    finally:
        for path in made:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def to_faiss(templates: Templates, output: str | os.PathLike[str], index: str = "Flat") -> None:
    """An index for faiss.read_index, and OUTPUT.jsonl: a line {id, name, image, face, model} for each.

    index: a string of faiss.index_factory: "Flat" (exact), "HNSW32", "IVF4096,PQ64" and others. Its ids are those of the labels;
    its distances are Euclidean, squared.
    """
    import numpy as np

    faiss = needed("faiss", "faiss-cpu")
    dim = templates.embeddings.shape[1]
    try:
        made = faiss.index_factory(dim, f"IDMap,{index}", faiss.METRIC_L2)
        if not made.is_trained:
            made.train(np.ascontiguousarray(templates.embeddings))
        made.add_with_ids(np.ascontiguousarray(templates.embeddings), np.array([label.id for label in templates.labels], np.int64))
    except RuntimeError as e:
        raise error("invalid_argument", f'index: FAISS refuses "{index}" for {len(templates.labels)} embeddings ({_first_line(e)}); give another.') from e
    target = _files.absolute(output)
    with _new(target, f"{target}.jsonl") as (binary, names):
        faiss.write_index(made, binary)
        with open(names, "w", encoding="utf-8") as file:
            for label in templates.labels:
                file.write(json.dumps({**label._asdict(), "model": templates.model}, ensure_ascii=False) + "\n")


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or ["it says nothing"])[0].rstrip(".")


def to_sqlite_vec(templates: Templates, output: str | os.PathLike[str]) -> None:
    """An SQLite file for the extension sqlite-vec: face (id, name, image, face, model) and face_vec (id, embedding), a vec0 table of
    Euclidean distances, which it searches exactly."""
    vec = needed("sqlite_vec", "sqlite-vec")
    with _new(_files.absolute(output)) as (path,), contextlib.closing(sqlite3.connect(path)) as db:
        if not hasattr(db, "enable_load_extension"):
            raise error("unsupported", "this Python's sqlite3 loads no extensions; use one that was built with them, as Debian's.")
        db.enable_load_extension(True)
        vec.load(db)
        try:
            db.execute("PRAGMA journal_mode = OFF")  # the file has no name yet
            db.execute("CREATE TABLE face (id INTEGER PRIMARY KEY, name TEXT, image TEXT, face INTEGER, model TEXT)")
            db.execute(f"CREATE VIRTUAL TABLE face_vec USING vec0(id INTEGER PRIMARY KEY, embedding float[{templates.embeddings.shape[1]}])")
            db.executemany("INSERT INTO face VALUES (?, ?, ?, ?, ?)", ((*label, templates.model) for label in templates.labels))
            rows = ((label.id, e.tobytes()) for label, e in zip(templates.labels, templates.embeddings))
            db.executemany("INSERT INTO face_vec VALUES (?, ?)", rows)
            db.commit()
        except sqlite3.Error as e:
            raise error("io_error", f"{os.fspath(output)}: sqlite-vec cannot write it ({e}); free space, or give another folder.") from e


def to_postgres(templates: Templates, connection: Any, table: str = "face", *, hnsw: bool = True) -> None:
    """A new table (id, name, image, face, model, embedding) in PostgreSQL with pgvector, in one transaction.

    connection: of psycopg 3, which the caller commits; or a string that psycopg.connect takes. hnsw: an index for embedding <-> x,
    the Euclidean distance: fast and approximate. Without one PostgreSQL compares all, exactly.
    """
    sql, psycopg = needed("psycopg.sql", '"psycopg[binary]"'), needed("psycopg", '"psycopg[binary]"')
    dim = templates.embeddings.shape[1]
    if hnsw and dim > PGVECTOR_DIMS:
        raise error("unsupported", f"pgvector indexes {PGVECTOR_DIMS} numbers at most, not {dim}; give hnsw=False.")
    name = sql.Identifier(table)
    try:
        with contextlib.ExitStack() as opened:
            db = opened.enter_context(psycopg.connect(connection)) if isinstance(connection, str) else connection
            cursor = opened.enter_context(db.cursor())
            cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
            columns = f"(id bigint PRIMARY KEY, name text, image text, face int, model text, embedding vector({dim}) NOT NULL)"
            cursor.execute(sql.SQL("CREATE TABLE {} " + columns).format(name))
            with cursor.copy(sql.SQL("COPY {} FROM STDIN").format(name)) as copy:
                for row in _rows(templates):
                    copy.write_row(row)
            if hnsw:
                cursor.execute(sql.SQL("CREATE INDEX ON {} USING hnsw (embedding vector_l2_ops)").format(name))
    except psycopg.Error as e:
        raise error("io_error", f'PostgreSQL refuses the table "{table}" ({_first_line(e)}); drop it, or give another name or connection.') from e


def _rows(templates: Templates) -> Iterator[tuple[Any, ...]]:
    """Nine digits are a float to the bit."""
    for label, e in zip(templates.labels, templates.embeddings):
        yield (*label, templates.model, "[" + ",".join(f"{v:.9g}" for v in e.tolist()) + "]")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m facenet.export", description="Gives embeddings to another search engine.")
    parser.add_argument("source", metavar="SOURCE", help="a gallery, X.npy, a Parquet file, or a folder of them")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--faiss", metavar="OUT", help="an index of FAISS, and OUT.jsonl with what its ids mean")
    target.add_argument("--sqlite", metavar="OUT", help="an SQLite file for sqlite-vec")
    target.add_argument("--postgres", metavar="CONNECTION", help="a new table of PostgreSQL: postgresql://…")
    parser.add_argument("--index", default="Flat", help="of FAISS: a string of its index_factory (Flat, which is exact)")
    parser.add_argument("--table", default="face", help="of PostgreSQL (face)")
    options = parser.parse_args()
    try:
        templates = read(options.source)
        if options.faiss:
            to_faiss(templates, options.faiss, options.index)
        elif options.sqlite:
            to_sqlite_vec(templates, options.sqlite)
        else:
            to_postgres(templates, options.postgres, options.table)
    except FacenetError as e:
        print(f"facenet.export: {e}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(templates.labels)} embeddings of {templates.embeddings.shape[1]} numbers")


if __name__ == "__main__":
    main()

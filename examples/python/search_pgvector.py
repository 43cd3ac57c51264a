"""Searches a gallery with PostgreSQL and pgvector, beside the engine's own exact search: the five nearest of each of its templates.

    pip install facenet-engine pgserver "psycopg[binary]"
    python search_pgvector.py staff.gallery

pgserver is a PostgreSQL with pgvector that needs no rights; its data are deleted at the end. With a server of your own give
psycopg.connect and to_postgres its address.
"""

import sys
import tempfile

import pgserver
import psycopg

from facenet import export

templates = export.read(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:
    server = pgserver.get_server(folder)
    export.to_postgres(templates, server.get_uri(), "face")  # with an HNSW index
    with psycopg.connect(server.get_uri()) as db:
        db.execute("SET hnsw.ef_search = 100")  # more finds more, and takes longer
        nearest = "SELECT f.id, f.name, f.embedding <-> q.embedding FROM face q, face f WHERE q.id = %s AND f.id <> q.id ORDER BY 3 LIMIT 5"
        for label in templates.labels:
            for number, name, distance in db.execute(nearest, (label.id,)):
                print(f"{label.name} {label.id}\t{name} {number}\t{distance:.4f}")
    server.cleanup()

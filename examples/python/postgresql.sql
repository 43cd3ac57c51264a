-- Embeddings in PostgreSQL with the extension pgvector (0.5 or newer). First, in a shell:
--
--   facenet embed photographs/ --out faces.csv
--   python3 -c 'import csv, sys
--   for r in csv.DictReader(open("faces.csv", encoding="utf-8", newline="")):
--       e = [v for k, v in r.items() if k[0] == "e" and k[1:].isdigit()]
--       csv.writer(sys.stdout).writerow([r["image"], r["face"], r["model"], "[" + ",".join(e) + "]"])' > rows.csv

CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE face (
  id        bigserial PRIMARY KEY,
  image     text NOT NULL,
  face      int NOT NULL,
  model     text NOT NULL,           -- embeddings of two models are not comparable: always ask for one
  embedding vector(128) NOT NULL,    -- 512 for most FaceNet checkpoints: "dim" of facenet info
  UNIQUE (image, face, model)
);

\copy face (image, face, model, embedding) FROM 'rows.csv' CSV

-- <-> is the Euclidean distance, as --threshold means it. An exact scan; for millions of faces add an approximate index:
-- CREATE INDEX ON face USING hnsw (embedding vector_l2_ops);
SELECT f.image, f.face, f.embedding <-> q.embedding AS distance
FROM face q JOIN face f ON f.model = q.model AND f.id <> q.id
WHERE q.image = 'photographs/a.jpg' AND q.face = 0
ORDER BY distance
LIMIT 5;

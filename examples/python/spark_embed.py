"""All faces of the pictures in a folder as Parquet, by Spark: a pandas UDF over a table of paths.

    pip install "pyspark[sql]" facenet-engine        # and Java 17 or later
    spark-submit spark_embed.py photographs/ faces.parquet

Pictures and weights must have the same paths on all workers. A task that is tried again gives the same rows, and Spark writes
those of one try. A run that was stopped begins anew: facenet.ray and facenet.dask go on where they were.
"""

import os
import sys

import pandas as pd
from pyspark.sql import SparkSession

import facenet
from facenet import batches

SCHEMA = """path string, face int, box array<float>, score float, landmarks array<float>, embedding array<float>, error string"""
BATCH = 64  # pictures of a task: what is lost with a worker
engines = []  # of this process: loading weights takes longer than a face


def embed(tables):
    """Tables of paths become tables of faces."""
    if not engines:
        engines.extend([facenet.Detector(threads=1), facenet.Embedder(threads=1)])
    for table in tables:
        rows = batches.rows(table["path"], *engines)
        yield pd.DataFrame(rows, columns=batches.Row._fields).astype({"face": "Int32"})


if __name__ == "__main__":
    pictures, output = sys.argv[1:]
    paths = batches.list_pictures(pictures)
    spark = SparkSession.builder.appName("facenet").getOrCreate()
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", BATCH)
    table = spark.createDataFrame([(path,) for path in paths], "path string").repartition(max(1, len(paths) // BATCH))
    table.mapInPandas(embed, SCHEMA).write.mode("overwrite").parquet(output)
    print(spark.read.parquet(output).where("embedding IS NOT NULL").count(), "faces in", os.path.abspath(output))
    spark.stop()

"""Copies the numbers of a TensorFlow checkpoint or a frozen graph into an .npz file: PYTHON tensorflow_reader.py KIND IN OUT

A program of its own, since TensorFlow lives in an environment of its own (.venv-tensorflow). KIND is "checkpoint" (IN is
the path without .index) or "graph". The graph is only parsed, never run. Exit status 2 with a sentence on stderr.
"""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before the import, or the sentence drowns

import numpy as np
import tensorflow as tf


def checkpoint(path):
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def graph(path):
    parsed = tf.compat.v1.GraphDef()
    with open(path, "rb") as file:
        parsed.ParseFromString(file.read())
    return {node.name: tf.make_ndarray(node.attr["value"].tensor) for node in parsed.node if node.op == "Const"}


def main():
    kind, source, output = sys.argv[1:]
    try:
        arrays = {"checkpoint": checkpoint, "graph": graph}[kind](source)
    except Exception as error:  # TensorFlow and protobuf raise anything on a damaged file
        print((str(error).splitlines() or [type(error).__name__])[0][:200], file=sys.stderr)
        sys.exit(2)
    numbers = {name: value for name, value in arrays.items() if value.dtype.kind == "f" and value.ndim > 0}
    with open(output, "wb") as file:
        np.savez(file, **numbers)


if __name__ == "__main__":
    main()

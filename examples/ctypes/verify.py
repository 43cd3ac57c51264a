#!/usr/bin/env python3
"""Prints the distance between the largest faces of two photographs: verify.py EMBEDDER DETECTOR A B

Nothing but Python's standard library and libfacenet.so.0, which $FACENET_LIBRARY names or the system finds.
"""

import ctypes
import os
import sys
from ctypes import byref


class Error(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("code", ctypes.c_int32), ("offset", ctypes.c_int64),
                ("sentence", ctypes.c_char * 512), ("place", ctypes.c_char * 384)]


class Picture(ctypes.Structure):
    _fields_ = [("pixels", ctypes.c_void_p), ("size", ctypes.c_size_t), ("width", ctypes.c_int32), ("height", ctypes.c_int32),
                ("stride", ctypes.c_size_t), ("format", ctypes.c_int32), ("reserved", ctypes.c_int32)]


class Face(ctypes.Structure):
    _fields_ = [("box", ctypes.c_float * 4), ("score", ctypes.c_float), ("landmarks", ctypes.c_float * 2 * 5)]


class ModelInfo(ctypes.Structure):
    """The first members: the library writes no further than struct_size."""

    _fields_ = [("struct_size", ctypes.c_uint32), ("embedding_dim", ctypes.c_int32)]


EUCLIDEAN = 1
library = ctypes.CDLL(os.environ.get("FACENET_LIBRARY", "libfacenet.so.0"))


def call(name, *arguments):
    """Calls a function whose last argument is an error, and raises what it says."""
    error = Error(struct_size=ctypes.sizeof(Error))
    if getattr(library, name)(*arguments, byref(error)):
        text = ctypes.create_string_buffer(1024)
        library.facenet_error_message(byref(error), text, ctypes.c_size_t(1024))
        raise RuntimeError(text.value.decode())


class Handle(ctypes.c_void_p):
    """What a function makes, freed with its kind's function at the end of `with`."""

    def __init__(self, function, *arguments, kind):
        super().__init__()
        self.kind = kind
        call(function, *arguments, byref(self))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        getattr(library, f"facenet_{self.kind}_free")(self)


def pixels_of(image):
    picture = Picture()
    call("facenet_image_pixels", image, byref(picture))
    return picture


def embed_largest(embedder, detector, path):
    """The embedding of the largest face as an array of ctypes; None without a face."""
    with Handle("facenet_image_read", os.fsencode(path), kind="image") as photograph:
        pixels, faces, found = pixels_of(photograph), (Face * 100)(), ctypes.c_size_t()
        call("facenet_detect", detector, byref(pixels), faces, ctypes.c_size_t(100), byref(found))
        if found.value == 0:
            return None
        info = ModelInfo(struct_size=ctypes.sizeof(ModelInfo))
        call("facenet_embedder_info", embedder, byref(info))
        embedding = (ctypes.c_float * info.embedding_dim)()
        with Handle("facenet_crop_face", embedder, byref(pixels), byref(faces[0]), kind="image") as crop:
            call("facenet_embed", embedder, byref(pixels_of(crop)), ctypes.c_size_t(1), embedding, ctypes.c_size_t(len(embedding)))
        return embedding


def main(arguments):
    if len(arguments) != 4:
        print("usage: verify.py EMBEDDER DETECTOR A B", file=sys.stderr)
        return 2
    try:
        with Handle("facenet_embedder_load", os.fsencode(arguments[0]), None, kind="embedder") as embedder, \
                Handle("facenet_detector_load", os.fsencode(arguments[1]), None, kind="detector") as detector:
            embeddings = [embed_largest(embedder, detector, path) for path in arguments[2:]]
            if None in embeddings:
                print("verify.py: one of the pictures has no face.", file=sys.stderr)
                return 1
            distance = ctypes.c_double()
            call("facenet_distance", ctypes.c_int32(EUCLIDEAN), *embeddings, ctypes.c_size_t(len(embeddings[0])), byref(distance))
            print(f"{distance.value:.4f}")
            return 0
    except RuntimeError as error:
        print(f"verify.py: {error}.", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

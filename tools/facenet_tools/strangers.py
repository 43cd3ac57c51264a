"""What people hand over that cannot be converted: recognised by content, and answered with the way out where there is one."""

from __future__ import annotations

import pathlib
import zipfile

from facenet_tools.cli import listed, shown

# First bytes; none of them begins a file that can be converted.
_MAGIC = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"GIF8": "a GIF picture",
    b"%PDF": "a PDF file",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ\x00": "an xz archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"RIFF": "a RIFF file",
    b"#!": "a script",
    b"\x7fELF": "a program",
    b"MZ": "a program of Windows",
    b"SQLite format 3": "an SQLite database",
    b"GGUF": "a GGUF file of llama.cpp",
    b"\x93NUMPY": "one array of numpy",
    b"version https://git-lfs": "a pointer of Git LFS, which stands for the file; fetch it with git lfs pull",
}
_AT_4 = {
    b"TFL3": "a TensorFlow Lite model, made for inference alone; convert what it was made from",
    b"ORTM": "an ONNX Runtime model (.ort); convert the .onnx it was made from",
}
_WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".h5", ".onnx", ".pb", ".index")


def file(path: str, start: bytes) -> str | None:
    """What begins with these bytes; None: it may be a checkpoint."""
    for magic, what in _MAGIC.items():
        if start.startswith(magic):
            return what
    if start[4:8] in _AT_4:
        return _AT_4[start[4:8]]
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<script")):
        return "a web page (HTML) and not the file that a link promised; download it again, in a browser if it asks for something"
    if text.startswith((b"<?xml", b"<error")):
        return "an XML file, maybe a server's error message; download it again"
    if start[:1] in (b"{", b"[") and _is_text(start):
        return "a JSON file"
    return _zip(path) if start.startswith((b"PK\x03\x04", b"PK\x05\x06")) else None


def folder(where: pathlib.Path) -> str:
    """What a folder without anything that can be converted holds; a part of a sentence."""
    has = lambda name: (where / name).exists()  # noqa: E731
    if has("saved_model.pb") or has("saved_model.pbtxt"):
        return "is a TensorFlow SavedModel; its checkpoint or a frozen graph can be converted"
    if has("model.safetensors.index.json") or has("pytorch_model.bin.index.json"):
        return "is a model in several parts; load it where it was made and save its state_dict in one file"
    if any(where.glob("*.distcp")):
        return "is a checkpoint of torch.distributed; make one file of it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
    if has("data.pkl") and has("data"):
        return "is an unpacked .pt file; give that file itself"
    if has("model.json") and any(where.glob("*.bin")):
        return "is a TensorFlow.js model; the one of face-api is read with --face-api, others are not"
    found = sorted(p.name for p in where.iterdir() if p.suffix in _WEIGHTS and p.is_file())
    if found:
        return f"is a folder; give one of its files ({listed([shown(name) for name in found])})"
    if has("config.json"):
        return "is a folder of Hugging Face without its weights; download model.safetensors into it"
    return "holds no TensorFlow checkpoint"


def _zip(path: str) -> str | None:
    """A .pt is a zip archive too: None."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # cut short or damaged; what reads it says so
        return None
    if not names:
        return "an empty zip archive"
    if any(name == "data.pkl" or name.endswith(("/data.pkl", "serialized_exported_program.json", "/models/model.json")) for name in names):
        return None
    if all(name.endswith(".npy") for name in names):
        return ("numpy's .npz; if its arrays have facenet-pytorch's names, save them as safetensors: "
                "safetensors.numpy.save_file(dict(numpy.load(IN)), 'out.safetensors')")  # fmt: skip
    if "model.weights.h5" in names:
        return "a Keras 3 model (.keras), whose weights have no layers' names; load it with Keras 2 (tf_keras) and save it: model.save_weights('x.h5')"
    inside = [name for name in names if name.endswith(_WEIGHTS)]
    if inside:
        return f"a zip archive with {shown(inside[0])} in it; unpack it and give that"
    return "a zip archive without weights"


def _is_text(start: bytes) -> bool:
    try:
        start.decode("utf-8", "strict" if len(start) < 512 else "ignore")
    except UnicodeDecodeError:
        return False
    return b"\0" not in start

"""Writes safetensors: an 8-byte little-endian header length, a JSON header, then the raw data.

The PyPI package orders tensors as it likes; the engine streams, so here they stay in network order.
"""

from __future__ import annotations

import json
import math
import pathlib
import re
from typing import Callable, NoReturn

import numpy as np
import xxhash

from facenet_tools.cli import ToolError, write_atomically

DTYPES = {"float32": "F32", "float16": "F16", "int8": "I8", "uint8": "U8"}
HASH_BLANK = "0" * 16
LARGEST_FILE, LARGEST_HEADER, MOST_TENSORS = 512 << 20, 1 << 20, 4096  # include/facenet/weights/safetensors.hpp


def xxh64(data: bytes) -> str:
    """XXH64 with seed 0 as 16 lowercase hex digits."""
    return xxhash.xxh64_hexdigest(data, seed=0)


def model_digest(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    """WeightsReader::digest() of a file with these: equal ones have comparable embeddings."""
    digest = xxhash.xxh64(seed=0)
    for array in tensors.values():
        digest.update(np.ascontiguousarray(array).data)
    numbers = (metadata["embedding_dim"], metadata["image_size"], str(int(float(metadata["width"]) * 1e6 + 0.5)))
    choices = (("none", "l2"), ("rgb", "bgr"), ("fixed", "prewhiten", "unit", "mean_255"))
    kinds = [words.index(metadata[key]) for key, words in zip(("normalise", "channel_order", "scaling"), choices)]
    whole = digest.hexdigest() + metadata["architecture"] + "\0" + "".join(f"{number} " for number in numbers)
    return xxh64(whole.encode() + bytes(kinds))


def write(path: str, tensors: dict[str, np.ndarray], metadata: dict[str, str], hashes: bool = False) -> None:
    """Writes the tensors in the order given, without gaps.

    With hashes, data_xxh64 covers the data section, and header_xxh64 covers the header (padding included)
    with its own 16 digits replaced by zeros.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    if hashes:
        digest = xxhash.xxh64(seed=0)
        for array in arrays.values():
            digest.update(array.data)
        metadata = {**metadata, "data_xxh64": digest.hexdigest(), "header_xxh64": HASH_BLANK}
    header = _header(arrays, metadata)
    if hashes:
        blank = f'"header_xxh64":"{HASH_BLANK}"'.encode()
        header = header.replace(blank, f'"header_xxh64":"{xxh64(header)}"'.encode(), 1)
    chunks = [len(header).to_bytes(8, "little"), header, *(array.data for array in arrays.values())]
    write_atomically(path, chunks, (lambda written: verify(written, path)) if hashes else None)


def verify(written: pathlib.Path, path: str) -> None:
    """Reads a weight file again as the engine does (include/facenet/weights/): a ToolError, which calls it `path`, about whatever
    the engine would refuse."""

    def refuse(problem: str) -> NoReturn:
        raise ToolError(f"{path}: is not written, since the engine would refuse it: {problem}.")

    size = written.stat().st_size
    if size > LARGEST_FILE:
        refuse(f"it would have {size >> 20} MiB, at most {LARGEST_FILE >> 20} are read; use --dtype f16 or i8")
    raw = np.memmap(written, np.uint8, "r")
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header = raw[8:start].tobytes()
    if len(header) > LARGEST_HEADER:
        refuse("its header is longer than 1 MiB")
    entries = json.loads(header)
    metadata = entries.pop("__metadata__")
    _verify_metadata(metadata, refuse)
    if len(entries) > MOST_TENSORS:
        refuse(f"it has {len(entries)} tensors, at most {MOST_TENSORS} are read")
    blank = header.replace(metadata["header_xxh64"].encode(), HASH_BLANK.encode(), 1)
    if xxh64(blank) != metadata["header_xxh64"] or xxh64(raw[start:]) != metadata["data_xxh64"]:
        refuse("what was read back is not what was written; the disk may be at fault")
    at, types = 0, {name: np.dtype(dtype) for dtype, name in DTYPES.items()}
    for name, entry in entries.items():
        dtype, shape, (begin, end) = types[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if len(name.encode()) > 128 or not 0 < len(shape) <= 4 or not all(1 <= n <= 1 << 20 for n in shape):
            refuse(f"{name} has a shape or a name that is not read")
        if begin != at or end - begin != math.prod(shape) * dtype.itemsize or start + end > size:
            refuse(f"{name} is not where the header says")
        at = end
        values = raw[start + begin : start + end].view(dtype)
        if dtype.kind == "f" and not np.isfinite(values).all():
            refuse(f"{name} has values that are NaN or infinite: this checkpoint overflows")
        if name.endswith((".weight_scale", ".input_scale")) and not (values > 0).all():
            refuse(f"{name} has a scale that is not above 0")
        if dtype == np.int8 and (values == -128).any():
            refuse(f"{name} has a weight of -128")
        if name == "selftest.embedding":
            _verify_embedding(values.astype(np.float64), metadata, refuse)


def _verify_metadata(metadata: dict[str, str], refuse: Callable[[str], NoReturn]) -> None:
    for key, value in metadata.items():
        if not 0 < len(value.encode()) <= 4096 or "\0" in value:
            refuse(f"the metadata's {key} is empty or longer than 4096 bytes")
    if ("threshold" in metadata) != ("threshold_source" in metadata):
        refuse("threshold and threshold_source belong together")
    if "threshold" in metadata:
        most = 2.0 if metadata["normalise"] == "l2" else 1e6
        if not re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,12})?", metadata["threshold"]) or not 0 < float(metadata["threshold"]) <= most:
            refuse(f"the threshold {metadata['threshold'][:40]} is not a decimal number above 0 and up to {most:g}")


def _verify_embedding(embedding: np.ndarray, metadata: dict[str, str], refuse: Callable[[str], NoReturn]) -> None:
    """1e-12 is where normalising stops (torch.nn.functional.normalize): what is shorter keeps another length than 1."""
    length = float(np.linalg.norm(embedding))
    if not length > 1e-12 or (metadata["normalise"] == "l2" and abs(length - 1) > 1e-3):
        refuse(f"the network's embedding of a picture has the length {length:.3g}: every face would be the same; check last_linear and last_bn")


def _header(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    for name, array in arrays.items():
        end = offset + array.nbytes
        entries[name] = {"dtype": DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    # The data section starts on a cache line, so that a reader may use it in place.
    return header + b" " * (-(8 + len(header)) % 64)

"""Writes safetensors: an 8-byte little-endian header length, a JSON header, then the raw data.

The PyPI package orders tensors as it likes; the engine streams, so here they stay in network order.
"""

from __future__ import annotations

import json

import numpy as np
import xxhash

from facenet_tools.cli import write_atomically

DTYPES = {"float32": "F32", "float16": "F16", "int8": "I8", "uint8": "U8"}
HASH_BLANK = "0" * 16


def xxh64(data: bytes) -> str:
    """XXH64 with seed 0 as 16 lowercase hex digits."""
    return xxhash.xxh64_hexdigest(data, seed=0)


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
    write_atomically(path, [len(header).to_bytes(8, "little"), header, *(array.data for array in arrays.values())])


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

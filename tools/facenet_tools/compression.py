"""Compressed copies beside a file, which web servers send to browsers that take them."""

from __future__ import annotations

import gzip
import os
import sys

try:
    import brotli
except ImportError:
    brotli = None


def beside(path: str) -> None:
    """Writes PATH.gz, and PATH.br where Python has brotli; each appears whole."""
    with open(path, "rb") as file:
        data = file.read()
    copies = {".gz": gzip.compress(data, 9, mtime=0)}
    if brotli is not None:
        copies[".br"] = brotli.compress(data, quality=11, lgwin=24)
    for suffix, packed in copies.items():
        with open(f"{path}{suffix}.new", "wb") as file:
            file.write(packed)
        os.replace(f"{path}{suffix}.new", path + suffix)
        print(f"{path}{suffix}: {len(packed):,} bytes instead of {len(data):,}", file=sys.stderr)
    if brotli is None:
        print("convert_weights: Python has no brotli, so there is no .br (pip install brotli)", file=sys.stderr)

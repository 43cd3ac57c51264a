"""The threshold that a weight file carries: what validation (train.py) or `facenet calibrate` measured, or what the user says."""

from __future__ import annotations

import dataclasses
import decimal
import json
import pathlib

from facenet_tools.cli import ToolError

LARGEST = 2  # unit vectors lie at most that far apart, and what is converted here gives unit vectors
USER = "the user (convert_weights.py --threshold)"
LARGEST_FILE = 1 << 16


@dataclasses.dataclass(frozen=True)
class Threshold:
    value: float
    source: str
    model: str | None = None  # the digest that the weight file must have, where another model would be another threshold

    def keys(self) -> dict[str, str]:
        """Of the metadata. Nine digits after the point, rounded down: no pair gets in that was not let in when measured."""
        text = f"{decimal.Decimal(repr(self.value)).quantize(decimal.Decimal('1e-9'), decimal.ROUND_DOWN):f}".rstrip("0").rstrip(".")
        if not 0 < float(text) <= LARGEST:
            raise ToolError(f"the threshold {self.value:g} is no distance between unit vectors; one is above 0 and at most {LARGEST}.")
        return {"threshold": text, "threshold_source": self.source}


def choose(option: str | None, path: str, digest: str) -> Threshold | None:
    """option: --threshold; without it what lies beside the checkpoint `path` and was measured with that file (digest: its
    SHA-256)."""
    if option is None:
        return _beside(pathlib.Path(path), digest)
    try:
        value = float(option)
    except ValueError:
        return _from_file(option, digest)
    if not 0 < value <= LARGEST:
        raise ToolError(f"--threshold {option}: is no distance; give one above 0 and at most {LARGEST}, or a file of `facenet calibrate`.")
    return Threshold(value, USER)


def _beside(path: pathlib.Path, digest: str) -> Threshold | None:
    """RUN/best.json beside RUN/best.pt. Another JSON file of that name is none of ours; one of another checkpoint is of no use."""
    try:
        found = _read(path.with_suffix(".json"))
    except (OSError, ValueError, RecursionError):
        return None
    if found.get("format") != "facenet-trained" or found.get("checkpoint_sha256") != digest:
        return None
    return _trained(found, str(path.with_suffix(".json"))) if found.get("threshold") else None  # 0: nothing could be told apart


def _from_file(option: str, digest: str) -> Threshold:
    try:
        found = _read(pathlib.Path(option))
    except OSError as error:
        raise ToolError(f"--threshold {option}: is neither a number nor a file that can be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        line = 1 + error.object.count(b"\n", 0, error.start)
        raise ToolError(f"--threshold {option}: line {line} is not UTF-8; give a file of `facenet calibrate` or train.py, or a number.") from error
    except (ValueError, RecursionError) as error:
        raise ToolError(f"--threshold {option}: is no file of `facenet calibrate` or train.py; give one, or a number.") from error
    if found.get("format") == "facenet-trained":
        if found.get("checkpoint_sha256") != digest:
            raise ToolError(f"--threshold {option}: was measured with another checkpoint; give the one beside it, or a number.")
        return _trained(found, option)
    if found.get("format") != "facenet-threshold" or found.get("version") != 1 or found.get("metric") != "euclidean":
        raise ToolError(f"--threshold {option}: is no threshold file of Euclidean distances; give a file of `facenet calibrate`, or a number.")
    if not isinstance(found.get("model"), str):
        raise ToolError(f"--threshold {option}: does not say with which model it was measured; calibrate again.")
    rate = found.get("far_target")
    at = f" at FAR {rate:g}" if isinstance(rate, (int, float)) else ""
    rate, size = found.get("fpir_target"), found.get("gallery_size")
    if isinstance(rate, (int, float)) and isinstance(size, int):
        at = f" at FPIR {rate:g} among {size} persons"
    return Threshold(_number(found, option), f"facenet calibrate{at}", found["model"])


def _trained(found: dict, where: str) -> Threshold:
    source = found.get("threshold_source")
    if not isinstance(source, str) or not source or len(source) > 400:
        raise ToolError(f"{where}: does not say what measured its threshold; give --threshold X.")
    return Threshold(_number(found, where), source)


def _number(found: dict, where: str) -> float:
    value = found.get("threshold")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LARGEST:
        raise ToolError(f"{where}: its threshold is no distance; measure it again, or give --threshold X.")
    return float(value)


def _read(path: pathlib.Path) -> dict:
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    with open(path, "rb") as file:
        found = json.loads(file.read(LARGEST_FILE))
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found

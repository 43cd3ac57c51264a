"""Which of the dictionaries in a checkpoint are the network's weights, whatever they are nested in and whatever prefix their names have."""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import Any, Iterable

import torch

from facenet_tools import pickled
from facenet_tools.cli import ToolError, listed, shown

TOP = "top"  # the place of weights that are in nothing and have no prefix
_DEPTH = 4
_MOST_LOOKED_AT = 10_000
_LONGEST_NAME = 400
_AVERAGED = {"ema", "swa", "average", "averaged", "shadow"}


@dataclasses.dataclass(frozen=True)
class Found:
    """The network's entries without their prefix; `place` is how messages and --entry call it: "model_ema", "state_dict.net."."""

    place: str
    values: dict[str, Any]
    matching: int  # names that the network has

    @property
    def averaged(self) -> bool:
        return any(word.lower() in _AVERAGED for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", self.place))


def find(tree: Any, names: Iterable[str]) -> list[Found]:
    """All that have at least half of the names under one prefix; the outer first."""
    names = set(names)
    found = []
    for place, values in _dictionaries(tree):
        counts: collections.Counter[str] = collections.Counter()
        for key in values:
            if len(key) <= _LONGEST_NAME:
                counts.update(key[:start] for start in _starts(key) if key[start:] in names)
        prefixes = [prefix for prefix, count in counts.items() if 2 * count >= len(names)]
        for prefix in prefixes:
            others = tuple(other for other in prefixes if other.startswith(prefix) and other != prefix)
            own = {key[len(prefix) :]: value for key, value in values.items() if key.startswith(prefix) and not key.startswith(others)}
            found.append(Found(f"{place}.{prefix}" if place and prefix else place or prefix, own, counts[prefix]))
    return found


def choose(found: list[Found], path: str, averaged: bool = False, entry: str | None = None) -> tuple[Found | None, str]:
    """The one that is meant and what to tell about it; None where there is nothing. More than one different is an error."""
    if entry is not None:
        chosen = [f for f in found if (f.place or TOP) == entry]
        if not chosen:
            raise ToolError(f"{path}: has no weights of the network at {shown(entry)}; there are: {_places(found) or 'none'}.")
        return chosen[0], ""
    averages, ordinary = [f for f in found if f.averaged], [f for f in found if not f.averaged]
    if averaged and not averages:
        raise ToolError(f"{path}: has no averaged weights (EMA) with the network's names; leave out --ema.")
    candidates = averages if averaged or not ordinary else ordinary
    different = [f for i, f in enumerate(candidates) if not any(_same(f, other) for other in candidates[:i])]
    if len(different) > 1:
        best = max(f.matching for f in different)
        different = [f for f in different if f.matching == best]  # half a network beside a whole one
    if len(different) > 1:
        raise ToolError(f"{path}: holds the network {len(different)} times, with other numbers; choose with --entry: {_places(different)}.")
    if not different:
        return None, ""
    note = f"its averaged weights, {shown(different[0].place)}, are taken" if different[0].averaged else ""
    if averages and not different[0].averaged:
        note = f"holds averaged weights too, at {_places(averages)}; the others are taken, --ema takes these"
    return different[0], note


def largest(tree: Any) -> dict[str, Any]:
    """The dictionary with the most tensors: what a message about foreign weights speaks of."""
    return max((values for _, values in _dictionaries(tree)), key=lambda v: sum(map(is_tensor, v.values())), default={})


def is_tensor(value: Any) -> bool:
    return isinstance(pickled.plain(value), (torch.Tensor, pickled.Tensor, pickled.OddTensor))


def objects(tree: Any) -> list[str]:
    """Names of the Python objects in it, each once."""
    values = [tree, *(value for _, part in _dictionaries(tree) for value in part.values())]
    return list(dict.fromkeys(v.name for v in values if isinstance(v, (pickled.Object, pickled.Name))))


def _dictionaries(tree: Any) -> Iterable[tuple[str, dict[str, Any]]]:
    """Every dictionary with text for keys and every pickled module's state, breadth first, each once, with its place."""
    todo = collections.deque([("", tree, 0)])
    seen: set[int] = set()
    while todo and len(seen) < _MOST_LOOKED_AT:
        place, value, depth = todo.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        state = pickled.state_of_module(value) if isinstance(value, pickled.Object) else None
        if state is not None:
            yield place, state
            continue
        if isinstance(value, pickled.Object):
            value = value.attributes()
        elif isinstance(value, (list, tuple)) and len(value) <= 64:
            value = {str(i): item for i, item in enumerate(value)}
        if not isinstance(value, dict):
            continue
        texts = {key: item for key, item in value.items() if isinstance(key, str)}
        yield place, texts
        if depth < _DEPTH:
            inner = ((key, item) for key, item in texts.items() if isinstance(item, (dict, list, tuple, pickled.Object)))
            todo.extend((f"{place}.{key}" if place else key, item, depth + 1) for key, item in inner)


def _starts(key: str) -> Iterable[int]:
    yield 0
    for dot in re.finditer(r"\.", key):
        yield dot.end()


def _same(one: Found, other: Found) -> bool:
    """The same numbers in the file, as the branches of a Siamese network have them."""
    if one.values.keys() != other.values.keys():
        return False
    pairs = [(pickled.plain(value), pickled.plain(other.values[name])) for name, value in one.values.items() if is_tensor(value)]
    return all(a is b or (isinstance(a, pickled.Tensor) and isinstance(b, pickled.Tensor) and a.same(b)) for a, b in pairs)


def _places(found: list[Found]) -> str:
    return listed([shown(f.place or TOP) for f in found])

"""All faces of many pictures as Parquet, by Ray Data's workers. docs/scale.md of the sources has the guide."""

from __future__ import annotations

import os
import pickle
from typing import Any, Iterator, Sequence

from facenet import batches
from facenet._errors import needed
from facenet._objects import Detector, Embedder, Progress
from facenet.batches import PART, Done, Part, Pictures, Run, Work

_BLOCKS = 1000  # tasks, at most: of a task that is repeated, finished parts are passed over


def _do(row: dict[str, Any]) -> dict[str, Any]:
    done = batches.do(*pickle.loads(row["part"]))
    return {"name": done.name, "error": done.error or ""}


def embed(
    pictures: Pictures,
    output: str | os.PathLike[str],
    *,
    workers: int | None = None,
    retries: int = 3,
    detector: Detector | str | os.PathLike[str] | None = None,
    embedder: Embedder | str | os.PathLike[str] | None = None,
    part: int = PART,
    progress: Progress | None = None,
) -> Run:
    """As facenet.batches.embed, on the cluster that this program is connected to; else Ray starts one here.

    workers: parts that are done at a time, each by one CPU; None: as many as Ray has CPUs. retries: how often a part is tried
    again whose worker was killed. Pictures, weights and `output` must have the same paths on all machines.
    """
    data = needed("ray.data", '"ray[data]"')

    def execute(parts: Sequence[Part], work: Work) -> Iterator[Done]:
        items = [{"part": pickle.dumps((p, work))} for p in parts]
        found = data.from_items(items, override_num_blocks=min(len(items), _BLOCKS))
        found = found.map(_do, compute=data.TaskPoolStrategy(size=workers), num_cpus=1)
        found.context.max_errored_blocks = -1  # what has no file in the end is listed
        for row in found.iter_rows():
            yield Done(row["name"], row["error"] or None)

    return batches.run(execute, pictures, output, detector=detector, embedder=embedder, part=part, retries=retries, progress=progress)

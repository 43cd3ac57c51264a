"""All faces of many pictures as Parquet, by Dask's workers. docs/scale.md of the sources has the guide."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Iterator, Sequence

from facenet import batches
from facenet._errors import needed
from facenet._objects import Detector, Embedder, Progress
from facenet.batches import PART, Done, Part, Pictures, Run, Work


def embed(
    pictures: Pictures,
    output: str | os.PathLike[str],
    *,
    client: Any = None,
    workers: int | None = None,
    retries: int = 3,
    detector: Detector | str | os.PathLike[str] | None = None,
    embedder: Embedder | str | os.PathLike[str] | None = None,
    part: int = PART,
    progress: Progress | None = None,
) -> Run:
    """As facenet.batches.embed, by the workers of a dask.distributed.Client; without one, by processes that are started here.

    workers: how many processes; None: one for each CPU. A client has its own. retries: how
    often a part is tried again whose worker was killed; Dask's own distributed.scheduler.allowed-failures is 3 too. Pictures,
    weights and `output` must have the same paths on all machines.
    """
    distributed = needed("distributed", '"dask[distributed]"')

    def execute(parts: Sequence[Part], work: Work) -> Iterator[Done]:
        with contextlib.ExitStack() as started:
            crew = client
            if crew is None:
                cluster = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
                crew = started.enter_context(distributed.Client(started.enter_context(cluster)))
            tasks: list[Any] = crew.map(batches.do, parts, work=work, pure=False)
            names = {task: p.name for task, p in zip(tasks, parts)}
            for task in distributed.as_completed(tasks):
                try:
                    done: Done = task.result()
                except Exception as e:  # of whatever kind: what has no file in the end is listed
                    done = Done(names[task], f"its task failed: {e}")
                yield done

    return batches.run(execute, pictures, output, detector=detector, embedder=embedder, part=part, retries=retries, progress=progress)

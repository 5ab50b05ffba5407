"""A job over texts, and its first stage: nothing -> the groups of splits, which each worker reads from the list."""

from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam

from bertloom import storage
from pipeline.inputs.sources import SplitGroup
from pipeline.inputs.split_list import read_split_list
from pipeline.stages.transform import transform
from pipeline.stages.worker_start import WorkerStart, add_worker_start

MAX_ELEMENTS = 10_000
"""Largest number of elements with which a job begins. Each is a group or, in a larger job, several. An element takes 5 to 10
bytes of the job, and engines limit its size: Dataflow to 20 MB, a message between the processes of Flink to 10 MB."""


def ranges_of(number: int) -> list[tuple[int, int]]:
    """Return (first, end) of the ranges of groups with which a job begins: at most MAX_ELEMENTS, none empty."""
    count = min(number, MAX_ELEMENTS)
    edges = [i * number // count for i in range(count + 1)] if count else []
    return list(zip(edges, edges[1:]))


@transform
class ReadSplits(beam.PTransform[Any, Any]):
    """Nothing -> SplitGroups."""

    path: str
    """The list of splits."""
    num_groups: int
    """Number of groups in the list, which need not exist yet."""

    def expand(self, pipeline: Any) -> Any:
        ranges = ranges_of(self.num_groups)
        return pipeline | "ranges" >> beam.Create(ranges) | "read splits" >> beam.FlatMapTuple(self.read)

    def read(self, first: int, end: int) -> Iterator[SplitGroup]:
        yield from read_split_list(self.path).groups(first, end)


def build_job(
    pipeline: beam.Pipeline,
    path: str,
    num_groups: int,
    transform: beam.PTransform[Any, Any],
    check_worker: Callable[[], object] | None = None,
) -> None:
    """Apply a transform to the groups of splits.

    Args:
        path: of the list of splits, which need not exist yet.
        num_groups: number of groups in the list.
        check_worker: what a worker process on another machine checks before its first work, whatever its stage.
    """
    pipeline | "splits" >> ReadSplits(path, num_groups) | transform
    add_worker_start(pipeline, WorkerStart(storage.options(), check_worker))

"""The first stage of every job over texts: nothing -> the groups of splits, which each worker reads from the list."""

from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam

from bertloom import storage
from pipeline.inputs.sources import SplitGroup
from pipeline.inputs.split_list import read_split_list
from pipeline.stages.transform import transform

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
    store_options: storage.Options
    """Options of the stores."""
    check_worker: Callable[[], object] | None = None
    """What a worker process on another machine checks first."""

    def expand(self, pipeline: Any) -> Any:
        ranges = ranges_of(self.num_groups)
        return pipeline | "ranges" >> beam.Create(ranges) | "read splits" >> beam.FlatMapTuple(self.read)

    def read(self, first: int, end: int) -> Iterator[SplitGroup]:
        storage.connect(self.store_options)
        if self.check_worker:
            self.check_worker()
        yield from read_split_list(self.path).groups(first, end)

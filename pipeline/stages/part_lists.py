"""What stages share that need the documents of all parts at once: the list of parts, ranges, and rounds of work.

Such a stage works in rounds. Each round takes all elements of the round before, cuts the work into pieces, such as ranges of
ids, and spreads these over the workers. The elements are small: the bulk is in files, and the list of all parts, too.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import apache_beam as beam

from bertloom.sealed_files import read_sealed, write_sealed
from pipeline.stages.sorted_rows import range_edges
from pipeline.tokens import PartRecord


@dataclass(frozen=True)
class Range:
    """One of `count` equal ranges of hashes or of ids. count: at most NUM_RANGES."""

    number: int
    count: int
    list: str
    """Path of the list of all parts."""

    @property
    def edges(self) -> tuple[int, int]:
        """(first, end) of this range in a file of sorted rows."""
        return range_edges(self.number, self.count)


def all_ranges(count: int, path: str) -> list[Range]:
    """Return `count` equal ranges in order. path: of the list of all parts."""
    return [Range(i, count, path) for i in range(count)]


def write_part_list(parts: Iterable[PartRecord], path_of: Callable[..., str]) -> tuple[str, list[PartRecord]]:
    """Write the list of all parts, in their order. Return its path, and the parts in this order.

    path_of: returns the path that belongs to some JSON values. The path depends on the content, because readers keep it.
    """
    ordered = sorted(parts, key=lambda part: part.sort_key)
    path = path_of("list", [part.name for part in ordered])
    write_sealed(path, [json.dumps(list(map(vars, ordered))).encode()])
    return path, ordered


@lru_cache(maxsize=2)
def read_part_list(path: str) -> list[PartRecord]:
    """Return the parts of a list. Cached: its path depends on its content."""
    return list(map(PartRecord.from_json, json.loads(read_sealed(path))))


def work_round(
    elements: Any, everything: str, cut: Callable[[Iterable[Any]], Iterable[Any]], pieces: str, work: Callable[..., Any]
) -> Any:
    """Return what `work` returns for each piece that `cut` makes of all elements together: a PCollection.

    The steps are called "all EVERYTHING", as `cut`, "spread PIECES", and as `work`.
    """
    return (
        gather(elements, everything, cut)
        | f"spread {pieces}" >> beam.Reshuffle()
        | work.__name__.replace("_", " ") >> beam.Map(work)
    )


def gather(elements: Any, everything: str, function: Callable[[Iterable[Any]], Iterable[Any]]) -> Any:
    """Return what `function` makes of all elements together: a PCollection."""
    return (
        elements
        | f"all {everything}" >> beam.GroupBy(lambda _: None)
        | function.__name__.replace("_", " ") >> beam.FlatMapTuple(lambda _, values: function(values))
    )

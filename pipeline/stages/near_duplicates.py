"""The stage of near duplicates: part records -> the same part records, and a file of the documents to leave out.

    list   : all parts       -> their list, a file
    sketch : part            -> the band hashes of its documents, sorted, in one file
    pair   : range of hashes -> the documents that share a band, read by range from every sketch; a file of pairs
    verify : range of ids    -> the pairs of this range, read from every file of pairs, whose shingles are alike; a file
    join   : all ranges      -> one file, which the plan, weave and manifest stages read

A document is left out when it is alike to one of smaller id. This is not transitive: of three documents in a chain, both
ends may be alike to the middle one only. The bulk goes through files, so memory stays flat and a restart finds what is
finished.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np

from bertloom.sealed_files import is_sealed, read_sealed, write_sealed
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.stages.counters import increment
from pipeline.stages.known_documents import read_known
from pipeline.stages.part_lists import read_part_list, write_part_list
from pipeline.stages.similar_documents import (
    NEAR_DUPLICATE,
    PAIR,
    Search,
    find_pairs,
    num_hash_ranges,
    verify_pairs,
    write_sketch,
)
from pipeline.stages.sorted_rows import range_edges, read_rows, write_rows
from pipeline.stages.transform import transform
from pipeline.stages.work_log import log_begin, log_piece
from pipeline.tokens import PartRecord


@dataclass(frozen=True)
class Range:
    """One of `count` equal ranges of hashes or of ids."""

    number: int
    count: int
    list: str
    """Path of the list of all parts."""


def write_list(parts: Sequence[PartRecord], search: Search) -> str:
    """Write the list of all parts. Return its path, which depends on its content."""
    path = search.path("list", [part.name for part in parts])
    write_part_list(path, parts)
    return path


@transform
class FindNearDuplicates(beam.PTransform[Any, Any]):
    """PartRecords -> the same PartRecords, when the file of near duplicates is written."""

    job: JobConfig
    places: Places

    def expand(self, parts: Any) -> Any:
        return (
            parts
            | "all parts" >> beam.GroupBy(lambda _: None)
            | "list parts" >> beam.FlatMapTuple(self.list_parts)
            | "spread parts" >> beam.Reshuffle()
            | "sketch" >> beam.MapTuple(self.sketch)
            | "all sketches" >> beam.GroupByKey()
            | "cut ranges" >> beam.FlatMapTuple(self.cut_ranges)
            | "spread hashes" >> beam.Reshuffle()
            | "pair" >> beam.Map(self.pair)
            | "all pairs" >> beam.GroupBy(lambda _: None)
            | "ranges of ids" >> beam.FlatMapTuple(self.ranges_of_ids)
            | "spread ids" >> beam.Reshuffle()
            | "verify" >> beam.Map(self.verify)
            | "all verified" >> beam.GroupBy(lambda _: None)
            | "join" >> beam.FlatMapTuple(self.join)
        )

    @property
    def search(self) -> Search:
        assert self.job.examples.near_duplicates is not None
        return Search(self.job.examples.near_duplicates, self.places.parts, self.places.near_duplicate_search)

    def list_parts(self, _: None, parts: Iterable[PartRecord]) -> Iterator[tuple[str, PartRecord]]:
        ordered = sorted(parts, key=lambda part: part.sort_key)
        path = write_list(ordered, self.search)
        log_begin(self.places.work_log, "sketch", len(ordered))
        yield from ((path, part) for part in ordered)

    def sketch(self, path: str, part: PartRecord) -> tuple[str, None]:
        is_new = write_sketch(part, self.search)
        increment("sketch", parts_in=1, parts_reused=int(not is_new), documents_in=part.num_documents)
        log_piece(self.places.work_log, "sketch", part.name, documents=part.num_documents, is_new=is_new)
        return path, None

    def cut_ranges(self, path: str, _: Iterable[None]) -> Iterator[Range]:
        number = num_hash_ranges(read_part_list(path), self.search.min_similarity)
        log_begin(self.places.work_log, "pair", number)
        yield from (Range(i, number, path) for i in range(number))

    def pair(self, hashes: Range) -> Range:
        path = self._pairs(hashes)
        if is_new := not is_sealed(path):
            pairs = find_pairs(hashes.number, hashes.count, read_part_list(hashes.list), self.search)
            write_rows(path, pairs, "id")
            increment("pair", pairs_out=len(pairs))
        increment("pair", ranges_in=1, ranges_reused=int(not is_new))
        log_piece(self.places.work_log, "pair", str(hashes.number), is_new=is_new)
        return hashes

    def ranges_of_ids(self, _: None, hashes: Iterable[Range]) -> list[Range]:
        ranges = list(hashes)
        log_begin(self.places.work_log, "verify", len(ranges))
        return ranges

    def verify(self, ids: Range) -> Range:
        path = self._verified(ids)
        if is_new := not is_sealed(path):
            edges = range_edges(ids.number, ids.count)
            paths = (self._pairs(Range(i, ids.count, ids.list)) for i in range(ids.count))
            pairs = np.unique(np.concatenate([read_rows(name, PAIR, *edges) for name in paths]))
            write_sealed(path, [verify_pairs(pairs, read_part_list(ids.list), self.search).tobytes()])
            increment("verify", pairs_in=len(pairs))
        increment("verify", ranges_in=1, ranges_reused=int(not is_new))
        log_piece(self.places.work_log, "verify", str(ids.number), is_new=is_new)
        return ids

    def join(self, _: None, ranges: Iterable[Range]) -> Iterator[PartRecord]:
        ranges = sorted(ranges, key=lambda ids: ids.number)
        found = np.frombuffer(b"".join(read_sealed(self._verified(ids)) for ids in ranges), NEAR_DUPLICATE)
        if known := read_known(self.places, self.job):
            found = found[~known.among(found["part"], found["id"])]
        write_sealed(self.places.near_duplicates, [found.tobytes()])
        increment("verify", near_duplicates_found=len(found))
        yield from read_part_list(ranges[0].list)

    def _pairs(self, hashes: Range) -> str:
        return self.search.path("pairs", hashes.number, hashes.count, hashes.list)

    def _verified(self, ids: Range) -> str:
        return self.search.path("verified", ids.number, ids.count, ids.list)

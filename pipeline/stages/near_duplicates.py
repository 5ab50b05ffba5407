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

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np

from bertloom.sealed_files import is_sealed, read_sealed, write_sealed
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.stages.counters import increment
from pipeline.stages.known_documents import read_known
from pipeline.stages.part_lists import Range, all_ranges, gather, read_part_list, work_round, write_part_list
from pipeline.stages.similar_documents import (
    NEAR_DUPLICATE,
    PAIR,
    Search,
    find_pairs,
    num_hash_ranges,
    verify_pairs,
    write_sketch,
)
from pipeline.stages.sorted_rows import read_distinct_rows, write_rows
from pipeline.stages.transform import transform
from pipeline.stages.work_log import log_begin, log_piece
from pipeline.tokens import PartRecord


@transform
class FindNearDuplicates(beam.PTransform[Any, Any]):
    """PartRecords -> the same PartRecords, when the file of near duplicates is written."""

    job: JobConfig
    places: Places

    def expand(self, parts: Any) -> Any:
        sketches = work_round(parts, "parts", self.list_parts, "parts", self.sketch)
        pairs = work_round(sketches, "sketches", self.cut_ranges, "hashes", self.pair)
        verified = work_round(pairs, "pairs", self.ranges_of_ids, "ids", self.verify)
        return gather(verified, "verified", self.join)

    @property
    def search(self) -> Search:
        return Search.of(self.job, self.places)

    def list_parts(self, parts: Iterable[PartRecord]) -> list[tuple[str, PartRecord]]:
        path, ordered = write_part_list(parts, self.search.path)
        log_begin(self.places.work_log, "sketch", len(ordered))
        return [(path, part) for part in ordered]

    def sketch(self, listed: tuple[str, PartRecord]) -> str:
        path, part = listed
        is_new = write_sketch(part, self.search)
        increment("sketch", parts_in=1, parts_reused=int(not is_new), documents_in=part.num_documents)
        log_piece(self.places.work_log, "sketch", part.name, documents=part.num_documents, is_new=is_new)
        return path

    def cut_ranges(self, paths: Iterable[str]) -> list[Range]:
        path = next(iter(paths))
        number = num_hash_ranges(read_part_list(path), self.search.min_similarity)
        log_begin(self.places.work_log, "pair", number)
        return all_ranges(number, path)

    def pair(self, hashes: Range) -> Range:
        path = self._pairs(hashes)
        if is_new := not is_sealed(path):
            pairs = find_pairs(hashes.number, hashes.count, read_part_list(hashes.list), self.search)
            write_rows(path, pairs, "id")
            increment("pair", pairs_out=len(pairs))
        increment("pair", ranges_in=1, ranges_reused=int(not is_new))
        log_piece(self.places.work_log, "pair", str(hashes.number), is_new=is_new)
        return hashes

    def ranges_of_ids(self, hashes: Iterable[Range]) -> list[Range]:
        ranges = list(hashes)
        log_begin(self.places.work_log, "verify", len(ranges))
        return ranges

    def verify(self, ids: Range) -> Range:
        path = self._verified(ids)
        if is_new := not is_sealed(path):
            pairs = read_distinct_rows(map(self._pairs, all_ranges(ids.count, ids.list)), PAIR, *ids.edges)
            write_sealed(path, [verify_pairs(pairs, read_part_list(ids.list), self.search).tobytes()])
            increment("verify", pairs_in=len(pairs))
        increment("verify", ranges_in=1, ranges_reused=int(not is_new))
        log_piece(self.places.work_log, "verify", str(ids.number), is_new=is_new)
        return ids

    def join(self, ranges: Iterable[Range]) -> list[PartRecord]:
        ranges = sorted(ranges, key=lambda ids: ids.number)
        found = np.frombuffer(b"".join(read_sealed(self._verified(ids)) for ids in ranges), NEAR_DUPLICATE)
        if known := read_known(self.places, self.job):
            found = found[~known.among(found["part"], found["id"])]
        write_sealed(self.places.near_duplicates, [found.tobytes()])
        increment("verify", near_duplicates_found=len(found))
        return read_part_list(ranges[0].list)

    def _pairs(self, hashes: Range) -> str:
        return self.search.path("pairs", hashes.number, hashes.count, hashes.list)

    def _verified(self, ids: Range) -> str:
        return self.search.path("verified", ids.number, ids.count, ids.list)

"""The stage of known documents: part records -> the same part records, and a list of what earlier data sets have.

    list  : all parts    -> their list, a file; the pages of documents/ of the data sets that the job extends
    page  : page         -> the ids of its documents, sorted, in one file
    match : range of ids -> the documents of all parts that a page has, by part, in one file
    join  : all ranges   -> the list of these files, which later stages read

A document is known if its id is in documents/ of an earlier data set, or in its list of near duplicates. The bulk goes
through files that are read by ranges, so memory stays flat and a restart finds what is finished.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64, U64, Bools
from bertloom.parquet_files import parse_parquet
from bertloom.sealed_files import is_sealed, read_sealed, write_sealed
from pipeline.dataset import (
    NEAR_DUPLICATES,
    NEAR_DUPLICATES_SCHEMA,
    ROW_BYTES,
    parse_documents,
    read_listed,
)
from pipeline.extended import Extended, damaged, read_data_sets
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.stages.counters import increment
from pipeline.stages.part_lists import Range, all_ranges, gather, read_part_list, work_round, write_part_list
from pipeline.stages.sorted_rows import NUM_RANGES, read_rows, write_rows
from pipeline.stages.transform import transform
from pipeline.stages.work_log import log_begin, log_piece
from pipeline.tokens import PartRecord, read_document_rows

VERSION = 1  # raise it with any change in the layout of a file
RANGE_ROWS = 1 << 20  # documents of all parts and pages together in one range

PAGE = np.dtype([("id", "<u8"), ("length", "<i8")])
"""A document of an earlier data set. length: bytes of its text; 0 where the data set does not have it."""
KNOWN = np.dtype([("key", "<u8"), ("id", "<u8"), ("part", "<u4"), ("data_set", "<u4")])
"""A document of a part that an earlier data set has. key: see `_key`."""


@dataclass(frozen=True)
class Page:
    """A file with ids of an earlier data set."""

    data_set: int
    """Number of the data set."""
    name: str
    list: str
    """Path of the list of all parts."""


def _key(part: int, num_parts: int) -> int:
    """Return what sorts the rows of a part into a file's ranges."""
    return part * ((1 << 64) // max(1, num_parts))


@dataclass(frozen=True)
class KnownDocuments:
    """The known documents of all parts. Each call reads files."""

    paths: tuple[str, ...]
    """A file for each of a power of two of equal ranges of ids."""
    num_parts: int
    num_data_sets: int

    @property
    def digest(self) -> str:
        """Digest of the names of the files, which depend on their content."""
        return hashlib.sha256(json.dumps([path.rpartition("/")[2] for path in self.paths]).encode()).hexdigest()

    def of_part(self, part: int, low: int = 0, high: int = 1 << 64) -> NDArray[np.void]:
        """Return the KNOWN rows of a part with low <= id < high, by id: one for each document, also for equal ones."""
        count = len(self.paths)
        first, end = low * count >> 64, ((high - 1) * count >> 64) + 1
        begin = _key(part, self.num_parts) * NUM_RANGES >> 64
        found = [np.zeros(0, KNOWN), *(read_rows(path, KNOWN, begin, begin + 1) for path in self.paths[first:end])]
        rows = np.concatenate(found)
        wanted = (rows["part"] == part) & (rows["id"] >= np.uint64(low))
        if high < 1 << 64:
            wanted &= rows["id"] < np.uint64(high)
        return rows[wanted]

    def among(self, part_of: NDArray[np.integer], ids: U64) -> Bools:
        """Return which documents are known: bool (n,). part_of: number of the part of each."""
        found = np.zeros(len(ids), bool)
        for part in np.unique(part_of).tolist():
            chosen = part_of == part
            found[chosen] = np.isin(ids[chosen], self.of_part(part)["id"])
        return found


class KnownInBucket:
    """Chooses the documents of a bucket that are not known, and counts the others."""

    def __init__(self, known: KnownDocuments, low: int, high: int, choose: Callable[[int], Callable[[U64], Bools]]):
        """choose: returns, for the number of a part, which of its documents are in the bucket's split."""
        self.known, self.low, self.high, self.choose = known, low, high, choose
        self.counts: dict[int, I64] = {}
        """Number of each part that was read -> the known documents of each data set."""

    def __call__(self, part: int) -> Callable[[U64], Bools]:
        """Return a function from ids of a part to whether the documents are in the bucket and not known."""
        of_split, rows = self.choose(part), self.known.of_part(part, self.low, self.high)
        rows = rows[of_split(rows["id"])]
        self.counts[part] = np.bincount(rows["data_set"], minlength=self.known.num_data_sets)
        return lambda ids: of_split(ids) & ~np.isin(ids, rows["id"])

    def totals(self) -> tuple[int, ...]:
        """Return the known documents of each data set."""
        return tuple(np.sum([np.zeros(self.known.num_data_sets, np.int64), *self.counts.values()], axis=0).tolist())

    def by_part(self, num_parts: int) -> I64:
        """Return the known documents of each part: int64 (parts,)."""
        return np.array([self.counts[part].sum() if part in self.counts else 0 for part in range(num_parts)], np.int64)


def write_page(data_set: Extended, name: str, path: str) -> int:
    """Write the PAGE rows of a file of a data set, by id. Return their number."""
    try:
        content = read_listed(data_set.location, name, data_set.pages)
        if name == NEAR_DUPLICATES:
            table = parse_parquet(content, name, NEAR_DUPLICATES_SCHEMA, ROW_BYTES)
        else:
            table = parse_documents(content, name)
    except (OSError, ValueError) as error:
        raise damaged(data_set, error) from error
    rows = np.zeros(table.num_rows, PAGE)
    rows["id"] = table["id"].to_numpy()
    if name != NEAR_DUPLICATES:
        rows["length"] = table["length"].to_numpy()
    write_rows(path, np.sort(rows, order="id"), "id")
    return len(rows)


def match(
    ids: Range,
    parts: Sequence[PartRecord],
    folder: str,
    pages: Sequence[tuple[int, str]],
    data_sets: Sequence[Extended],
) -> NDArray[np.void]:
    """Return the KNOWN rows of a range of ids, by part, then by id. ValueError if two different texts have one id.

    Args:
        ids: the number of ranges is a power of two.
        folder: of the parts.
        pages: (number of the data set, path of its PAGE rows), by data set. Of equal documents the first counts.
    """
    read = [read_rows(path, PAGE, *ids.edges) for _, path in pages]
    known = np.concatenate([np.zeros(0, PAGE), *read])
    data_set = np.repeat(np.array([number for number, _ in pages], np.uint32), [len(rows) for rows in read])
    order = np.argsort(known["id"], kind="stable")
    known, data_set = known[order], data_set[order]
    low, high = (edge * ((1 << 64) // NUM_RANGES) for edge in ids.edges)
    found = [np.zeros(0, KNOWN)]
    for number, part in enumerate(parts):
        rows = read_document_rows(storage.join(folder, part.name), part, low, high)
        at = np.searchsorted(known["id"], rows["id"])
        is_known = at < len(known)
        is_known[is_known] = known["id"][at[is_known]] == rows["id"][is_known]
        rows, at = rows[is_known], at[is_known]
        length = known["length"][at]
        clash = np.flatnonzero((length != 0) & (length != rows["length"]))
        if len(clash):
            raise ValueError(
                f"a new document of {part.source} has the id {rows['id'][clash[0]]:016x} of a different document of "
                f"{data_sets[data_set[at[clash[0]]]].location}: remove it from the input"
            )
        of_part = np.zeros(len(rows), KNOWN)
        of_part["key"], of_part["part"] = _key(number, len(parts)), number
        of_part["id"], of_part["data_set"] = rows["id"], data_set[at]
        found.append(of_part)
    return np.concatenate(found)


@transform
class FindKnownDocuments(beam.PTransform[Any, Any]):
    """PartRecords -> the same PartRecords, when the list of known documents is written."""

    job: JobConfig
    places: Places

    def expand(self, parts: Any) -> Any:
        pages = work_round(parts, "parts", self.list_parts, "pages", self.page)
        matches = work_round(pages, "pages", self.cut_ranges, "ids", self.match)
        return gather(matches, "matches", self.join)

    def list_parts(self, parts: Iterable[PartRecord]) -> list[Page]:
        path, _ = write_part_list(parts, self._path)
        pages = [
            Page(number, name, path)
            for number, data_set in enumerate(self._data_sets())
            for name in sorted(data_set.pages)
        ]
        log_begin(self.places.work_log, "read known", len(pages))
        return pages

    def page(self, page: Page) -> tuple[str, int]:
        data_set, path = self._data_sets()[page.data_set], self._page(page.data_set, page.name)
        is_new, number = not is_sealed(path), 0
        if is_new:
            number = write_page(data_set, page.name, path)
        else:
            number = len(read_rows(path, PAGE, 0, NUM_RANGES))
        increment("read known", pages_in=1, pages_reused=int(not is_new), documents_in=number)
        log_piece(self.places.work_log, "read known", path, documents=number, is_new=is_new)
        return page.list, number

    def cut_ranges(self, pages: Iterable[tuple[str, int]]) -> list[Range]:
        paths, numbers = zip(*pages, strict=True)
        total = sum(numbers) + sum(part.num_documents for part in read_part_list(paths[0]))
        count = min(NUM_RANGES, 1 << max(0, -(-total // RANGE_ROWS) - 1).bit_length())
        log_begin(self.places.work_log, "match known", count)
        return all_ranges(count, paths[0])

    def match(self, ids: Range) -> Range:
        path = self._matched(ids)
        if is_new := not is_sealed(path):
            data_sets = self._data_sets()
            pages = [(i, self._page(i, name)) for i, one in enumerate(data_sets) for name in sorted(one.pages)]
            rows = match(ids, read_part_list(ids.list), self.places.parts, pages, data_sets)
            write_rows(path, rows, "key")
            increment("match known", documents_found=len(rows))
        increment("match known", ranges_in=1, ranges_reused=int(not is_new))
        log_piece(self.places.work_log, "match known", path, is_new=is_new)
        return ids

    def join(self, ranges: Iterable[Range]) -> list[PartRecord]:
        ordered = sorted(ranges, key=lambda ids: ids.number)
        parts = read_part_list(ordered[0].list)
        found = {"paths": [self._matched(ids) for ids in ordered], "num_parts": len(parts)}
        found |= {"num_data_sets": len(self._data_sets())}
        write_sealed(self.places.known_documents, [json.dumps(found).encode()])
        return parts

    def _data_sets(self) -> list[Extended]:
        return read_data_sets(self.places.extended)

    def _page(self, data_set: int, name: str) -> str:
        return self._path("page", self._data_sets()[data_set].pages[name])

    def _matched(self, ids: Range) -> str:
        return self._path("matched", self.job.extends, ids.number, ids.count, ids.list)

    def _path(self, *key: object) -> str:
        digest = hashlib.sha256(json.dumps([VERSION, *key]).encode()).hexdigest()
        return storage.join(self.places.known, digest[:24])


def read_known(places: Places, job: JobConfig) -> KnownDocuments | None:
    """Return the known documents that the stage found; None if the job extends no data set."""
    if not job.extends:
        return None
    fields = json.loads(read_sealed(places.known_documents))
    return KnownDocuments(tuple(fields["paths"]), fields["num_parts"], fields["num_data_sets"])

"""The stage of near duplicates: part records -> the same part records, and a file of the documents that are left out.

    sketch : part           -> its documents' band hashes, sorted, in one file
    pair   : range of hashes -> documents that share a band, read by range from every sketch; a file of pairs
    verify : range of ids   -> pairs, read by range from every file of them, whose shingles are alike, read back from the
                               parts; a file of documents to leave out
    found  : all of these   -> one file, read by plan, weave and manifest

A document is left out where one of smaller id is alike. Nothing further follows: of three in a chain the middle one can be
what both ends resemble. As everywhere, the bulk goes by file; so memory stays flat, and a started-again job goes on.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from pipeline import storage
from pipeline.minhash import Banding, band_hashes, is_alike, shingles, similarity
from pipeline.tokens import PartRecord, read_documents_table, read_range

VERSION = 2  # raise it with any change in what is found, or in how it lies in a file
EDGES = 4096  # ranges that sketches and pairs can be read by
RANGE_ROWS = 1 << 20  # of all sketches together, in one range
HELD_TOKENS = 1 << 22  # of the documents that are compared at a time: about 200 MB while they are read
DOCUMENT_TOKENS = 64  # what is held of a document beside its tokens costs as much as so many
MAX_COMPARED = 8  # documents of a band, those of smallest id, with which each other one of the band is compared

SKETCH = np.dtype([("hash", "<u8"), ("id", "<u8")])
PAIR = np.dtype([("id", "<u8"), ("smaller", "<u8"), ("part", "<u4"), ("smaller_part", "<u4")])
NEAR_DUPLICATE = np.dtype([
    ("id", "<u8"), ("resembles", "<u8"), ("part", "<u4"), ("piece", "<i4"), ("position", "<i8"),
    ("shared", "<u4"), ("either", "<u4"),
])  # fmt: skip


@dataclass(frozen=True)
class Search:
    """What is looked for, and where its files are."""

    similarity: float
    parts: str
    """Folder of the token parts."""
    folder: str
    """Of this stage's own files."""
    found: str
    """The file to write: NEAR_DUPLICATE rows by id."""

    def name(self, *key: object) -> str:
        """A file whose name tells what decides its content."""
        digest = hashlib.sha256(json.dumps([VERSION, self.similarity, *key]).encode()).hexdigest()
        return storage.join(self.folder, digest[:24])

    def sketch(self, part: PartRecord) -> str:
        return self.name("sketch", part.name)


def write_sketch(part: PartRecord, search: Search) -> None:
    """Writes the band hashes of a part's documents, behind the row where each of EDGES ranges begins."""
    path = search.sketch(part)
    if storage.exists(path):
        return
    block = read_range(storage.join(search.parts, part.name), part, 0, 1 << 64)
    ids = block.documents["id"]
    hashes = band_hashes(block.ids, block.documents["num_tokens"], Banding.of(search.similarity))
    rows = np.empty(hashes.size, SKETCH)
    rows["hash"], rows["id"] = hashes.ravel(), np.tile(ids, len(hashes))
    rows = np.unique(rows)  # by hash, then id; equal documents once
    write_rows(path, rows, "hash")


def write_rows(path: str, rows: NDArray[np.void], column: str) -> None:
    """Writes rows that are in order of a column, behind the row where each of EDGES equal ranges of it begins."""
    edges = np.searchsorted(rows[column], np.arange(EDGES, dtype=np.uint64) << np.uint64(52))
    storage.write_whole(path, [np.append(edges, len(rows)).astype("<u8").tobytes(), rows.tobytes()])


def read_rows(path: str, kind: np.dtype, first: int, last: int) -> NDArray[np.void]:
    """The rows of ranges first … last - 1."""
    with storage.open_read(path) as file:
        begin, end = (int.from_bytes(storage.read_at(file, 8 * edge, 8), "little") for edge in (first, last))
        start = 8 * (EDGES + 1) + begin * kind.itemsize
        return np.frombuffer(storage.read_at(file, start, (end - begin) * kind.itemsize), kind)


def num_ranges(parts: Sequence[PartRecord], least: float) -> int:
    """A power of two, so that a range has about RANGE_ROWS rows."""
    rows = sum(part.num_documents for part in parts) * Banding.of(least).num_bands
    return min(EDGES, 1 << max(0, -(-rows // RANGE_ROWS) - 1).bit_length())


def _edges(number: int, count: int) -> tuple[int, int]:
    """(first, last) of the EDGES that make up one of `count` ranges."""
    return number * EDGES // count, (number + 1) * EDGES // count


def find_pairs(number: int, count: int, parts: Sequence[PartRecord], search: Search) -> NDArray[np.void]:
    """PAIR rows, by id, of the documents that share a band whose hash is in a range.

    Of many documents in one band each is compared with the MAX_COMPARED of smallest id, so that a text in common by
    thousands does not make millions of pairs.
    """
    edges = _edges(number, count)
    sketches = [read_rows(search.sketch(part), SKETCH, *edges) for part in parts]
    rows = np.concatenate([np.zeros(0, SKETCH), *sketches])
    part = np.repeat(np.arange(len(parts), dtype=np.uint32), [len(sketch) for sketch in sketches])
    order = np.lexsort((part, rows["id"], rows["hash"]))
    hashes, ids, part = rows["hash"][order], rows["id"][order], part[order]
    again = np.zeros(len(ids), bool)
    again[1:] = (hashes[1:] == hashes[:-1]) & (ids[1:] == ids[:-1])  # equal documents: the first part's
    hashes, ids, part = hashes[~again], ids[~again], part[~again]
    begin = np.searchsorted(hashes, hashes)  # of each row's band
    found = [np.zeros(0, PAIR)]
    for i in range(MAX_COMPARED):
        later = np.flatnonzero(begin + i < np.arange(len(ids)))
        pairs = np.empty(len(later), PAIR)
        smaller = begin[later] + i
        pairs["id"], pairs["part"], pairs["smaller"], pairs["smaller_part"] = (
            ids[later], part[later], ids[smaller], part[smaller],
        )  # fmt: skip
        found.append(pairs)
    return np.unique(np.concatenate(found))


def verify_pairs(pairs: NDArray[np.void], parts: Sequence[PartRecord], search: Search) -> NDArray[np.void]:
    """NEAR_DUPLICATE rows, by id: the documents with one of smaller id that is alike, the first such. pairs: by id."""
    held = np.cumsum(_num_tokens(pairs, parts, search.parts) + DOCUMENT_TOKENS, axis=None)[1::2]
    cuts = np.flatnonzero(np.diff(held // HELD_TOKENS)) + 1
    rows = [_verify_at_once(some, parts, search) for some in np.split(pairs, cuts)]
    found = np.concatenate([np.zeros(0, NEAR_DUPLICATE), *rows])
    return found[np.unique(found["id"], return_index=True)[1]]  # a cut may fall between the pairs of a document


def _verify_at_once(pairs: NDArray[np.void], parts: Sequence[PartRecord], search: Search) -> NDArray[np.void]:
    documents, hashes = _read_shingles(pairs, parts, search.parts)
    found: list[tuple] = []
    for pair in pairs:  # by id, then by the smaller one
        number, smaller = int(pair["id"]), int(pair["smaller"])
        if found and found[-1][0] == number:
            continue
        shared, either = similarity(hashes[number], hashes[smaller])
        if is_alike(shared, either, search.similarity):
            row = documents[number]
            found.append((number, smaller, pair["part"], row["piece"], row["position"], shared, either))
    return np.array(found, NEAR_DUPLICATE)


def _num_tokens(pairs: NDArray[np.void], parts: Sequence[PartRecord], folder: str) -> NDArray[np.int64]:
    """Of both documents of each pair: int64 (pairs, 2)."""
    ids = np.stack([pairs["id"], pairs["smaller"]], axis=1)
    part_of = np.stack([pairs["part"], pairs["smaller_part"]], axis=1)
    num_tokens = np.zeros(ids.shape, np.int64)
    for i in np.unique(part_of).tolist():
        rows = read_documents_table(storage.join(folder, parts[i].name), parts[i])
        mine = part_of == i
        num_tokens[mine] = rows["num_tokens"][np.searchsorted(rows["id"], ids[mine])]
    return num_tokens


def _read_shingles(pairs: NDArray[np.void], parts: Sequence[PartRecord], folder: str) -> tuple[dict, dict]:
    """(id -> its DOCUMENT row, id -> its shingles) of all documents in the pairs."""
    documents: dict[int, np.void] = {}
    hashes: dict[int, NDArray[np.uint64]] = {}
    ids = np.concatenate([pairs["id"], pairs["smaller"]])
    part_of = np.concatenate([pairs["part"], pairs["smaller_part"]])
    for i in np.unique(part_of).tolist():
        wanted = np.unique(ids[part_of == i])
        path, choose = storage.join(folder, parts[i].name), partial(np.isin, test_elements=wanted)
        block = read_range(path, parts[i], 0, 1 << 64, choose)
        values, counts = shingles(block.ids, block.documents["num_tokens"])
        for row, mine in zip(block.documents, np.split(values, np.cumsum(counts)[:-1])):
            documents.setdefault(int(row["id"]), row)
            hashes.setdefault(int(row["id"]), mine)
    return documents, hashes


def read_near_duplicates(path: str) -> NDArray[np.void]:
    """NEAR_DUPLICATE rows by id."""
    return np.frombuffer(storage.read(path), NEAR_DUPLICATE)


# ---- as Beam runs it


@dataclass(frozen=True)
class Range:
    """One of `count` equal ranges, of hashes or of ids."""

    number: int
    count: int
    parts: str
    """File with the list of all parts."""


@lru_cache(maxsize=2)
def _read_list(path: str) -> list[PartRecord]:
    """The parts of a running job, in the order of their numbers. `path` names its content."""
    return [PartRecord.of(fields) for fields in json.loads(storage.read(path))]


class Sketch(beam.DoFn):
    """PartRecord -> the same."""

    def __init__(self, search: Search):
        self.search = search

    def process(self, part: PartRecord) -> Iterator[PartRecord]:
        write_sketch(part, self.search)
        yield part


class CutRanges(beam.DoFn):
    """(None, all PartRecords) -> Ranges."""

    def __init__(self, search: Search):
        self.search = search

    def process(self, group: tuple[None, Iterable[PartRecord]]) -> Iterator[Range]:
        parts = sorted(group[1], key=lambda part: part.sort_key)
        path = self.search.name("parts", [part.name for part in parts])
        storage.write_whole(path, [json.dumps([asdict(part) for part in parts]).encode()])
        count = num_ranges(parts, self.search.similarity)
        yield from (Range(number, count, path) for number in range(count))


class PairRange(beam.DoFn):
    """Range of hashes -> the same; its pairs are in a file."""

    def __init__(self, search: Search):
        self.search = search

    def process(self, part: Range) -> Iterator[Range]:
        path = self.search.name("pairs", part.number, part.count, part.parts)
        if not storage.exists(path):
            pairs = find_pairs(part.number, part.count, _read_list(part.parts), self.search)
            write_rows(path, pairs, "id")
        yield part


class VerifyRange(beam.DoFn):
    """Range of ids -> the same; what is left out of it is in a file."""

    def __init__(self, search: Search):
        self.search = search

    def process(self, part: Range) -> Iterator[Range]:
        path = self.search.name("verified", part.number, part.count, part.parts)
        if not storage.exists(path):
            files = (self.search.name("pairs", i, part.count, part.parts) for i in range(part.count))
            pairs = [read_rows(file, PAIR, *_edges(part.number, part.count)) for file in files]
            found = verify_pairs(np.unique(np.concatenate(pairs)), _read_list(part.parts), self.search)
            storage.write_whole(path, [found.tobytes()])
        yield part


class JoinFound(beam.DoFn):
    """(None, all Ranges) -> all PartRecords; the file of what is left out is written."""

    def __init__(self, search: Search):
        self.search = search

    def process(self, group: tuple[None, Iterable[Range]]) -> Iterator[PartRecord]:
        ranges = sorted(group[1], key=lambda part: part.number)
        names = (self.search.name("verified", part.number, part.count, part.parts) for part in ranges)
        storage.write_whole(self.search.found, (storage.read(name) for name in names))
        yield from _read_list(ranges[0].parts)


class FindNearDuplicates(beam.PTransform):
    """PartRecords -> the same, when the file of documents to leave out is there."""

    def __init__(self, search: Search):
        super().__init__()
        self.search = search

    def expand(self, parts):
        return (
            parts
            | "sketch" >> beam.ParDo(Sketch(self.search))
            | "all sketches" >> beam.GroupBy(lambda _: None)
            | "cut ranges" >> beam.ParDo(CutRanges(self.search))
            | "spread hashes" >> beam.Reshuffle()
            | "pair" >> beam.ParDo(PairRange(self.search))
            | "all pairs" >> beam.GroupBy(lambda _: None)
            | "ranges of ids" >> beam.FlatMapTuple(lambda _, ranges: ranges)
            | "spread ids" >> beam.Reshuffle()
            | "verify" >> beam.ParDo(VerifyRange(self.search))
            | "all verified" >> beam.GroupBy(lambda _: None)
            | "join" >> beam.ParDo(JoinFound(self.search))
        )

"""The stage of near duplicates: part records -> the same part records, and a file of the documents that are left out.

    list   : all parts      -> the files that hold their documents: packs of small ones, and the others (see packs.py)
    sketch : file           -> its documents' band hashes, sorted, in one file
    pair   : range of hashes -> documents that share a band, read by range from every sketch; a file of pairs
    verify : range of ids   -> pairs, read by range from every file of them, whose shingles are alike, read back from the
                               files; a file of documents to leave out
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

from bertloom import storage
from pipeline.stages.packs import Pack, pack_parts, token_files
from pipeline.text.minhash import Banding, band_hashes, is_alike, shingles, similarity
from pipeline.tokens import PartRecord, TokenFile, read_documents_table, read_range

VERSION = 3  # raise it with any change in what is found, or in how it lies in a file
EDGES = 4096  # ranges that sketches and pairs can be read by
RANGE_ROWS = 1 << 20  # of all sketches together, in one range
HELD_TOKENS = 1 << 22  # of the documents that are compared at a time: about 200 MB while they are read
DOCUMENT_TOKENS = 64  # what is held of a document beside its tokens costs as much as so many
MAX_COMPARED = 8  # documents of a band, those of smallest id, with which each other one of the band is compared

Files = Sequence[tuple[int, TokenFile]]  # the number of the first part in each, and the file
SKETCH = np.dtype([("hash", "<u8"), ("id", "<u8")])
PAIR = np.dtype([("id", "<u8"), ("smaller", "<u8"), ("file", "<u4"), ("smaller_file", "<u4")])
NEAR_DUPLICATE = np.dtype(
    [
        ("id", "<u8"),
        ("resembles", "<u8"),
        ("part", "<u4"),
        ("piece", "<i4"),
        ("position", "<i8"),
        ("shared", "<u4"),
        ("either", "<u4"),
    ]
)


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

    def sketch(self, file: TokenFile) -> str:
        return self.name("sketch", file.name)


def write_sketch(file: TokenFile, search: Search) -> None:
    """Writes the band hashes of a file's documents, behind the row where each of EDGES ranges begins."""
    path = search.sketch(file)
    if storage.exists(path):
        return
    block = read_range(storage.join(search.parts, file.name), file, 0, 1 << 64)
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


def num_ranges(files: Sequence[TokenFile], least: float) -> int:
    """A power of two, so that a range has about RANGE_ROWS rows."""
    rows = sum(file.num_documents for file in files) * Banding.of(least).num_bands
    return min(EDGES, 1 << max(0, -(-rows // RANGE_ROWS) - 1).bit_length())


def _edges(number: int, count: int) -> tuple[int, int]:
    """(first, last) of the EDGES that make up one of `count` ranges."""
    return number * EDGES // count, (number + 1) * EDGES // count


def find_pairs(number: int, count: int, files: Sequence[TokenFile], search: Search) -> NDArray[np.void]:
    """PAIR rows, by id, of the documents that share a band whose hash is in a range.

    Of many documents in one band each is compared with the MAX_COMPARED of smallest id, so that a text in common by
    thousands does not make millions of pairs.
    """
    edges = _edges(number, count)
    sketches = [read_rows(search.sketch(file), SKETCH, *edges) for file in files]
    rows = np.concatenate([np.zeros(0, SKETCH), *sketches])
    file_of = np.repeat(np.arange(len(files), dtype=np.uint32), [len(sketch) for sketch in sketches])
    order = np.lexsort((file_of, rows["id"], rows["hash"]))
    hashes, ids, file_of = rows["hash"][order], rows["id"][order], file_of[order]
    again = np.zeros(len(ids), bool)
    again[1:] = (hashes[1:] == hashes[:-1]) & (ids[1:] == ids[:-1])  # equal documents: the first file's
    hashes, ids, file_of = hashes[~again], ids[~again], file_of[~again]
    begin = np.searchsorted(hashes, hashes)  # of each row's band
    found = [np.zeros(0, PAIR)]
    for i in range(MAX_COMPARED):
        later = np.flatnonzero(begin + i < np.arange(len(ids)))
        pairs = np.empty(len(later), PAIR)
        smaller = begin[later] + i
        pairs["id"], pairs["file"] = ids[later], file_of[later]
        pairs["smaller"], pairs["smaller_file"] = ids[smaller], file_of[smaller]
        found.append(pairs)
    return np.unique(np.concatenate(found))


def verify_pairs(pairs: NDArray[np.void], files: Files, search: Search) -> NDArray[np.void]:
    """NEAR_DUPLICATE rows, by id: the documents with one of smaller id that is alike, the first such.

    pairs: by id. files: as `token_files` gives them."""
    held = np.cumsum(_num_tokens(pairs, files, search.parts) + DOCUMENT_TOKENS, axis=None)[1::2]
    cuts = np.flatnonzero(np.diff(held // HELD_TOKENS)) + 1
    rows = [_verify_at_once(some, files, search) for some in np.split(pairs, cuts)]
    found = np.concatenate([np.zeros(0, NEAR_DUPLICATE), *rows])
    return found[np.unique(found["id"], return_index=True)[1]]  # a cut may fall between the pairs of a document


def _verify_at_once(pairs: NDArray[np.void], files: Files, search: Search) -> NDArray[np.void]:
    documents, hashes = _read_shingles(pairs, files, search.parts)
    found: list[tuple] = []
    for pair in pairs:  # by id, then by the smaller one
        number, smaller = int(pair["id"]), int(pair["smaller"])
        if found and found[-1][0] == number:
            continue
        shared, either = similarity(hashes[number], hashes[smaller])
        if is_alike(shared, either, search.similarity):
            row = documents[number]
            part = files[pair["file"]][0] + row["part"]
            found.append((number, smaller, part, row["piece"], row["position"], shared, either))
    return np.array(found, NEAR_DUPLICATE)


def _num_tokens(pairs: NDArray[np.void], files: Files, folder: str) -> NDArray[np.int64]:
    """Of both documents of each pair: int64 (pairs, 2)."""
    ids = np.stack([pairs["id"], pairs["smaller"]], axis=1)
    file_of = np.stack([pairs["file"], pairs["smaller_file"]], axis=1)
    num_tokens = np.zeros(ids.shape, np.int64)
    for i in np.unique(file_of).tolist():
        _, file = files[i]
        rows = read_documents_table(storage.join(folder, file.name), file)
        mine = file_of == i
        num_tokens[mine] = rows["num_tokens"][np.searchsorted(rows["id"], ids[mine])]
    return num_tokens


def _read_shingles(pairs: NDArray[np.void], files: Files, folder: str) -> tuple[dict, dict]:
    """(id -> its DOCUMENT row, id -> its shingles) of all documents in the pairs."""
    documents: dict[int, np.void] = {}
    hashes: dict[int, NDArray[np.uint64]] = {}
    ids = np.concatenate([pairs["id"], pairs["smaller"]])
    file_of = np.concatenate([pairs["file"], pairs["smaller_file"]])
    for i in np.unique(file_of).tolist():
        _, file = files[i]
        wanted = np.unique(ids[file_of == i])
        path, choose = storage.join(folder, file.name), partial(np.isin, test_elements=wanted)
        block = read_range(path, file, 0, 1 << 64, choose)
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
    list: str
    """File with the list of all parts, and packs."""


def write_list(parts: Sequence[PartRecord], search: Search) -> str:
    """Packs the small parts, and writes down what there is; the name of this file tells its content."""
    path = search.name("list", [part.name for part in parts])
    content = {"parts": list(map(asdict, parts)), "packs": list(map(asdict, pack_parts(parts, search.parts)))}
    storage.write_whole(path, [json.dumps(content).encode()])
    return path


@lru_cache(maxsize=2)
def read_list(path: str) -> tuple[list[PartRecord], Files]:
    """(parts, files) of a running job."""
    content = json.loads(storage.read(path))
    parts = [PartRecord.of(fields) for fields in content["parts"]]
    return parts, list(token_files(parts, [Pack.of(fields) for fields in content["packs"]]))


class ListFiles(beam.DoFn):
    """(None, all PartRecords) -> (path of the list, TokenFile) of each file."""

    def __init__(self, search: Search):
        self.search = search

    def process(self, group: tuple[None, Iterable[PartRecord]]) -> Iterator[tuple[str, TokenFile]]:
        path = write_list(sorted(group[1], key=lambda part: part.sort_key), self.search)
        yield from ((path, file) for _, file in read_list(path)[1])


class Sketch(beam.DoFn):
    """(path of the list, TokenFile) -> (path of the list, None); the file's sketch is there."""

    def __init__(self, search: Search):
        self.search = search

    def process(self, listed: tuple[str, TokenFile]) -> Iterator[tuple[str, None]]:
        write_sketch(listed[1], self.search)
        yield listed[0], None


class CutRanges(beam.DoFn):
    """(path of the list, None for each file) -> Ranges."""

    def __init__(self, search: Search):
        self.search = search

    def process(self, group: tuple[str, Iterable[None]]) -> Iterator[Range]:
        files = [file for _, file in read_list(group[0])[1]]
        count = num_ranges(files, self.search.similarity)
        yield from (Range(number, count, group[0]) for number in range(count))


class PairRange(beam.DoFn):
    """Range of hashes -> the same; its pairs are in a file."""

    def __init__(self, search: Search):
        self.search = search

    def process(self, part: Range) -> Iterator[Range]:
        path = self.search.name("pairs", part.number, part.count, part.list)
        if not storage.exists(path):
            files = [file for _, file in read_list(part.list)[1]]
            write_rows(path, find_pairs(part.number, part.count, files, self.search), "id")
        yield part


class VerifyRange(beam.DoFn):
    """Range of ids -> the same; what is left out of it is in a file."""

    def __init__(self, search: Search):
        self.search = search

    def process(self, part: Range) -> Iterator[Range]:
        path = self.search.name("verified", part.number, part.count, part.list)
        if not storage.exists(path):
            names = (self.search.name("pairs", i, part.count, part.list) for i in range(part.count))
            pairs = [read_rows(name, PAIR, *_edges(part.number, part.count)) for name in names]
            found = verify_pairs(np.unique(np.concatenate(pairs)), read_list(part.list)[1], self.search)
            storage.write_whole(path, [found.tobytes()])
        yield part


class JoinFound(beam.DoFn):
    """(None, all Ranges) -> all PartRecords; the file of what is left out is written."""

    def __init__(self, search: Search):
        self.search = search

    def process(self, group: tuple[None, Iterable[Range]]) -> Iterator[PartRecord]:
        ranges = sorted(group[1], key=lambda part: part.number)
        names = (self.search.name("verified", part.number, part.count, part.list) for part in ranges)
        storage.write_whole(self.search.found, (storage.read(name) for name in names))
        yield from read_list(ranges[0].list)[0]


class FindNearDuplicates(beam.PTransform):
    """PartRecords -> the same, when the file of documents to leave out is there."""

    def __init__(self, search: Search):
        super().__init__()
        self.search = search

    def expand(self, parts):
        return (
            parts
            | "all parts" >> beam.GroupBy(lambda _: None)
            | "list files" >> beam.ParDo(ListFiles(self.search))
            | "spread files" >> beam.Reshuffle()
            | "sketch" >> beam.ParDo(Sketch(self.search))
            | "all sketches" >> beam.GroupByKey()
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

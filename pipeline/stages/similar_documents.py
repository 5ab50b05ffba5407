"""Kernels of the search for near duplicates: band hashes, pairs of documents that share a band, and their similarity.

Each works on token parts or files of sorted rows and returns or writes arrays. near_duplicates.py runs them on Beam.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64, U64
from bertloom.sealed_files import is_sealed, read_sealed
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.stages.sorted_rows import NUM_RANGES, range_edges, read_rows, write_rows
from pipeline.text.minhash import Banding, band_hashes, is_alike, shingles, similarity
from pipeline.tokens import PartRecord, read_documents_table, read_range

VERSION = 5  # raise it with any change in what is found, or in the layout of a file
RANGE_ROWS = 1 << 20  # rows of all sketches together in one range
MAX_HELD_TOKENS = 1 << 22  # of the documents compared in one batch: about 200 MB while they are read
DOCUMENT_TOKENS = 64  # the memory for a document besides its tokens, in tokens
MAX_COMPARED = 8  # documents of a band, those of smallest id, with which each other one is compared

SKETCH = np.dtype([("hash", "<u8"), ("id", "<u8")])
PAIR = np.dtype([("id", "<u8"), ("smaller", "<u8"), ("part", "<u4"), ("smaller_part", "<u4")])
NEAR_DUPLICATE = np.dtype(
    [
        ("id", "<u8"),
        ("resembles", "<u8"),
        ("part", "<u4"),
        ("file", "<u4"),
        ("piece", "<i4"),
        ("position", "<i8"),
        ("shared", "<u4"),
        ("either", "<u4"),
    ]
)


@dataclass(frozen=True)
class Search:
    """What is searched for, and where the files are."""

    min_similarity: float
    """Jaccard similarity of the shingles from which on two documents are alike."""
    parts: str
    """Folder of the token parts."""
    folder: str
    """Folder of the search's own files."""

    @classmethod
    def of(cls, job: JobConfig, places: Places) -> "Search":
        """Return the search of a job with --near-duplicates."""
        assert job.examples.near_duplicates is not None
        return cls(job.examples.near_duplicates, places.parts, places.near_duplicate_search)

    def path(self, *key: object) -> str:
        """Return the path of a file whose name is a digest of what decides its content."""
        digest = hashlib.sha256(json.dumps([VERSION, self.min_similarity, *key]).encode()).hexdigest()
        return storage.join(self.folder, digest[:24])

    def sketch(self, part: PartRecord) -> str:
        return self.path("sketch", part.name)


def write_sketch(part: PartRecord, search: Search) -> bool:
    """Write the band hashes of a part's documents, unless they are there. Return whether they were not."""
    path = search.sketch(part)
    if is_sealed(path):
        return False
    block = read_range(storage.join(search.parts, part.name), part, 0, 1 << 64)
    ids = block.documents["id"]
    hashes = band_hashes(block.ids, block.documents["num_tokens"], Banding.of(search.min_similarity))
    rows = np.empty(hashes.size, SKETCH)
    rows["hash"], rows["id"] = hashes.ravel(), np.tile(ids, len(hashes))
    write_rows(path, np.unique(rows), "hash")  # by hash, then id; equal documents once
    return True


def num_hash_ranges(parts: Sequence[PartRecord], min_similarity: float) -> int:
    """Return the power of two with which a range has about RANGE_ROWS rows."""
    rows = sum(part.num_documents for part in parts) * Banding.of(min_similarity).num_bands
    return min(NUM_RANGES, 1 << max(0, -(-rows // RANGE_ROWS) - 1).bit_length())


def find_pairs(number: int, count: int, parts: Sequence[PartRecord], search: Search) -> NDArray[np.void]:
    """Return PAIR rows, by id, of the documents that share a band whose hash is in range `number` of `count`.

    In a band of many documents each is compared only with the MAX_COMPARED of smallest id: a passage that thousands of
    documents quote must not make millions of pairs.
    """
    edges = range_edges(number, count)
    sketches = [read_rows(search.sketch(part), SKETCH, *edges) for part in parts]
    rows = np.concatenate([np.zeros(0, SKETCH), *sketches])
    part_of = np.repeat(np.arange(len(parts), dtype=np.uint32), [len(sketch) for sketch in sketches])
    order = np.lexsort((part_of, rows["id"], rows["hash"]))
    hashes, ids, part_of = rows["hash"][order], rows["id"][order], part_of[order]
    repeated = np.zeros(len(ids), bool)
    repeated[1:] = (hashes[1:] == hashes[:-1]) & (ids[1:] == ids[:-1])  # equal documents: keep that of the first part
    hashes, ids, part_of = hashes[~repeated], ids[~repeated], part_of[~repeated]
    band_start = np.searchsorted(hashes, hashes)
    found = [np.zeros(0, PAIR)]
    for i in range(MAX_COMPARED):
        later = np.flatnonzero(band_start + i < np.arange(len(ids)))
        smaller = band_start[later] + i
        pairs = np.empty(len(later), PAIR)
        pairs["id"], pairs["part"] = ids[later], part_of[later]
        pairs["smaller"], pairs["smaller_part"] = ids[smaller], part_of[smaller]
        found.append(pairs)
    return np.unique(np.concatenate(found))


def verify_pairs(pairs: NDArray[np.void], parts: Sequence[PartRecord], search: Search) -> NDArray[np.void]:
    """Return NEAR_DUPLICATE rows, by id: the documents that are alike to one of smaller id, each with the first such.

    `pairs` is sorted by id. Documents are read in batches of about MAX_HELD_TOKENS.
    """
    held = np.cumsum(_num_tokens(pairs, parts, search.parts) + DOCUMENT_TOKENS, axis=None)[1::2]
    cuts = np.flatnonzero(np.diff(held // MAX_HELD_TOKENS)) + 1
    rows = [_verify_batch(batch, parts, search) for batch in np.split(pairs, cuts)]
    found = np.concatenate([np.zeros(0, NEAR_DUPLICATE), *rows])
    return found[np.unique(found["id"], return_index=True)[1]]  # a cut may fall between the pairs of a document


def _verify_batch(pairs: NDArray[np.void], parts: Sequence[PartRecord], search: Search) -> NDArray[np.void]:
    documents, hashes = read_shingles(pairs, parts, search.parts)
    found: list[tuple[Any, ...]] = []
    for pair in pairs:  # by id, then by the smaller one
        number, smaller = int(pair["id"]), int(pair["smaller"])
        if found and found[-1][0] == number:
            continue
        shared, either = similarity(hashes[number], hashes[smaller])
        if is_alike(shared, either, search.min_similarity):
            row = documents[number]
            place = (pair["part"], row["file"], row["piece"], row["position"])
            found.append((number, smaller, *place, shared, either))
    return np.array(found, NEAR_DUPLICATE)


def _num_tokens(pairs: NDArray[np.void], parts: Sequence[PartRecord], folder: str) -> I64:
    """Return the lengths of both documents of each pair: int64 (pairs, 2)."""
    ids = np.stack([pairs["id"], pairs["smaller"]], axis=1)
    part_of = np.stack([pairs["part"], pairs["smaller_part"]], axis=1)
    num_tokens = np.zeros(ids.shape, np.int64)
    for i in np.unique(part_of).tolist():
        rows = read_documents_table(storage.join(folder, parts[i].name), parts[i])
        in_part = part_of == i
        num_tokens[in_part] = rows["num_tokens"][np.searchsorted(rows["id"], ids[in_part])]
    return num_tokens


def read_shingles(
    pairs: NDArray[np.void], parts: Sequence[PartRecord], folder: str
) -> tuple[dict[int, np.void], dict[int, U64]]:
    """Return (id -> DOCUMENT row, id -> shingle hashes) of all documents in the pairs."""
    documents: dict[int, np.void] = {}
    hashes: dict[int, U64] = {}
    ids = np.concatenate([pairs["id"], pairs["smaller"]])
    part_of = np.concatenate([pairs["part"], pairs["smaller_part"]])
    for i in np.unique(part_of).tolist():
        choose = partial(np.isin, test_elements=np.unique(ids[part_of == i]))
        block = read_range(storage.join(folder, parts[i].name), parts[i], 0, 1 << 64, choose)
        values, counts = shingles(block.ids, block.documents["num_tokens"])
        for row, hashes_of_row in zip(block.documents, np.split(values, np.cumsum(counts)[:-1]), strict=False):
            documents.setdefault(int(row["id"]), row)
            hashes.setdefault(int(row["id"]), hashes_of_row)
    return documents, hashes


def read_near_duplicates(path: str) -> NDArray[np.void]:
    """Return the NEAR_DUPLICATE rows of a finished search, by id."""
    return np.frombuffer(read_sealed(path), NEAR_DUPLICATE)

"""The pages of sketches/ in a data set: written with --near-duplicates, and read by a job that extends the data set.

The weave stage writes one page for each bucket, with the documents of its page of documents/.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64, U64
from bertloom.parquet_files import parse_parquet
from bertloom.sealed_files import BODY, write_sealed
from pipeline.dataset import ROW_BYTES, SKETCHES_SCHEMA
from pipeline.stages.parquet import parquet_bytes
from pipeline.stages.sorted_rows import write_rows
from pipeline.text.minhash import Banding
from pipeline.text.sketches import NUM_LEAST, Sketches, sketch
from pipeline.tokens import TokenBlock

FOLDER = "sketches"
"""Folder of the pages in a data set."""
BAND = np.dtype([("hash", "<u8"), ("id", "<u8")])


def page_name(split: str, number: int) -> str:
    """Return the name of the page of a bucket in a data set."""
    return f"{FOLDER}/{split}/{number:05d}.parquet"


def sketches_page(tokens: TokenBlock, min_similarity: float) -> bytes:
    """Return the page of these documents. min_similarity: the value of --near-duplicates."""
    made = sketch(tokens.ids, tokens.documents["num_tokens"], Banding.of(min_similarity))
    number, num_bands = made.bands.shape
    bands = _lists(made.bands.reshape(-1), np.full(number, num_bands), SKETCHES_SCHEMA.field("bands").type)
    least = _lists(made.least, made.num_least, SKETCHES_SCHEMA.field("least").type)
    ids, num_shingles = tokens.documents["id"].copy(), made.num_shingles.astype(np.int32)
    return parquet_bytes(
        pa.Table.from_arrays([pa.array(ids), pa.array(num_shingles), bands, least], schema=SKETCHES_SCHEMA)
    )


def _lists(values: NDArray[np.unsignedinteger], counts: I64, kind: pa.DataType) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values), type=kind)


def parse_sketches(content: bytes, name: str, min_similarity: float) -> tuple[U64, Sketches]:
    """Return (ids, sketches) of a page; ValueError if a value is not possible."""
    table = parse_parquet(content, name, SKETCHES_SCHEMA, ROW_BYTES)
    bands, least = (table[column].combine_chunks() for column in ("bands", "least"))
    num_bands = Banding.of(min_similarity).num_bands
    num_shingles = table["num_shingles"].to_numpy().astype(np.int64)
    num_least = least.value_lengths().to_numpy().astype(np.int64)
    if (bands.value_lengths().to_numpy() != num_bands).any():
        raise ValueError(
            f"{name} has documents without {num_bands} bands, which --near-duplicates {min_similarity} has"
        )
    if (num_shingles < 1).any() or (num_least != np.minimum(num_shingles, NUM_LEAST)).any():
        raise ValueError(f"{name} has documents whose number of hashes does not fit their number of shingles")
    values = least.flatten().to_numpy()
    is_first = np.zeros(len(values), bool)
    is_first[np.cumsum(num_least) - num_least] = True
    if (values[1:] <= values[:-1])[~is_first[1:]].any():
        raise ValueError(f"{name} has documents whose hashes are out of order")
    ids: U64 = table["id"].to_numpy()
    return ids, Sketches(bands.flatten().to_numpy().reshape(-1, num_bands), num_shingles, values, num_least)


# ---- the same pages in the folder of a job, read by ranges


def write_for_search(ids: U64, sketches: Sketches, bands_path: str, least_path: str) -> None:
    """Write the BAND rows of a page, by hash, and the least hashes of its documents.

    least_path: number of documents | ids, ascending | place of each one's first hash, and the end | num_shingles | hashes
    """
    num_bands = sketches.bands.shape[1]
    rows = np.empty(len(ids) * num_bands, BAND)
    rows["hash"], rows["id"] = sketches.bands.reshape(-1), np.repeat(ids, num_bands)
    write_rows(bands_path, np.unique(rows), "hash")
    edges = np.concatenate([[0], np.cumsum(sketches.num_least)]).astype("<u8")
    head = [np.array([len(ids)], "<u8"), ids.astype("<u8"), edges, sketches.num_shingles.astype("<u8")]
    write_sealed(least_path, [column.tobytes() for column in head] + [sketches.least.astype("<u4").tobytes()])


@dataclass(frozen=True)
class LeastHashes:
    """The least hashes of the documents of a page. Each call reads some of them from the file."""

    path: str

    def of(self, wanted: Sequence[int]) -> dict[int, tuple[NDArray[np.uint32], int]]:
        """Return id -> (least hashes, number of shingles) of these documents of the page."""
        with storage.open_read(self.path) as file:
            number = int.from_bytes(storage.read_at(file, BODY, 8), "little")
            head = np.frombuffer(storage.read_at(file, BODY + 8, 8 * (3 * number + 1)), "<u8")
        ids, edges, num_shingles = head[:number], head[number : 2 * number + 1], head[2 * number + 1 :]
        first = BODY + 8 + 8 * (3 * number + 1)
        chosen = np.unique(np.array(wanted, np.uint64))
        at = np.searchsorted(ids, chosen)
        spans = [(first + 4 * int(edges[i]), 4 * int(edges[i + 1] - edges[i])) for i in at]
        contents = storage.read_ranges(self.path, spans)
        return {int(ids[i]): (np.frombuffer(content, "<u4"), int(num_shingles[i])) for i, content in zip(at, contents)}

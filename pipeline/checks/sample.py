"""A deterministic sample of a data set, of constant size: some members of some shards, and their documents.

Buckets are ranges of a hash and shards are in random order, so any members of any buckets are a random sample.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64
from bertloom.draws import draw, fold
from bertloom.shards import MEMBER_EXAMPLES

SAMPLE_BUCKETS = 4
SAMPLE_TOKENS = 4_000_000  # of each length
SEED = 0x7265706F7274  # "report" in ASCII


def sample_buckets(rows: list[dict[str, Any]]) -> list[int]:
    """Return a few buckets of the train split, in keyed order. rows: of shards.parquet."""
    numbers = sorted({row["number"] for row in rows if row["split"] == "train"})
    return [numbers[i] for i in _shuffled(len(numbers), 0)[:SAMPLE_BUCKETS]]


def sample_examples(
    dataset: str, rows: list[dict[str, Any]], buckets: list[int], max_seq_length: int
) -> tuple[pa.Table, I64]:
    """Return (examples, their numbers) of members of these buckets' train shards of one length, in keyed order.

    The number of an example is its index among all examples of the data set, in the order of shards.parquet.
    """
    firsts = np.cumsum([0, *(row["examples"] for row in rows)])
    members = [
        (row, i, first + MEMBER_EXAMPLES * i)
        for row, first in zip(rows, firsts)
        if (row["split"], row["max_seq_length"]) == ("train", max_seq_length) and row["number"] in buckets
        for i in range(len(row["member_offsets"]))
    ]
    most = max(1, SAMPLE_TOKENS // (MEMBER_EXAMPLES * max_seq_length))
    chosen = [members[i] for i in _shuffled(len(members), max_seq_length)[:most]]
    batches = [next(read_members(dataset, row, [i])) for row, i, _ in chosen]
    numbers = [first + np.arange(batch.num_rows) for batch, (_, _, first) in zip(batches, chosen)]
    return pa.Table.from_batches(batches), np.concatenate(numbers)


def read_members(dataset: str, row: dict[str, Any], which: list[int] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the members of a shard with these numbers, or all of them. row: of shards.parquet."""
    with storage.open_read(storage.join(dataset, *row["path"].split("/"))) as file:
        for i in range(len(row["member_offsets"])) if which is None else which:
            payload = storage.read_at(file, row["member_offsets"][i], row["member_bytes"][i])
            yield pa.ipc.open_file(pa.BufferReader(payload)).get_batch(0)


def read_documents_page(dataset: str, split: str, number: int) -> pa.Table:
    """Read the page of documents/ of a bucket."""
    path = storage.join(dataset, "documents", split, f"{number:05d}.parquet")
    return pq.read_table(pa.BufferReader(storage.read(path)))


def _shuffled(n: int, key: int) -> NDArray[np.intp]:
    """Return 0 ... n - 1 in keyed order."""
    return np.argsort(draw(fold(SEED, key), np.arange(n)), kind="stable")

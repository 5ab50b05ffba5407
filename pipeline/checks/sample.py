"""A deterministic sample of a data set, of constant size: some members of some shards, and their documents.

Buckets are ranges of a hash and shards are in random order, so any members of any buckets are a random sample.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64
from bertloom.draws import draw, fold
from bertloom.manifest import DAMAGED
from bertloom.members import check_ids, check_values, read_member
from bertloom.shards import MEMBER_EXAMPLES
from pipeline.dataset import parse_documents, read_listed

SAMPLE_BUCKETS = 4
SAMPLE_TOKENS = 4_000_000  # of each length
SEED = 0x7265706F7274  # "report" in ASCII


def sample_buckets(rows: list[dict[str, Any]]) -> list[int]:
    """Return a few buckets of the train split, in keyed order. rows: of shards.parquet."""
    numbers = sorted({row["number"] for row in rows if row["split"] == "train"})
    return [numbers[i] for i in _shuffled(len(numbers), 0)[:SAMPLE_BUCKETS]]


def sample_members(rows: list[dict[str, Any]], buckets: list[int], max_seq_length: int) -> list[tuple[int, int, int]]:
    """Return (row of the shard, number of the member in it, number of its first example) in keyed order.

    They are members of these buckets' train shards of one length. The number of an example is its index among all examples
    of the data set, in the order of shards.parquet.
    """
    firsts = np.cumsum([0, *(row["examples"] for row in rows)])
    members = [
        (shard, i, int(first) + sum(row["member_examples"][:i]))
        for shard, (row, first) in enumerate(zip(rows, firsts))
        if (row["split"], row["max_seq_length"]) == ("train", max_seq_length) and row["number"] in buckets
        for i in range(len(row["member_offsets"]))
    ]
    most = max(1, SAMPLE_TOKENS // (MEMBER_EXAMPLES * max_seq_length))
    return [members[i] for i in _shuffled(len(members), max_seq_length)[:most]]


def sample_examples(
    dataset: str, rows: list[dict[str, Any]], buckets: list[int], max_seq_length: int, vocabulary_size: int
) -> tuple[pa.Table, I64]:
    """Return (the examples of `sample_members`, their numbers)."""
    chosen = sample_members(rows, buckets, max_seq_length)
    batches = [next(read_members(dataset, rows[shard], vocabulary_size, [i])) for shard, i, _ in chosen]
    if not batches:
        raise ValueError(f"{dataset} has no train examples of length {max_seq_length} in its first buckets; {DAMAGED}")
    numbers = [first + np.arange(batch.num_rows) for batch, (_, _, first) in zip(batches, chosen)]
    return pa.Table.from_batches(batches), np.concatenate(numbers)


def read_members(
    dataset: str, row: dict[str, Any], vocabulary_size: int, which: list[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the members of a shard with these numbers, or all of them. row: of shards.parquet."""
    for i in range(len(row["member_offsets"])) if which is None else which:
        path, size = storage.join(dataset, row["path"]), row["member_bytes"][i]
        try:
            storage.file_below(dataset, row["path"])
            payload = storage.read_range(path, row["member_offsets"][i], size)
            if len(payload) != size:
                raise ValueError(f"the shard ends {size - len(payload)} bytes early")
            batch = read_member(pa.py_buffer(payload))
            check_values(batch, row["max_seq_length"])
            check_ids(batch, vocabulary_size)
            if batch.num_rows != row["member_examples"][i]:
                raise ValueError(
                    f"it has {batch.num_rows} examples, but shards.parquet has {row['member_examples'][i]}"
                )
        except (OSError, ValueError) as error:
            raise ValueError(f"member {i} of {path} cannot be read: {error}; {DAMAGED}") from error
        yield batch


def read_documents_page(dataset: str, split: str, number: int, manifest: dict[str, Any]) -> pa.Table:
    """Read the page of documents/ of a bucket."""
    name = f"documents/{split}/{number:05d}.parquet"
    try:
        return parse_documents(read_listed(dataset, name, manifest["documents"]), storage.join(dataset, name))
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}; {DAMAGED}") from error


def _shuffled(n: int, key: int) -> NDArray[np.intp]:
    """Return 0 ... n - 1 in keyed order."""
    return np.argsort(draw(fold(SEED, key), np.arange(n)), kind="stable")

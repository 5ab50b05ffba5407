"""The shard format: names, schemas and a plain reader. `docs/shard-format.md` is normative.

A shard is a ustar tar of Arrow files. `read_shard` reads one in a line; the trainer maps shards into memory
(`model/loading/members.py`).
"""

import hashlib
import tarfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bertloom import storage

FORMAT_VERSION = 1
MEMBER_EXAMPLES = 1024
SPLITS = ("train", "validation")

SHARDS_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("max_seq_length", pa.int32(), nullable=False),
        pa.field("copy", pa.int32(), nullable=False),
        pa.field("number", pa.int32(), nullable=False),
        pa.field("examples", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("member_offsets", pa.list_(pa.int64()), nullable=False),
        pa.field("member_bytes", pa.list_(pa.int64()), nullable=False),
        pa.field("member_examples", pa.list_(pa.int32()), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class ShardName:
    """The name of a shard: one for each (split, max_seq_length, copy, bucket)."""

    split: str
    max_seq_length: int
    copy: int
    number: int

    @property
    def path(self) -> str:
        """Path relative to the data set."""
        return f"{self.split}/seq{self.max_seq_length}/copy{self.copy}/{self.number:05d}.tar"

    @property
    def order_number(self) -> int:
        """Number of the bucket in the keys of the order, different for train and validation buckets."""
        return self.number + (1 << 32) * SPLITS.index(self.split)


def schema(ids: np.dtype[Any], metadata: dict[str, str] | None = None) -> pa.Schema:
    """Return the schema of a member. ids: type of the token ids."""
    id_type = pa.from_numpy_dtype(ids)
    fields: list[tuple[str, pa.DataType]] = [
        ("input_ids", _list_of(id_type)),
        ("segment_b_start", pa.uint16()),
        ("masked_lm_positions", _list_of(pa.uint16())),
        ("masked_lm_ids", _list_of(id_type)),
        ("next_sentence_label", pa.int8()),
        ("document_a", pa.uint64()),
        ("token_a", pa.uint32()),
        ("document_b", pa.uint64()),
        ("token_b", pa.uint32()),
    ]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields], metadata)


def read_shard(path: str) -> pa.Table:
    """Read a whole shard as one table.

    >>> read_shard("DATASET/train/seq128/copy0/00000.tar").column("next_sentence_label")[:3]
    """
    with storage.open_read(path) as file, tarfile.open(fileobj=file) as tar:
        members = [pa.ipc.open_file(tar.extractfile(member).read()).read_all() for member in tar]  # type: ignore[union-attr]
    if not members:
        raise ValueError(f"{path} has no members, but a shard has one or more: make or copy it again")
    return pa.concat_tables(members)


def shards_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return shards.parquet as a table, its rows sorted by (split, max_seq_length, copy, number)."""
    keys = ("split", "max_seq_length", "copy", "number")
    ordered = sorted(rows, key=lambda row: tuple(row[key] for key in keys))
    return pa.Table.from_pylist(ordered, schema=SHARDS_SCHEMA)


def digest_of(rows: list[dict[str, Any]]) -> str:
    """Return one digest for all shards: the sha256 over their paths and sha256s, in order."""
    lines = "".join(f"{row['sha256']}  {row['path']}\n" for row in sorted(rows, key=lambda row: row["path"]))
    return hashlib.sha256(lines.encode()).hexdigest()


def _list_of(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("item", kind, nullable=False))

"""The shard format: names, schemas, and which rows of shards.parquet are possible. `docs/shard-format.md` is normative.

A shard is a ustar tar of Arrow files. `bertloom/members.py` reads them.
"""

import hashlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bertloom.limits import MAX_SEQ_LENGTH, MIN_SEQ_LENGTH
from bertloom.shapes import SHA256

FORMAT_VERSION = 1
MEMBER_EXAMPLES = 1024
SPLITS = ("train", "validation")
MAX_MEMBER_BYTES = 1 << 30
"""1,024 examples of 65,535 ids of 4 bytes with as many masks have 0.8 * 10^9."""

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


def shards_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return shards.parquet as a table, its rows sorted by (split, max_seq_length, copy, number)."""
    keys = ("split", "max_seq_length", "copy", "number")
    ordered = sorted(rows, key=lambda row: tuple(row[key] for key in keys))
    return pa.Table.from_pylist(ordered, schema=SHARDS_SCHEMA)


def shards_faults(shards: pa.Table, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not possible in the rows of shards.parquet, which have SHARDS_SCHEMA and no nulls.

    Without a fault, every path is that of a shard, and the places of members follow from their sizes as in a tar file.

    manifest: of the data set, with the shape of a manifest.
    """
    configuration, expected = manifest["configuration"], manifest["shards_parquet"]["rows"]
    if shards.num_rows != expected:
        yield f"it has {shards.num_rows} rows, but manifest.json has {expected}"
        return
    rows = shards.drop_columns(["member_offsets", "member_bytes", "member_examples"]).to_pylist()
    earlier = (-1, 0, 0, 0)
    copies: dict[tuple[str, int], set[int]] = {}
    for index, row in enumerate(rows):
        if fault := _row_fault(row, configuration["dupe_factor"]):
            yield f"row {index} {fault}"
            return
        key = (SPLITS.index(row["split"]), row["max_seq_length"], row["copy"], row["number"])
        if key <= earlier:
            yield f"row {index}, {row['path']}, is out of order, or is there twice"
        earlier = key
        copies.setdefault((row["split"], row["max_seq_length"]), set()).add(row["copy"])
    lengths = {length for _, length in copies}
    if lengths != {*configuration["max_seq_length"]}:
        yield f"it has the lengths {sorted(lengths)}, but the configuration has {configuration['max_seq_length']}"
    for length in sorted(lengths):
        found = copies.get(("train", length), set())
        if len(found) != configuration["dupe_factor"]:
            yield f"length {length} has the copies {sorted(found)}, expected {configuration['dupe_factor']} of them"
    yield from _member_faults(shards, rows)


def _row_fault(row: Mapping[str, Any], dupe_factor: int) -> str | None:
    """Return what is not possible in a row, without its members."""
    if row["split"] not in SPLITS:
        return f"has the split {row['split']!r:.80}, expected train or validation"
    limits = {
        "max_seq_length": (MIN_SEQ_LENGTH, MAX_SEQ_LENGTH),
        "copy": (0, dupe_factor - 1),
        "number": (0, (1 << 31) - 1),
        "examples": (1, 1 << 40),
        "tokens": (row["examples"], row["examples"] * row["max_seq_length"]),
        "bytes": (1, 1 << 42),
    }
    for name, (least, most) in limits.items():
        if not least <= row[name] <= most:
            return f"has {name} {row[name]}, expected {least} to {most}"
    names = {name: row[name] for name in ("split", "max_seq_length", "copy", "number")}
    if row["path"] != (path := ShardName(**names).path):
        return f"names {row['path']!r:.200}, which is not inside the data set: expected {path}"
    if not SHA256.holds(row["sha256"]):
        return f"has the sha256 {row['sha256']!r:.80}, expected {SHA256.what}"
    return None


def _member_faults(shards: pa.Table, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield shards whose members are not possible: a header of one block precedes each, and zeros fill its last block."""
    block = tarfile.BLOCKSIZE
    lists = [shards[name].combine_chunks() for name in ("member_offsets", "member_bytes", "member_examples")]
    firsts = [np.concatenate([[0], np.cumsum(column.value_lengths().to_numpy())]) for column in lists]
    columns = [column.flatten().to_numpy().astype(np.int64) for column in lists]
    for index, row in enumerate(rows):
        offsets, sizes, counts = (
            column[first[index] : first[index + 1]] for column, first in zip(columns, firsts, strict=True)
        )
        name = row["path"]
        if not 0 < len(offsets) == len(sizes) == len(counts):
            found = f"{len(offsets)} member_offsets, {len(sizes)} member_bytes and {len(counts)} member_examples"
            yield f"{name} has {found}, expected as many of each"
            continue
        if (counts < 1).any() or (counts > MEMBER_EXAMPLES).any() or counts.sum() != row["examples"]:
            members = f"{counts.sum()} examples in members of {sorted(set(counts.tolist()))[:5]}"
            yield f"{name} has {members}, expected {row['examples']} in members of {MEMBER_EXAMPLES}"
        if (sizes < 1).any() or (sizes > MAX_MEMBER_BYTES).any():
            yield f"{name} has a member of {sizes.min()} or {sizes.max()} bytes, expected 1 to {MAX_MEMBER_BYTES}"
            continue
        ends = np.cumsum(block + -(-sizes // block) * block)
        if (offsets != np.concatenate([[0], ends[:-1]]) + block).any():
            yield f"{name}: its member_offsets are not those of members of its member_bytes"
        if row["bytes"] != ends[-1] + 2 * block:
            yield f"{name} has {row['bytes']} bytes, but its members and two blocks of zeros have {ends[-1] + 2 * block}"


def digest_of(rows: list[dict[str, Any]]) -> str:
    """Return one digest for all shards: the sha256 over their paths and sha256s, in order."""
    lines = "".join(f"{row['sha256']}  {row['path']}\n" for row in sorted(rows, key=lambda row: row["path"]))
    return hashlib.sha256(lines.encode()).hexdigest()


def _list_of(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("item", kind, nullable=False))

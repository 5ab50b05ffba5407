"""Reads a checkpoint of TensorFlow (a "tensor bundle"), such as those of google-research/bert, without TensorFlow.

    bert_model.ckpt.index                 a table of LevelDB's form: the entry of each tensor by name, as protocol buffers
    bert_model.ckpt.data-00000-of-00001   the numbers of the tensors, one after the other

The form is that of tensorflow/core/util/tensor_bundle and tensorflow/core/lib/io/table. Every length and offset is compared
with the size of its file before it is used, and every block and tensor with its checksum.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertloom.json_files import check_regular, read_regular
from model.hub.crc32c import crc32c

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
FOOTER_BYTES = 48
TRAILER_BYTES = 5  # the kind of compression, and a checksum
MAX_ENTRIES, MAX_NAME = 100_000, 1000
DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    9: torch.int64,
    14: torch.bfloat16,
    19: torch.float16,
}
"""The kinds of numbers by TensorFlow's DataType. Tensors of other kinds hold no weights, and are not read."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a tensor is."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    shard: int
    """Number of its data file."""
    offset: int
    size: int
    """Its place in that file, in bytes."""
    checksum: int
    """Masked CRC-32C of its bytes."""


def read_bundle(index: Path, is_wanted: re.Pattern[str]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint whose names match a pattern.

    Args:
        index: the file that ends in .index.

    Raises:
        ValueError: a file is missing or damaged, or the checkpoint has a form that TensorFlow does not write for weights.
    """
    entries, paths = read_index(index)
    wanted = {name: entry for name, entry in entries.items() if is_wanted.search(name)}
    sizes = [path.stat().st_size for path in paths]
    if sum(entry.size for entry in wanted.values()) > sum(sizes):
        raise damaged(index, "its tensors are larger than its data files")
    tensors = {}
    for name, entry in wanted.items():
        path = paths[entry.shard]
        if entry.offset + entry.size > sizes[entry.shard]:
            raise damaged(path, f"it ends before the tensor {name}")
        with open(path, "rb") as file:
            file.seek(entry.offset)
            content = bytearray(file.read(entry.size))
        if masked(crc32c(content)) != entry.checksum:
            raise damaged(path, f"the checksum of the tensor {name} differs")
        tensors[name] = torch.frombuffer(content, dtype=entry.dtype).reshape(entry.shape)
    return tensors


def read_index(index: Path) -> tuple[dict[str, Entry], list[Path]]:
    """Return the entries of all tensors that hold numbers, by name, and the data files."""
    content = read_regular(index)
    if content[-8:] != MAGIC or len(content) < FOOTER_BYTES:
        raise ValueError(f"{index} is not the index of a TensorFlow checkpoint: expected a file of `tf.train.Saver`")
    footer, at = content[-FOOTER_BYTES:], 0
    try:
        for _ in range(2):
            _, at = varint(footer, at)  # of the block of statistics, which is not used
        blocks = [bytes(value) for _, value in read_block(content, footer[at:], index)]
        if sum(varint(block, varint(block, 0)[1])[0] for block in blocks) > len(content):
            raise IndexError
        rows = [row for block in blocks for row in read_block(content, block, index)]
        header = dict(fields(rows[0][1])) if rows and rows[0][0] == b"" else {}
        num_shards = header.get(1)
        if not isinstance(num_shards, int) or not 0 < num_shards < 10_000 or header.get(2, 0) != 0:
            raise damaged(index, "it has no header of a bundle of little-endian numbers")
        entries = {name.decode(): entry for name, value in rows[1:] if (entry := parse_entry(value, num_shards))}
    except (IndexError, TypeError, UnicodeDecodeError):
        raise damaged(index, "a length in it is wrong") from None
    stem = str(index).removesuffix(".index")
    paths = [Path(f"{stem}.data-{number:05d}-of-{num_shards:05d}") for number in range(num_shards)]
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path} is missing: copy all files of the checkpoint")
        check_regular(path)
    return entries, paths


def read_block(content: bytes, handle: bytes, index: Path) -> list[tuple[bytes, bytes]]:
    """Return the keys and values of the block at a handle (its offset and size). A key shares bytes with the one before."""
    offset, at = varint(handle, 0)
    size, _ = varint(handle, at)
    block, kind = content[offset : offset + size], content[offset + size]
    checksum = int.from_bytes(content[offset + size + 1 : offset + size + TRAILER_BYTES], "little")
    if kind:
        raise ValueError(f"{index} is compressed: save the checkpoint again with a current TensorFlow, which does not")
    if masked(crc32c(content[offset : offset + size + 1])) != checksum:
        raise damaged(index, "the checksum of a block differs")
    end = len(block) - 4 * (1 + int.from_bytes(block[-4:], "little"))  # before the list of restarts and its length
    rows: list[tuple[bytes, bytes]] = []
    key, at = b"", 0
    while at < end:
        shared, at = varint(block, at)
        num_more, at = varint(block, at)
        num_value, at = varint(block, at)
        key = key[:shared] + block[at : at + num_more]
        at += num_more + num_value
        if len(key) > MAX_NAME or len(rows) == MAX_ENTRIES or at > end:
            raise IndexError
        rows.append((key, block[at - num_value : at]))
    return rows


def parse_entry(message: bytes, num_shards: int) -> Entry | None:
    """Return the entry in a BundleEntryProto, or None if its tensor cannot hold weights."""
    values = dict(fields(message))
    dtype = DTYPES.get(values.get(1, 0))
    if dtype is None or 7 in values:  # 7: a tensor in slices
        return None
    dimensions = [dict(fields(dimension)) for number, dimension in fields(values.get(2, b"")) if number == 2]
    entry = Entry(
        dtype=dtype,
        shape=tuple(dimension.get(1, 0) for dimension in dimensions),
        shard=values.get(3, 0),
        offset=values.get(4, 0),
        size=values.get(5, 0),
        checksum=values.get(6, 0),
    )
    if entry.shard >= num_shards or not 0 < entry.size == prod(entry.shape) * dtype.itemsize:
        raise IndexError
    return entry


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each field of a protocol buffer: a number, or bytes."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = varint(message, at)
            yield number, value
            continue
        length, at = varint(message, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, len(message)), at)
        at += length
        if at > len(message):
            raise IndexError
        part = message[at - length : at]
        yield number, part if kind == 2 else int.from_bytes(part, "little")


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at a place in seven-bit groups, and the place after it; IndexError if it does not end."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise IndexError


def masked(checksum: int) -> int:
    """Return a checksum in the form in which LevelDB stores it."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def damaged(path: Path, what: str) -> ValueError:
    """Return the error about a damaged file."""
    return ValueError(f"{path} is damaged: {what}; copy the checkpoint again")

"""The members of shards, read so that a damaged one can neither crash the process nor take more memory than its size.

A shard is a ustar tar of Arrow files. `read_shard` reads one in a line; the trainer maps shards into memory
(`model/loading/members.py`).

A reader needs `read_member`, `check_values` and `check_ids`. What passes all three can be used as `docs/shard-format.md`
promises, without another check.
"""

import struct
import tarfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from bertloom import storage
from bertloom.json_files import check_regular
from bertloom.parquet_files import UNREADABLE
from bertloom.shards import MAX_MEMBER_BYTES, schema

END = b"ARROW1"
ID_TYPES = (np.dtype(np.uint16), np.dtype(np.uint32))
LABELS = (-1, 0, 1)
METADATA = {"format_version", "max_seq_length", "copy", "vocabulary_sha256"}


def read_member(payload: pa.Buffer, columns: Sequence[str] | None = None) -> pa.RecordBatch:
    """Return the batch of a member without copying it.

    columns: those to return. Only their values are looked at; None: all.

    Raises:
        ValueError: it is not one uncompressed Arrow batch with the columns of the format, valid and without nulls. The text
            does not name the member.
    """
    try:
        reader = pa.ipc.open_file(payload)
        if not any(reader.schema.equals(schema(kind)) for kind in ID_TYPES):
            raise ValueError(f"its columns are not those of the format: {reader.schema.names}"[:200])
        if metadata_of(reader.schema).keys() != METADATA:
            raise ValueError(f"its metadata are {metadata_of(reader.schema)}"[:200])
        if reader.num_record_batches != 1:
            raise ValueError(f"it has {reader.num_record_batches} batches, expected 1")
        if _is_compressed(memoryview(payload)):  # before it is read: 100 KB can become many gigabytes
            raise ValueError("it is compressed")
        batch = reader.get_batch(0)
        batch.validate()
        if columns is not None:
            batch = batch.select(columns)
    except (*UNREADABLE, struct.error) as error:
        raise ValueError(" ".join(str(error).split())) from None
    for name, column in zip(batch.schema.names, batch.columns):
        try:
            column.validate(full=True)
        except UNREADABLE as error:
            raise ValueError(f"its column {name} is not valid ({error})") from None
        if column.null_count or (pa.types.is_list(column.type) and column.values.null_count):
            raise ValueError(f"its column {name} has nulls")
    return batch


def read_shard(path: str) -> pa.Table:
    """Return a whole shard as one table, with the columns of docs/shard-format.md. An example is a row.

    The token ids are not compared with a vocabulary.

    Args:
        path: a file, or a URL that fsspec knows.

    Raises:
        ValueError: it is not a shard, or is damaged.

    Examples:
        >>> table = bertloom.read_shard("DATASET/train/seq128/copy0/00000.tar")
        >>> table.column("input_ids")[0].as_py()  # the token ids of the first example
    """
    if storage.is_local(path):
        check_regular(path)
    with storage.open_read(path) as file:
        batches = []
        for number, payload in enumerate(_payloads(file, path)):
            try:
                batch = read_member(pa.py_buffer(payload))
                check_values(batch, int(metadata_of(batch.schema)["max_seq_length"]))
            except ValueError as error:
                raise ValueError(f"member {number} of {path} cannot be read: {error}") from None
            batches.append(batch)
    if not batches:
        raise ValueError(f"{path} has no members, but a shard has one or more: make or copy it again")
    if any(not batch.schema.equals(batches[0].schema, check_metadata=True) for batch in batches):
        raise ValueError(f"{path} has members of different lengths, copies or vocabularies: make or copy it again")
    return pa.Table.from_batches(batches)


def _payloads(file: BinaryIO, path: str) -> Iterator[bytes]:
    """Yield the content of the members of a tar file that consists of plain files."""
    place = 0
    while any(header := storage.read_at(file, place, tarfile.BLOCKSIZE)):
        try:
            info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        except (tarfile.TarError, ValueError) as error:
            raise ValueError(f"{path} is not a tar file: at byte {place} it has no header ({error})") from None
        if info.type != tarfile.REGTYPE or not 0 < info.size <= MAX_MEMBER_BYTES:
            raise ValueError(f"{path} holds {info.name!r} of {info.size} bytes at byte {place}, which is not a member")
        yield storage.read_at(file, place + tarfile.BLOCKSIZE, info.size)
        place += tarfile.BLOCKSIZE + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def check_values(batch: pa.RecordBatch, max_seq_length: int) -> None:
    """Raise ValueError unless every value of a batch of `read_member` but the ids can be used as an index or a label."""
    ids, positions, truths = (batch.column(name) for name in ("input_ids", "masked_lm_positions", "masked_lm_ids"))
    lengths, num_masks, num_truths = (np.diff(column.offsets.to_numpy()) for column in (ids, positions, truths))
    segment_b = batch.column("segment_b_start").to_numpy()
    _no_example((lengths < 3) | (lengths > max_seq_length), f"has fewer than 3 or more than {max_seq_length} input_ids")
    _no_example(num_masks != num_truths, "has more or fewer masked_lm_positions than masked_lm_ids")
    _no_example((segment_b < 2) | (segment_b > lengths), "has a segment_b_start outside of it")
    places = positions.flatten().to_numpy()
    example = np.repeat(np.arange(len(lengths)), num_masks)
    if (outside := places >= lengths[example]).any():
        raise ValueError(f"example {example[outside.argmax()]} has a masked_lm_position outside of it")
    _no_example(
        ~np.isin(batch.column("next_sentence_label").to_numpy(), LABELS), f"has a label that is none of {LABELS}"
    )


def check_ids(batch: pa.RecordBatch, vocabulary_size: int) -> None:
    """Raise ValueError unless every token id is that of a word. vocabulary_size: number of words."""
    for name in ("input_ids", "masked_lm_ids"):
        largest = int(batch.column(name).flatten().to_numpy().max(initial=0))
        if largest >= vocabulary_size:
            raise ValueError(f"{name} has the token id {largest}, but the vocabulary has {vocabulary_size} words")


def metadata_of(found: pa.Schema) -> dict[str, str]:
    """Return the metadata of a member's schema as text."""
    return {
        key.decode(errors="replace"): value.decode(errors="replace") for key, value in (found.metadata or {}).items()
    }


def _no_example(is_wrong: np.ndarray, what: str) -> None:
    if is_wrong.any():
        raise ValueError(f"example {int(is_wrong.argmax())} {what}")


def _is_compressed(payload: memoryview) -> bool:
    """Return whether the first batch of an Arrow file has compressed buffers. pyarrow does not tell.

    The footer and the batch are FlatBuffers tables (Arrow's File.fbs and Message.fbs).
    """
    end = len(payload) - len(END) - 4
    footer = end - _uint32(payload, end)
    batches = _field(payload, footer + _uint32(payload, footer), 3)  # Footer.recordBatches
    first = batches + _uint32(payload, batches) + 4
    message = struct.unpack_from("<q", payload, first)[0] + 8  # Block.offset; a marker and a length come first
    header = _field(payload, message + _uint32(payload, message), 2)  # Message.header
    return _field(payload, header + _uint32(payload, header), 3) != 0  # RecordBatch.compression


def _field(data: memoryview, table: int, number: int) -> int:
    """Return the place of a field of a FlatBuffers table, 0 if the table lacks it."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    size, after = struct.unpack_from("<H", data, vtable)[0], 4 + 2 * number
    found = struct.unpack_from("<H", data, vtable + after)[0] if after < size else 0
    return table + found if found else 0


def _uint32(data: memoryview, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])

"""What table formats share: a document is the text of one column in one row, and a position is a row number from 0."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from bertloom.arrays import I64
from pipeline.inputs.formats.table_columns import (
    Columns,
    check_document_type,
    check_id_type,
    check_text_type,
    id_texts,
    read_errors,
)
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.inputs.streams import Damaged, read_chunks
from pipeline.text.records import DAMAGED, SHOWN_CHARACTERS, Item, Reject, Row, decode_row

if TYPE_CHECKING:  # functions import it: --help does not need it
    import pyarrow as pa

BATCH_BYTES, BATCH_ROWS = 8_000_000, 4096  # most text and rows held as Python objects at a time, about
ROWS_PER_BYTE = 1000  # at most, in a file: nulls take no space, and a false number of them would never end

ReadBatches = Callable[[Source, BinaryIO, list[str], int], Iterator[tuple[int, "pa.RecordBatch | str"]]]
"""(source, its uncompressed file, columns, row to start from) -> (first row, batch), in order. If a batch is damaged and
later ones can be read, the error takes the place of the batch."""


def read_table(read_batches: ReadBatches, packed: BinaryIO, split: Split, start: int) -> Iterator[Item]:
    """Yield the records of a split of an open table from row `start`, and a reject for each place where the file is damaged.

    Each batch is checked completely before it is used: offsets and indices outside of their buffers would crash Arrow.
    """
    source, row, broken = split.source, start, ""
    names = columns_of(source.read)
    with tempfile.TemporaryFile() if source.codec else nullcontext(packed) as file:
        if source.codec:
            broken = _unpack(packed, source.codec, file)
        columns = Columns(*names)
        try:
            for first, batch in read_batches(source, file, names, start):
                if split.end is not None and first >= split.end:
                    return
                if isinstance(batch, str):
                    yield Reject(first, DAMAGED, batch)
                    continue
                end = first + batch.num_rows
                if end <= start:
                    continue
                if end > ROWS_PER_BYTE * source.size:
                    raise OSError(f"{end} rows are more than a file of {source.size} bytes can hold")
                yield from _read_batch(batch, columns, max(0, start - first), first)
                row = end
        except read_errors() as error:
            broken = broken or str(error)
    if broken:
        yield Reject(row, DAMAGED, f"{broken}: what came before it was kept")


def _read_batch(batch: pa.RecordBatch, columns: Columns, begin: int, first: int) -> Iterator[Item]:
    """Yield the records of a batch from its row `begin`, or one reject if it is damaged. first: number of its first row."""
    try:
        columns.check(batch)
    except read_errors() as error:
        yield Reject(first, DAMAGED, f"{error}: rows {first} to {first + batch.num_rows - 1} are left out")
        return
    for start, end in _slices(columns.lengths(batch), begin):
        yield from _read_rows(batch, columns, start, end, first)


def _slices(lengths: I64, begin: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of the rows to hold at a time. lengths: bytes of each row."""
    ends = np.cumsum(lengths)
    while begin < len(lengths):
        before = int(ends[begin - 1]) if begin else 0
        end = int(np.searchsorted(ends, before + BATCH_BYTES, side="right"))
        end = min(max(end, begin + 1), begin + BATCH_ROWS, len(lengths))
        yield begin, end
        begin = end


def find_row_cuts(sizes: Iterator[tuple[int, int]], split_bytes: int) -> list[int]:
    """Return the rows before which a table is cut, so that each split has about `split_bytes` of text.

    sizes: (rows, bytes of text) of each row group or record batch; cuts are between two of them.
    """
    cuts: list[int] = []
    row = size = 0
    try:
        for num_rows, num_bytes in sizes:
            if size >= split_bytes:
                cuts.append(row)
                size = 0
            row, size = row + num_rows, size + num_bytes
    except read_errors():
        pass  # the reader will report it
    return cuts


def count_rows(sizes: Iterator[tuple[int, int]]) -> int:
    """Return the number of rows of a table; 0 if it cannot be read, which the reader will report."""
    try:
        return sum(rows for rows, _ in sizes)
    except read_errors():
        return 0


def columns_of(config: ReadConfig) -> list[str]:
    """Return the names of the columns to read: text, id and, if documents have several rows, document."""
    names = [config.text_column, config.id_column]
    return names if config.document_column is None else [*names, config.document_column]


def check_columns(
    source: Source, schema: pa.Schema, text_column: str, id_column: str, document_column: str | None = None
) -> None:
    """Raise ValueError if a table lacks a column, has two columns with one name, or a type that cannot be read."""
    for flag, column in (("--text-column", text_column), ("--document-column", document_column)):
        if column is not None and column not in schema.names:
            raise ValueError(
                f"{source.path}: has no column {column!r}. Its columns are {', '.join(schema.names)}: choose one with "
                f"{flag}"
            )
    flags = {"--text-column": text_column, "--id-column": id_column, "--document-column": document_column}
    for flag, column in flags.items():
        if column is not None and (number := schema.names.count(column)) > 1:
            raise ValueError(
                f"{source.path}: has {number} columns with the name {column!r}. Expected one: rename the others, or choose "
                f"another column with {flag}"
            )
    check_text_type(source.path, text_column, schema.field(text_column).type)
    if id_column in schema.names:
        check_id_type(source.path, id_column, schema.field(id_column).type)
    if document_column is not None:
        check_document_type(source.path, document_column, schema.field(document_column).type)


def rows_held(num_rows: int, num_bytes: int) -> int:
    """Return how many rows of a row group or batch to hold at a time."""
    return max(1, min(BATCH_BYTES * num_rows // max(1, num_bytes), BATCH_ROWS))


def _unpack(packed: BinaryIO, codec: str, file: BinaryIO) -> str:
    """Write what can be unpacked to `file` and return the error, if any. Tables need random access, not a stream."""
    try:
        file.writelines(read_chunks(packed, codec))
    except Damaged as damage:
        return str(damage)
    finally:
        file.seek(0)
    return ""


def _read_rows(batch: pa.RecordBatch, columns: Columns, begin: int, end: int, first: int) -> Iterator[Item]:
    """Yield the records of the rows begin ... end - 1 of a batch whose first row is number `first` of the table."""
    texts, names = columns.texts(batch, begin, end), id_texts(columns.ids(batch, begin, end))
    documents = columns.documents(batch, begin, end)
    for row, (raw, record_id, document) in enumerate(zip(texts, names, documents, strict=True), first + begin):
        if raw is None:
            yield Reject(row, "text-not-a-string", "null", record_id=record_id)
            continue
        text, num_replaced = decode_row(raw)
        yield Row(text, row, raw[: 4 * SHOWN_CHARACTERS], num_replaced, record_id, document)

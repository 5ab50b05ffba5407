"""Parquet and Arrow IPC files: the text of one column, a document a row; a position is the number of a row, from 0.

Arrow files are those of `pyarrow.ipc` and of Hugging Face `datasets`' save_to_disk: files with a footer, and streams.
"""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from bertloom import storage
from pipeline.inputs.sources import Source, Split
from pipeline.inputs.streams import Damaged, read_chunks
from pipeline.text.records import Document, Reject, first_characters, paragraphs, whole_or_pieces

BATCH_BYTES, BATCH_ROWS = 8_000_000, 4096  # what is held as Python objects at a time, at most about

_FILE_MAGIC = b"ARROW1\0\0"  # an Arrow file is a stream between these and a footer
_BROKEN = (pa.ArrowInvalid, OSError)


def split_table(source: Source, split_bytes: int, text_column: str) -> list[Split]:
    """Cuts a table at the ends of row groups or record batches. ValueError where it lacks the column.

    A compressed one is not cut, nor an Arrow file that is not local: it tells its batches only to who reads them all.
    """
    cuts, row, size = [0], 0, 0
    if not source.codec and (source.format == "parquet" or storage.is_local(source.path)):
        with suppress(*_BROKEN):  # whoever reads it will say so
            for num_rows, num_bytes in _sizes(source, text_column):
                if size >= split_bytes:
                    cuts.append(row)
                    size = 0
                row, size = row + num_rows, size + num_bytes
    ends: list[int | None] = [*cuts[1:], None]
    return [Split(source, a, b, source.size // len(cuts)) for a, b in zip(cuts, ends, strict=True)]


def _sizes(source: Source, text_column: str) -> Iterator[tuple[int, int]]:
    """(rows, bytes of text) of each row group or record batch of a plain file."""
    with storage.open_read(source.path) as file:
        if source.format == "arrow":
            for _, batch in _arrow_batches(source, file, [text_column]):
                yield batch.num_rows, batch.column(0).nbytes
        else:
            parquet = pq.ParquetFile(file)
            _check_column(source, parquet.schema_arrow, text_column)
            for i in range(parquet.num_row_groups):
                group = parquet.metadata.row_group(i)
                yield group.num_rows, _text_bytes(group, text_column)


def read_table(split: Split, start: int, text_column: str, id_column: str) -> Iterator[Document | Reject]:
    """The documents and rejects of a split of a table, from row `start` on."""
    source, row, broken = split.source, start, ""
    with storage.open_read(source.path) as packed, tempfile.TemporaryFile() if source.codec else packed as file:
        if source.codec:
            broken = _unpack(packed, source.codec, file)
        columns = [text_column, id_column]
        batches = (
            _arrow_batches(source, file, columns)
            if source.format == "arrow"
            else _parquet_batches(source, file, columns, start)
        )
        try:
            for first, batch in batches:
                if split.end is not None and first >= split.end:
                    return
                step = _rows_held(batch.num_rows, batch.column(text_column).nbytes)
                for begin in range(max(0, start - first), batch.num_rows, step):
                    yield from _read_rows(batch[begin : begin + step], first + begin, text_column, id_column)
                row = max(start, first + batch.num_rows)
        except _BROKEN as error:
            broken = broken or str(error)
    if broken:
        yield Reject(row, "damaged-file", f"{broken}: what came before it was kept")


def _unpack(packed: BinaryIO, codec: str, file: BinaryIO) -> str:
    """Writes all that a compressed file gives to `file`; what broke, where something did. Both kinds are read here and
    there, not as a stream."""
    try:
        file.writelines(read_chunks(packed, codec))
    except Damaged as damage:
        return str(damage)
    finally:
        file.seek(0)
    return ""


def _arrow_batches(source: Source, file: BinaryIO, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(first row, batch) of all batches; where the file is mapped to memory it costs nothing to pass over one."""
    if not source.codec and storage.is_local(source.path):
        file = pa.memory_map(source.path)
    begin = len(_FILE_MAGIC) if file.read(len(_FILE_MAGIC)) == _FILE_MAGIC else 0
    file.seek(begin)
    schema = pa.ipc.open_stream(file).schema
    _check_column(source, schema, columns[0])
    wanted = [schema.get_field_index(name) for name in columns if name in schema.names]
    file.seek(begin)
    row = 0
    for batch in pa.ipc.open_stream(file, options=pa.ipc.IpcReadOptions(included_fields=wanted)):
        yield row, batch
        row += batch.num_rows


def _parquet_batches(
    source: Source, file: BinaryIO, columns: list[str], start: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(first row, batch) from the row group with row `start` on."""
    parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    _check_column(source, parquet.schema_arrow, columns[0])
    wanted = [name for name in dict.fromkeys(columns) if name in parquet.schema_arrow.names]
    row = 0
    for i in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(i)
        if row + group.num_rows <= start:
            row += group.num_rows
            continue
        rows = _rows_held(group.num_rows, _text_bytes(group, columns[0]))
        for batch in parquet.iter_batches(rows, [i], wanted):
            yield row, batch
            row += batch.num_rows


def _rows_held(num_rows: int, num_bytes: int) -> int:
    """How many rows of a group or batch are read at a time."""
    return max(1, min(BATCH_BYTES * num_rows // max(1, num_bytes), BATCH_ROWS))


def _text_bytes(group: pq.RowGroupMetaData, text_column: str) -> int:
    columns = (group.column(i) for i in range(group.num_columns))
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == text_column)


def _check_column(source: Source, schema: pa.Schema, text_column: str) -> None:
    if text_column not in schema.names:
        raise ValueError(
            f"{source.path}: no column {text_column!r}; it has {', '.join(schema.names)}: choose one with --text-column"
        )
    kind = schema.field(text_column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    tests = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_binary,
        types.is_large_binary,
        types.is_binary_view,
        types.is_null,
    )
    if not any(test(kind) for test in tests):
        raise ValueError(
            f"{source.path}: column {text_column!r} holds {kind}; expected strings: choose another with --text-column"
        )


def _read_rows(batch: pa.RecordBatch, first: int, text_column: str, id_column: str) -> Iterator[Document | Reject]:
    texts = batch.column(text_column).cast(pa.large_binary()).to_pylist()
    ids = batch.column(id_column) if id_column in batch.schema.names else pa.nulls(len(texts))
    if pa.types.is_temporal(ids.type) and not pa.types.is_interval(ids.type):
        ids = ids.cast(pa.string())  # Python's own times know no nanoseconds
    for row, (raw, name) in enumerate(zip(texts, ids.to_pylist(), strict=True), first):
        record_id = None if name is None else str(name)
        if raw is None:
            yield Reject(row, "text-not-a-string", "null", record_id=record_id)
            continue
        text = raw.decode(errors="replace")
        num_replaced = text.count("\ufffd") - raw.count(b"\xef\xbf\xbd")
        data, _ = paragraphs(text)
        documents = list(whole_or_pieces(data, row, num_replaced, record_id))
        if not documents:
            yield Reject(row, "empty-text", "", first_characters(raw), record_id)
        yield from documents

"""Arrow IPC files and streams, as `pyarrow.ipc` and Hugging Face `datasets` (`save_to_disk`) write them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from bertloom import storage
from bertloom.decoding import decoded
from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.tables import check_columns, columns_of, count_rows, find_row_cuts, read_table
from pipeline.inputs.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa


def _read_batches(
    source: Source, file: BinaryIO, columns: list[str], start: int = 0
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (first row, batch) of all batches. In a memory-mapped file, skipping those before `start` is free."""
    import pyarrow as pa  # not at the top: --help does not need it

    from bertloom.arrow_texts import seek_stream

    if getattr(file, "name", None) == source.path:  # a local file, and no part of an archive
        file = pa.memory_map(source.path)
    begin = seek_stream(file)
    schema = pa.ipc.open_stream(file).schema
    check_columns(source, schema, *columns)
    wanted = [schema.get_field_index(name) for name in dict.fromkeys(columns) if name in schema.names]
    file.seek(begin)
    row = 0
    options = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
    for batch in decoded(pa.ipc.open_stream(file, options=options)):
        yield row, batch
        row += batch.num_rows


def _find_cuts(source: Source, split_bytes: int) -> list[int]:
    if not storage.is_local(source.path):
        return []  # the sizes of the batches are known only after all of the file is read
    return find_row_cuts(_sizes(source, columns_of(source.read)), split_bytes)


def _sizes(source: Source, columns: list[str]) -> Iterator[tuple[int, int]]:
    """Yield (rows, bytes of text) of each batch."""
    with storage.open_read(source.path) as file:
        for _, batch in _read_batches(source, file, columns):
            text = batch.column(columns[0])  # nbytes would read its offsets, which are not checked yet
            yield batch.num_rows, text.get_total_buffer_size()


def _count_rows(source: Source) -> int:
    return count_rows(_sizes(source, columns_of(source.read)))


ARROW = Format(
    name="arrow",
    description="Arrow IPC",
    endings=(".arrow",),
    magic=rb"ARROW1\0\0|\xff{4}[\s\S]{4}[\x04-\x40]\0\0\0",  # a file, or a stream
    read=partial(read_table, _read_batches),
    needs_seek=True,
    position_unit="row",
    find_cuts=_find_cuts,
    count_rows=_count_rows,
    has_records=True,
)

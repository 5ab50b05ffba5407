"""Parquet files: the text of one column, a document in each row."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from bertloom import storage
from bertloom.decoding import decoded
from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.parquet_footer import read_row_groups
from pipeline.inputs.formats.table_columns import read_errors
from pipeline.inputs.formats.tables import check_columns, columns_of, count_rows, find_row_cuts, read_table, rows_held
from pipeline.inputs.sources import Source

if TYPE_CHECKING:  # functions import what they use: --help needs none of it
    import pyarrow as pa
    import pyarrow.parquet as pq


def _read_batches(
    source: Source, file: BinaryIO, columns: list[str], start: int
) -> Iterator[tuple[int, pa.RecordBatch | str]]:
    """Yield (first row, batch or error) from the row group that holds row `start`."""
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    check_columns(source, parquet.schema_arrow, *columns)
    wanted = [name for name in dict.fromkeys(columns) if name in parquet.schema_arrow.names]
    first = 0
    for i in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(i)
        if group.num_rows < 0:
            raise OSError(f"row group {i} has {group.num_rows} rows")
        if first + group.num_rows > start:
            rows = rows_held(group.num_rows, group.total_byte_size)
            yield from _read_group(parquet, i, wanted, rows, first, first + group.num_rows)
        first += group.num_rows


def _read_group(
    parquet: pq.ParquetFile, number: int, columns: list[str], rows: int, first: int, end: int
) -> Iterator[tuple[int, pa.RecordBatch | str]]:
    """Yield (first row, batch) of a row group, then (first row, error) if it is damaged. Others can still be read."""
    row, error = first, "it ends early"
    try:
        for batch in decoded(parquet.iter_batches(rows, [number], columns, use_threads=False)):
            if row + batch.num_rows > end:
                error = "it has more rows than the footer lists"
                break
            yield row, batch
            row += batch.num_rows
        else:
            if row == end:
                return
    except read_errors() as broken:
        error = str(broken)
    row = min(row, end - 1)
    yield row, f"row group {number}: {error}: rows {row} to {end - 1} are left out"


def _find_cuts(source: Source, split_bytes: int) -> list[int]:
    return find_row_cuts(_sizes(source), split_bytes)


def _sizes(source: Source) -> Iterator[tuple[int, int]]:
    """Yield (rows, bytes of text) of each row group."""
    import pyarrow.parquet as pq

    with storage.open_read(source.path) as file:
        check_columns(source, pq.read_schema(file), *columns_of(source.read))
        for group in read_row_groups(file, source.read.text_column):
            yield group.num_rows, group.text_bytes


def _count_rows(source: Source) -> int:
    return count_rows(_sizes(source))


PARQUET = Format(
    name="parquet",
    description="Parquet",
    endings=(".parquet",),
    magic=rb"PAR1\x15",
    read=partial(read_table, _read_batches),
    needs_seek=True,
    position_unit="row",
    find_cuts=_find_cuts,
    count_rows=_count_rows,
    has_records=True,
    text_per_byte=2.0,  # its columns are compressed
)

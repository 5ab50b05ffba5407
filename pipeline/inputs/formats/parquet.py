"""Parquet files: the text of one column, a document in each row."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from bertloom import storage
from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.tables import check_column, find_row_cuts, read_table, rows_held
from pipeline.inputs.sources import ReadConfig, Source

if TYPE_CHECKING:  # functions import what they use: --help needs none of it
    import pyarrow as pa
    import pyarrow.parquet as pq


def _read_batches(
    source: Source, file: BinaryIO, columns: list[str], start: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (first row, batch) from the row group that holds row `start`."""
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    check_column(source, parquet.schema_arrow, columns[0])
    wanted = [name for name in dict.fromkeys(columns) if name in parquet.schema_arrow.names]
    row = 0
    for i in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(i)
        if row + group.num_rows <= start:
            row += group.num_rows
            continue
        rows = rows_held(group.num_rows, _text_bytes(group, columns[0]))
        for batch in parquet.iter_batches(rows, [i], wanted):
            yield row, batch
            row += batch.num_rows


def _find_cuts(source: Source, split_bytes: int, config: ReadConfig) -> list[int]:
    return find_row_cuts(_sizes(source, config.text_column), split_bytes)


def _sizes(source: Source, text_column: str) -> Iterator[tuple[int, int]]:
    """Yield (rows, bytes of text) of each row group."""
    import pyarrow.parquet as pq

    with storage.open_read(source.path) as file:
        parquet = pq.ParquetFile(file)
        check_column(source, parquet.schema_arrow, text_column)
        for i in range(parquet.num_row_groups):
            group = parquet.metadata.row_group(i)
            yield group.num_rows, _text_bytes(group, text_column)


def _text_bytes(group: pq.RowGroupMetaData, text_column: str) -> int:
    columns = (group.column(i) for i in range(group.num_columns))
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == text_column)


PARQUET = Format(
    name="parquet",
    description="Parquet",
    endings=(".parquet",),
    magic=rb"PAR1\x15",
    read=partial(read_table, _read_batches),
    position_unit="row",
    find_cuts=_find_cuts,
    text_per_byte=2.0,  # its columns are compressed
)

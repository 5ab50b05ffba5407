"""Parquet files of data sets of unknown origin: the footer is checked before the file is read, then the values.

`RowGroupMetaData.column` is never called: it ends the process where statistics are damaged.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from bertloom.decoding import bounded_decoding

UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
"""What pyarrow raises for damaged files. A length that was changed asks for more memory than there is."""


def parse_parquet(content: bytes, name: str, schema: pa.Schema, row_bytes: int) -> pa.Table:
    """Return the table in the content of a file of this name.

    Args:
        row_bytes: bytes of a row that cannot be compressed, such as a digest. They bound the number of rows.

    Raises:
        ValueError: it has other columns, more rows than its size allows, or values that are null or not valid.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        num_rows, found = file.metadata.num_rows, file.schema_arrow
        if not 0 <= num_rows * row_bytes <= len(content):
            raise ValueError(f"{len(content):,} bytes cannot hold {num_rows:,} rows")
        if not found.equals(schema):
            raise ValueError(f"its columns are not those of the format: {', '.join(found.names)[:200]}")
        with bounded_decoding():
            table = file.read(use_threads=False)  # a small file; threads could outlive the error
            table.validate(full=True)
        if table.num_rows != num_rows:
            raise ValueError(f"it has {table.num_rows} rows, but its footer promises {num_rows}")
        for column in table.columns:
            items = column.combine_chunks().flatten() if pa.types.is_list(column.type) else column
            if column.null_count or items.null_count:
                raise ValueError("it has values that are null")
    except UNREADABLE as error:
        raise ValueError(f"{name} cannot be read ({' '.join(str(error).split())})") from None
    return table

"""Texts in Arrow and Parquet files of unknown origin.

pyarrow trusts the offsets, views and indices in a file, and wrong ones end the process. Only `as_bytes` may be called for a
column before `validate(full=True)`.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bertloom.arrays import I64

BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
"""The types of strings, and of their bytes."""
TEXTS = {*BYTES, *BYTES.values()}
FILE_MAGIC = b"ARROW1\0\0"
"""Beginning of an Arrow file, which is a stream between this and a footer."""


def seek_stream(file: Any) -> int:
    """Move to the beginning of the stream in an Arrow file or stream, and return its place."""
    begin = len(FILE_MAGIC) if file.read(len(FILE_MAGIC)) == FILE_MAGIC else 0
    file.seek(begin)
    return begin


def as_bytes(column: pa.Array) -> pa.Array:
    """Return a column with the bytes of its strings, which need not be UTF-8; a column of another type is returned."""
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices, as_bytes(column.dictionary), safe=False)
    return column.view(BYTES[column.type]) if column.type in BYTES else column


def text_lengths(column: pa.Array) -> I64:
    """Return the bytes of each text of a column of one of TEXTS, 0 for null: int64 (rows,)."""
    if column.type in (pa.string_view(), pa.binary_view()):  # each view begins with its length: 16 bytes
        end = 4 * (column.offset + len(column))  # the buffer may be longer, by any number of bytes
        views = np.frombuffer(column.buffers()[1], np.int32, end)[4 * column.offset :: 4]
        return np.where(column.is_valid().to_numpy(zero_copy_only=False), views, 0).astype(np.int64)
    return numbers(pc.binary_length(column))


def numbers(column: pa.Array) -> I64:
    """Return the whole numbers of a column, 0 for null: int64 (rows,)."""
    found: I64 = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return found

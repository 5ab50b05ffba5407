"""Reads the rows of Parquet and Arrow files.

A batch is validated completely before any value of it is read: pyarrow does not check offsets and indices when it reads
them, and one outside of its buffer ends the process. A value that Python cannot hold, such as a date after the year 9999,
makes its row unusable. Dictionaries and lists let a small file claim any amount of text, so sizes are computed before values
are made. Only the columns that a task may need are read.
"""

from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bertloom.arrays import I64
from bertloom.arrow_texts import BYTES, TEXTS, as_bytes, numbers, seek_stream, text_lengths
from bertloom.decoding import decoded
from bertloom.json_files import decode_json
from model.tasks.formats.row_format import Records, RowFormat
from model.tasks.values import BadRow, ClassName

ROWS_AT_ONCE = 1024
"""Rows whose values are Python objects at the same time, if they have less than BYTES_AT_ONCE."""
BYTES_AT_ONCE = 1 << 26
ROWS_MEASURED = 1 << 16
"""Rows whose sizes are computed together."""
MAX_PER_BYTE = 1000
"""Largest number of rows, of values in lists, and of bytes of text for each byte of a file, as in a .gz file."""
MIN_BYTES = 1 << 28
"""Number of bytes of text that any file may hold."""
LISTS = ("Sequence", "List", "LargeList")
"""Types of features of `datasets` that hold values of one other feature."""


def _read_parquet(path: Path, needed: Container[str]) -> Records:
    """Yield the place and the values of each row of a Parquet file; None for columns that are not needed."""
    try:
        schema = pq.read_schema(path)
        columns = [name for name in schema.names if name in needed]
        # As dictionaries, texts that are repeated take no more memory than in the file.
        texts = [field.name for field in schema if field.name in needed and field.type in BYTES]
        with pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False) as file:
            yield from _rows(path, schema, columns, file.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a Parquet file, or is damaged: {_line(error)}") from None


def _read_arrow(path: Path, needed: Container[str]) -> Records:
    """Yield the place and the values of each row of an Arrow file or stream; None for columns that are not needed."""
    try:
        with pa.OSFile(str(path)) as file:
            begin = seek_stream(file)
            schema = pa.ipc.open_stream(file).schema
            columns = [name for name in schema.names if name in needed]
            places = [place for place, name in enumerate(schema.names) if name in needed]
            file.seek(begin)
            with pa.ipc.open_stream(
                file, options=pa.ipc.IpcReadOptions(included_fields=places, use_threads=False)
            ) as stream:
                yield from _rows(path, schema, columns, stream)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not an Arrow file, or is damaged: {_line(error)}") from None


def _rows(path: Path, schema: pa.Schema, needed: Sequence[str], batches: Iterable[pa.RecordBatch]) -> Records:
    """Yield the rows of batches that have the needed columns."""
    if len(set(schema.names)) < len(schema.names):
        raise ValueError(f"{path} has a column twice: {', '.join(schema.names)}; rename one of them")
    nothing = dict.fromkeys(schema.names)
    if not needed:  # the caller will name the columns that there are
        yield "row 1", nothing
        return
    kinds = [schema.field(name).type for name in needed]
    all_classes = class_names(path, schema)
    classes = [all_classes.get(name) for name in needed]
    most = MAX_PER_BYTE * path.stat().st_size
    number = num_bytes = 0
    for batch in decoded(batches):
        _limit(path, "rows", number + batch.num_rows, most)
        columns = [_checked(column) for column in batch.columns]
        for start in range(0, batch.num_rows, ROWS_MEASURED):
            parts = [column.slice(start, ROWS_MEASURED) for column in columns]
            sizes = np.sum([_sizes(path, part, most) for part in parts], axis=0)
            num_bytes += int(sizes.sum())
            _limit(path, "bytes", num_bytes, max(most, MIN_BYTES))
            step = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // int(sizes.max())))
            for begin in range(0, len(sizes), step):
                steps = zip(parts, kinds, classes)
                values = [_values(part.slice(begin, step), kind, names) for part, kind, names in steps]
                for row in zip(*values):
                    number += 1
                    yield f"row {number}", nothing | dict(zip(needed, row))


def _limit(path: Path, what: str, found: int, most: int) -> None:
    """Raise ValueError if a file claims to hold more than is plausible for its size."""
    if found > most:
        raise ValueError(
            f"{path} claims to hold {found:,} {what}, too many for its size: it is damaged or made to mislead"
        )


def _sizes(path: Path, column: pa.Array, most: int) -> I64:
    """Return about how many bytes each value of a checked column takes: int64 (rows,)."""
    kind = column.type
    if kind in TEXTS:
        return 8 + text_lengths(column)
    if pa.types.is_dictionary(kind) and not pa.types.is_nested(kind.value_type):
        return 8 + numbers(pa.array(_sizes(path, column.dictionary, most)).take(column.indices))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        values = column.flatten()
        _limit(path, "values in lists", len(values), most)
        ends = np.cumsum(numbers(pc.list_value_length(column)))
        totals = np.concatenate([[0], np.cumsum(_sizes(path, values, most))])[ends]
        return 8 + np.diff(totals, prepend=0)
    if pa.types.is_struct(kind):
        return 8 + sum((_sizes(path, field, most) for field in column.flatten()), np.zeros(len(column), np.int64))
    if pa.types.is_nested(kind) or pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        raise ValueError(f"{path} holds {kind}: expected single values, and lists or structs of them")
    return np.full(len(column), kind.byte_width if pa.types.is_fixed_size_binary(kind) else 8, np.int64)


def _checked(column: pa.Array) -> pa.Array:
    """Return a column that is completely valid; its bytes if a string in it is not UTF-8."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        column = as_bytes(column)
        column.validate(full=True)
    return column


def _values(column: pa.Array, kind: pa.DataType, names: Sequence[ClassName] | None) -> list[Any]:
    """Return the values of a column of this type; a BadRow in the place of each that Python cannot hold."""
    try:
        values = column.to_pylist()
    except Exception:  # Arrow's conversions raise errors of many kinds: OverflowError, KeyError, ArrowInvalid, ...
        values = [_value(scalar) for scalar in column]
    if column.type != kind:
        values = [_decoded(value) if isinstance(value, bytes) else value for value in values]
    return values if names is None else [_named(value, names) for value in values]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except Exception as error:
        return BadRow(f"cannot be read ({type(error).__name__}: {_line(error)})")


def _decoded(value: bytes) -> str | BadRow:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return BadRow("is not valid UTF-8")


def _named(value: Any, names: Sequence[ClassName]) -> Any:
    """Return a value of a column of classes with names in the place of numbers; -1 means that the class is unknown."""
    if isinstance(value, list):
        found = [_named(number, names) for number in value]
        return next((number for number in found if isinstance(number, BadRow)), found)
    if value is None or value == -1:
        return None
    if not isinstance(value, int) or not 0 <= value < len(names):
        return BadRow(f"is {value!r:.40}, which is not the number of one of the {len(names)} classes of the column")
    return names[value]


def class_names(path: Path, schema: pa.Schema) -> dict[str, list[ClassName]]:
    """Return the names of the classes of each column that `datasets` has declared a ClassLabel, or lists of them."""
    content = (schema.metadata or {}).get(b"huggingface")
    found: dict[str, list[ClassName]] = {}
    features: Any = {} if content is None else decode_json(content, f"{path}: the schema's entry 'huggingface'")
    for key in ("info", "features"):
        features = features.get(key) if isinstance(features, dict) else None
    for column, feature in features.items() if isinstance(features, dict) else ():
        while isinstance(feature, dict) and feature.get("_type") in LISTS:
            feature = feature.get("feature")
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            names = feature.get("names")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"{path}: the names of the classes of {column!r} are {names!r:.40}, expected strings")
            found[column] = [ClassName(name.strip(), number) for number, name in enumerate(names)]
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


PARQUET = RowFormat(endings=(".parquet",), read=_read_parquet, is_compressible=False)
ARROW = RowFormat(endings=(".arrow",), read=_read_arrow, is_compressible=False)

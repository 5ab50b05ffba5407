"""Reads the rows of Parquet and Arrow files.

A batch is validated completely before any value of it is read: pyarrow does not check offsets and indices when it reads
them, and one outside of its buffer ends the process. A value that Python cannot hold, such as a date after the year 9999,
makes its row unusable if the column is needed.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bertloom.json_files import decode_json
from model.tasks.values import BadRow, ClassName

ROWS_AT_ONCE = 1024
"""Rows whose values are Python objects at the same time."""
MAX_ROWS_PER_BYTE = 1000
"""Largest number of rows for each byte of a file. A column of nulls takes no space, so a small file can claim any number."""
FILE_MAGIC = b"ARROW1\0\0"
"""Beginning of an Arrow file, which is a stream between this and a footer."""
BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
"""The types of strings, and of their bytes."""
LISTS = ("Sequence", "List", "LargeList")
"""Types of features of `datasets` that hold values of one other feature."""


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Yield the place and the values of each row of a Parquet file."""
    try:
        with pq.ParquetFile(path) as file:
            yield from _rows(path, file.schema_arrow, file.iter_batches(batch_size=ROWS_AT_ONCE))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a Parquet file, or is damaged: {_line(error)}") from None


def arrow_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Yield the place and the values of each row of an Arrow file or stream."""
    try:
        with pa.OSFile(str(path)) as file:
            if file.read(len(FILE_MAGIC)) != FILE_MAGIC:
                file.seek(0)
            with pa.ipc.open_stream(file) as stream:
                yield from _rows(path, stream.schema, stream)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not an Arrow file, or is damaged: {_line(error)}") from None


def _rows(
    path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    names = schema.names
    if len(set(names)) < len(names):
        raise ValueError(f"{path} has a column twice: {', '.join(names)}; rename one of them")
    classes = class_names(path, schema)
    most = MAX_ROWS_PER_BYTE * path.stat().st_size
    number = 0
    for batch in batches:
        if number + batch.num_rows > most:
            raise ValueError(f"{path} claims to have more than {most:,} rows: it is damaged, or made to mislead")
        columns = [_checked(column) for column in batch.columns]
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            parts = [column.slice(start, ROWS_AT_ONCE) for column in columns]
            values = [_values(part, field.type, classes.get(field.name)) for part, field in zip(parts, schema)]
            for row in zip(*values):
                number += 1
                yield f"row {number}", dict(zip(names, row))


def _checked(column: pa.Array) -> pa.Array:
    """Return a column that is completely valid; its bytes if a string in it is not UTF-8."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if column.type not in BYTES:
            raise
        column = column.view(BYTES[column.type])
        column.validate(full=True)
    return column


def _values(column: pa.Array, kind: pa.DataType, names: Sequence[ClassName] | None) -> list[Any]:
    """Return the values of a column of this type; a BadRow in the place of each that Python cannot hold."""
    try:
        values = column.to_pylist()
    except Exception:  # Arrow's conversions raise errors of many kinds: OverflowError, KeyError, ArrowInvalid, ...
        values = [_value(scalar) for scalar in column]
    if column.type != kind:
        values = [None if value is None else _decoded(value) for value in values]
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
    """Return a value of a column of classes with names in the place of numbers; -1 is a class that is not known."""
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

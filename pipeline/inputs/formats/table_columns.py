"""The columns that are read of a table, its texts, ids and documents, checked completely before they are used.

Arrow trusts the offsets, views and indices in a file. With wrong ones it reads outside of their buffers, which ends the
process, so nothing here touches the values of a batch before `Columns.check`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from bertloom.arrays import I64
from pipeline.text.records import shown_id

if TYPE_CHECKING:  # functions import it: --help does not need it
    import pyarrow as pa

MAX_VALUES = 100  # of an id that is a list


def read_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that reading a damaged table raises: Arrow's, and Python's for invalid names and sizes."""
    import pyarrow as pa

    return pa.ArrowException, OSError, UnicodeError, OverflowError


def check_text_type(path: str, column: str, kind: pa.DataType) -> None:
    """Raise ValueError for a column that holds no strings."""
    import pyarrow as pa

    from bertloom.arrow_texts import TEXTS

    plain = TEXTS - {pa.string_view(), pa.binary_view()}
    if kind.value_type not in plain if pa.types.is_dictionary(kind) else kind not in {*TEXTS, pa.null()}:
        raise ValueError(
            f"{path}: column {column!r} has the type {kind}. Expected strings: choose another column with --text-column"
        )


def check_id_type(path: str, column: str, kind: pa.DataType) -> None:
    """Raise ValueError for nested lists and the like, because a small file can hold a huge value of such a type."""
    import pyarrow as pa

    inner = [kind.field(i).type for i in range(kind.num_fields)] if pa.types.is_nested(kind) else []
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if inner and not ((is_list or pa.types.is_struct(kind)) and all(map(_is_single, inner))):
        raise ValueError(
            f"{path}: column {column!r} has the type {kind}. Expected single values, or lists of them: choose another "
            f"column with --id-column, or a name that no column has to read no ids"
        )


def check_document_type(path: str, column: str, kind: pa.DataType) -> None:
    """Raise ValueError for a column whose values are not single ones, which could not be compared exactly."""
    import pyarrow as pa

    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_interval(plain) or plain.num_fields:
        raise ValueError(
            f"{path}: column {column!r} has the type {kind}. Expected single values, such as numbers or strings: choose "
            f"another column with --document-column"
        )


def _is_single(kind: pa.DataType) -> bool:
    import pyarrow as pa

    unbounded = (pa.string_view(), pa.binary_view())
    of_others = (pa.types.is_nested, pa.types.is_dictionary, pa.types.is_run_end_encoded)
    return kind not in unbounded and not any(test(kind) for test in of_others) and kind.num_fields == 0


class Columns:
    """Reads the texts, ids and documents of a table's batches. Every batch goes through `check` first."""

    def __init__(self, text_column: str, id_column: str, document_column: str | None = None):
        self.text_column, self.id_column, self.document_column = text_column, id_column, document_column
        self._dictionaries: dict[str, tuple[pa.Array, I64]] = {}  # column -> its last dictionary, lengths of its values

    def check(self, batch: pa.RecordBatch) -> None:
        """Raise one of `read_errors` if a column of the batch is invalid."""
        from bertloom.arrow_texts import as_bytes

        for name in self._names(batch):
            column = batch.column(name)
            if _is_dictionary(column):
                self._check_dictionary(name, column)
            else:  # invalid UTF-8 in a text is replaced later, and counted
                (as_bytes(column) if name == self.text_column else column).validate(full=True)

    def _check_dictionary(self, name: str, column: pa.Array) -> None:
        """Check the indices, and the dictionary unless the last batch had the same: all batches of a file may share one."""
        from bertloom.arrow_texts import as_bytes

        column.indices.validate(full=True)
        known = self._dictionaries.get(name)
        if known is None or not _is_same(known[0], column.dictionary):
            values = column.dictionary
            (as_bytes(values) if name == self.text_column else values).validate(full=True)
            self._dictionaries[name] = values, _lengths(values)
        _take_lengths(self._dictionaries[name][1], column.indices)

    def lengths(self, batch: pa.RecordBatch) -> I64:
        """Return the bytes of each row, about: int64 (rows,)."""
        total = np.zeros(batch.num_rows, np.int64)
        for name in self._names(batch):
            column = batch.column(name)
            if _is_dictionary(column):
                total += _take_lengths(self._dictionaries[name][1], column.indices)
            else:
                total += _lengths(column)
        return total

    def texts(self, batch: pa.RecordBatch, begin: int, end: int) -> list[bytes | None]:
        """Return the texts of some rows."""
        import pyarrow as pa

        found: list[bytes | None] = (
            _plain(batch.column(self.text_column)[begin:end]).cast(pa.large_binary()).to_pylist()
        )
        return found

    def ids(self, batch: pa.RecordBatch, begin: int, end: int) -> pa.Array:
        """Return the ids of some rows; nulls without such a column."""
        import pyarrow as pa

        if self.id_column not in batch.schema.names:
            return pa.nulls(end - begin)
        return _plain(batch.column(self.id_column)[begin:end])

    def documents(self, batch: pa.RecordBatch, begin: int, end: int) -> Iterable[str | None]:
        """Return what `Row.document` is for some rows."""
        if self.document_column is None:
            return repeat(None, end - begin)
        return map(repr, _values(_plain(batch.column(self.document_column)[begin:end])))

    def _names(self, batch: pa.RecordBatch) -> list[str]:
        names = dict.fromkeys((self.text_column, self.id_column, self.document_column))
        return [name for name in names if name is not None and name in batch.schema.names]


def id_texts(ids: pa.Array) -> list[str | None]:
    """Return checked ids as the list of rejects shows them."""
    return [None if value is None else shown_id(value) for value in _values(ids)]


def _values(ids: pa.Array) -> list[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = ids.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        try:
            return list(ids.cast(pa.string()).to_pylist())
        except pa.ArrowInvalid:  # a time zone that this machine does not know
            ids = ids.view(pa.timestamp(kind.unit))
    if pa.types.is_temporal(ids.type) and not pa.types.is_interval(ids.type):
        ids = ids.cast(pa.string())  # Python's own times have no nanoseconds and end in the year 9999
    elif pa.types.is_nested(kind) and not pa.types.is_struct(kind):
        ids = pc.list_slice(ids, 0, MAX_VALUES, return_fixed_size_list=False)
    try:
        return list(ids.to_pylist())
    except (ValueError, OverflowError, NotImplementedError, KeyError):  # times in lists, as above
        return [f"a value of {kind}" if valid else None for valid in ids.is_valid().to_pylist()]


def _is_dictionary(column: pa.Array) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_dictionary(column.type))


def _plain(column: pa.Array) -> pa.Array:
    """Return the values of a column without a dictionary."""
    return column.dictionary.take(column.indices) if _is_dictionary(column) else column


def _is_same(one: pa.Array, other: pa.Array) -> bool:
    """Return whether two arrays use the same memory."""

    def places(array: pa.Array) -> list[int | None]:
        return [len(array), array.offset, *(buffer and buffer.address for buffer in array.buffers())]

    return places(one) == places(other)


def _lengths(column: pa.Array) -> I64:
    """Return the bytes of each string of a checked column; 0 for other types, whose values are no larger than the batch."""
    from bertloom.arrow_texts import TEXTS, text_lengths

    return text_lengths(column) if column.type in TEXTS else np.zeros(len(column), np.int64)


def _take_lengths(lengths: I64, indices: pa.Array) -> I64:
    """Return lengths[indices], 0 for null. Raises ArrowIndexError for an index outside of the dictionary."""
    import pyarrow as pa

    from bertloom.arrow_texts import numbers

    return numbers(pa.array(lengths).take(indices))

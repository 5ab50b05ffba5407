"""The sizes in a Parquet file's footer. They are read here because Arrow's own reader of them can end the process.

`pyarrow.parquet.RowGroupMetaData.column` does not catch a C++ exception if a footer has invalid statistics. These sizes only
decide where a file is cut and how many rows are held at a time. Statistics and page indexes are not used.
"""

from dataclasses import dataclass
from typing import Any, BinaryIO

MAGIC = b"PAR1"
MAX_DEPTH = 32  # of values within values; a footer has ten

_BOOLEAN, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 11, 12


@dataclass(frozen=True)
class RowGroup:
    """Sizes of a row group."""

    num_rows: int
    text_bytes: int
    """Uncompressed bytes of the text column."""


def read_row_groups(file: BinaryIO, text_column: str) -> list[RowGroup]:
    """Return the row groups of a Parquet file. OSError if its footer cannot be read."""
    end = file.seek(0, 2)
    tail = _read(file, max(0, end - 8), 8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or length > end - 8:
        raise OSError("the file does not end with a Parquet footer")
    try:
        footer = _Compact(_read(file, end - 8 - length, length)).struct()
        return [_row_group(fields, text_column) for fields in footer[4]]
    except (IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise OSError(f"its footer cannot be read ({type(error).__name__}: {error})") from None


def _row_group(fields: dict[int, Any], text_column: str) -> RowGroup:
    columns = [column[3] for column in fields[1] if 3 in column]
    sizes = [column[6] for column in columns if b".".join(column[3]) == text_column.encode()]
    num_rows = int(fields[3])
    if num_rows < 0:
        raise ValueError(f"a row group of {num_rows} rows")
    return RowGroup(num_rows, sum(sizes))


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


class _Compact:
    """A reader of Thrift's compact protocol. Every value takes at least a byte, so the time is bounded by the size."""

    def __init__(self, data: bytes):
        self.data, self.at, self.depth = data, 0, 0

    def struct(self) -> dict[int, Any]:
        """Return number of a field -> its value."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            fields[number] = kind == _BOOLEAN[0] if kind in _BOOLEAN else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in _INTEGERS:
            return self._signed()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind in _BOOLEAN or kind == _BYTE:
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} values within each other")
        value = self._nested(kind)
        self.depth -= 1
        return value

    def _nested(self, kind: int) -> Any:
        if kind in _LISTS:
            head = self._byte()
            size = self._varint() if head >> 4 == 15 else head >> 4
            return [self._value(head & 15) for _ in range(size)]
        if kind == _MAP:
            size = self._varint()
            kinds = self._byte() if size else 0
            return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(size)]
        if kind == _STRUCT:
            return self.struct()
        raise ValueError(f"a value of the unknown kind {kind}")

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _bytes(self, length: int) -> bytes:
        if length > len(self.data) - self.at:
            raise IndexError("ends early")
        self.at += length
        return self.data[self.at - length : self.at]

    def _varint(self) -> int:
        byte = self.data[self.at]
        self.at += 1
        value, shift = byte & 127, 7
        while byte > 127:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if shift > 70:
                raise ValueError("a number of more than 64 bits")
        return value

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

"""Files of rows sorted by one uint64 column, which are read by ranges of that column.

checksum (bertloom/sealed_files.py) | number of the first row of each range, uint64 (NUM_RANGES + 1,) | rows
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from bertloom.sealed_files import BODY, write_sealed

NUM_RANGES = 4096
_SHIFT = np.uint64(64 - 12)


def write_rows(path: str, rows: NDArray[np.void], column: str) -> None:
    """Write rows, sorted by `column`, with the index of their ranges."""
    starts = np.searchsorted(rows[column], np.arange(NUM_RANGES, dtype=np.uint64) << _SHIFT)
    write_sealed(path, [np.append(starts, len(rows)).astype("<u8").tobytes(), rows.tobytes()])


def read_rows(path: str, dtype: np.dtype[Any], first: int, end: int) -> NDArray[np.void]:
    """Return the rows of the ranges first ... end - 1."""
    with storage.open_read(path) as file:
        begin, stop = (int.from_bytes(storage.read_at(file, BODY + 8 * edge, 8), "little") for edge in (first, end))
        offset = BODY + 8 * (NUM_RANGES + 1) + begin * dtype.itemsize
        return np.frombuffer(storage.read_at(file, offset, (stop - begin) * dtype.itemsize), dtype)


def read_distinct_rows(paths: Iterable[str], dtype: np.dtype[Any], first: int, end: int) -> NDArray[np.void]:
    """Return the different rows that the files have in the ranges first ... end - 1, sorted by all columns."""
    return np.unique(np.concatenate([read_rows(path, dtype, first, end) for path in paths]))


def range_edges(number: int, count: int) -> tuple[int, int]:
    """Return (first, end): the ranges of a file that make up number `number` of `count` larger ones."""
    return number * NUM_RANGES // count, (number + 1) * NUM_RANGES // count

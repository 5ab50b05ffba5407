"""Codes for distinct spans of bytes. All later steps are array arithmetic over codes, with no Python object per span.

>>> codes = SpanCodes()
>>> codes(data, starts, lengths)   # of the spans  the cat the
array([0, 1, 0], dtype=int32)
>>> codes.new
['the', 'cat']
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertloom.arrays import I64, U64, Bools
from pipeline.text.pieces import LOW_BYTES, slots

SLOT_BITS = 18
PADDING = b" " * 8  # follows the text of the spans
_HIGH_BYTES = ~LOW_BYTES
_NO_SPAN = np.uint64(2**64 - 1)  # UTF-8 never has the byte 0xFF, which fills the integers of shorter spans


class SpanCodes:
    """Gives every distinct span a code: 0, 1, 2 …. `new` has the spans that were not collected yet."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all codes. Those given before are no longer valid."""
        self._short: dict[int, int] = {}  # the bytes of a span of up to 8 as a little-endian integer
        self._long: dict[bytes, int] = {}
        self._kept, self._kept_long = _CodeCache(1), _CodeCache(2)
        self.new: list[bytes] = []

    def __len__(self) -> int:
        return len(self._short) + len(self._long)

    def take_new(self) -> list[bytes]:
        """Return the spans that are new since the last call, in the order of their codes."""
        new, self.new = self.new, []
        return new

    def __call__(self, data: NDArray[np.uint8], starts: I64, lengths: I64) -> NDArray[np.int32]:
        """Return the codes of the spans of `data`, which has valid UTF-8 and then PADDING: int32 (spans,)."""
        words: U64 = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
        first = words[starts]  # not np.take, which would first copy all overlapping words
        first |= np.take(_HIGH_BYTES, lengths, mode="clip")  # clip, because checking bounds takes twice as long
        codes, known = self._kept.look_up(first)
        long = np.flatnonzero(lengths > 8)
        known[long] = True  # they have their own table
        new = np.flatnonzero(~known)
        if len(new):
            codes[new] = self._short_codes(first[new])
        if len(long):
            codes[long] = self._long_codes(data, words, starts[long], lengths[long], first[long])
        return codes

    def _short_codes(self, keys: U64) -> NDArray[np.int32]:
        """Return the codes of spans of up to 8 bytes, from the dictionary."""
        encoded = pa.array(keys).dictionary_encode()
        distinct = encoded.dictionary.to_numpy()
        codes = self._name(self._short, distinct.tolist(), _bytes_of_key)
        self._kept.keep(codes, distinct)
        return np.take(codes, encoded.indices.to_numpy(), mode="clip")

    def _long_codes(
        self, data: NDArray[np.uint8], words: U64, starts: I64, lengths: I64, first: U64
    ) -> NDArray[np.int32]:
        second = words[np.minimum(starts + 8, len(words) - 1)]
        second |= np.take(_HIGH_BYTES, lengths - 8, mode="clip")
        codes, known = self._kept_long.look_up(first, second)
        known &= lengths <= 16
        new = np.flatnonzero(~known)
        if len(new):
            size = lengths[new]
            offsets = np.zeros(len(new) + 1, np.int32)
            np.cumsum(size, out=offsets[1:])
            index = np.arange(offsets[-1], dtype=np.int32) + np.repeat(starts[new] - offsets[:-1], size)
            buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[index])]
            encoded = pa.BinaryArray.from_buffers(pa.binary(), len(new), buffers).dictionary_encode()
            indices = encoded.indices.to_numpy()
            distinct = self._name(self._long, encoded.dictionary.to_pylist(), bytes)
            codes[new] = np.take(distinct, indices, mode="clip")
            new = new[size <= 16]
            self._kept_long.keep(codes[new], first[new], second[new])
        return codes

    def _name(self, table: dict[Any, int], keys: list[Any], bytes_of: Callable[[Any], bytes]) -> NDArray[np.int32]:
        """Return the code of each distinct span of a block. New spans are appended to `new` in order."""
        next_code, new = len(self), self.new
        codes = []
        for key in keys:
            code = table.get(key)
            if code is None:
                code = table[key] = next_code
                next_code += 1
                new.append(bytes_of(key))
            codes.append(code)
        return np.array(codes, np.int32)


def _bytes_of_key(key: int) -> bytes:
    return key.to_bytes(8, "little").rstrip(b"\xff")


class _CodeCache:
    """The codes of most spans by their bytes: a hash table with one slot for each hash; the first span keeps it."""

    def __init__(self, num_columns: int):
        self.columns = [np.full(1 << SLOT_BITS, _NO_SPAN, np.uint64) for _ in range(num_columns)]
        self.codes = np.zeros(1 << SLOT_BITS, np.int32)

    def look_up(self, *keys: U64) -> tuple[NDArray[np.int32], Bools]:
        """Return (code, whether it is known) for each span."""
        at = slots(keys, SLOT_BITS)
        known = np.take(self.columns[0], at, mode="clip") == keys[0]
        for column, key in zip(self.columns[1:], keys[1:]):
            known &= np.take(column, at, mode="clip") == key
        return np.take(self.codes, at, mode="clip"), known

    def keep(self, codes: NDArray[np.int32], *keys: U64) -> None:
        at = slots(keys, SLOT_BITS)
        free = np.flatnonzero(self.columns[0][at] == _NO_SPAN)
        free = free[np.unique(at[free], return_index=True)[1]]  # the first span for each slot
        for column, key in zip(self.columns, keys):
            column[at[free]] = key[free]
        self.codes[at[free]] = codes[free]

"""A block of text to interned units: the step that makes everything after it array arithmetic.

A unit is a piece of text whose token ids depend on nothing around it:

- a run of ASCII letters and digits, or one ASCII punctuation mark, in a word that is ASCII throughout;
- one *isolating* character (BERT puts it in a pre-token of its own: CJK ideographs, most punctuation), cut out of any word;
- what is left of a word that holds any other non-ASCII or control character: whole and raw.

Words are parted by space, tab, line feed and carriage return only: BERT *deletes* the other controls that look like white
space. Which characters isolate is asked of the tokenizer itself, so no two Unicode versions can disagree. Every distinct
unit gets a code; ids (`wordpiece`) and sentence marks (`sentences`) are worked out once for each code.

    >>> interner.cut(b"It's 3.5, isn't it?")   # codes of  It ' s 3 . 5 , isn ' t it ?
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

SPACE, ALNUM, PUNCTUATION, OTHER, ISOLATED, INSIDE, LEAD = range(7)
MAX_UNITS = 1_000_000  # the table is emptied above this; about 20 GB of English reach it

_CLASS = bytes(
    SPACE if byte in b" \t\n\r"
    else LEAD if 0xE0 <= byte < 0xF0  # the first of three bytes: a code point from U+0800 to U+FFFF
    else OTHER if byte < 32 or byte >= 127
    else ALNUM if chr(byte).isalnum()
    else PUNCTUATION
    for byte in range(256)
)  # fmt: skip
_LOW_BYTES = np.array([(1 << 8 * n) - 1 for n in range(8)] + [2**64 - 1], np.uint64)
_LONG = np.uint64(0xFF << 56)  # UTF-8 never holds the byte 0xFF: keys of long units cannot meet those of short ones
_PAD = b" " * 8


@dataclass(frozen=True, slots=True)
class Units:
    """The units of a block, in the order of the text."""

    starts: NDArray[np.int32]
    """First byte of each unit: int32 (units,)."""
    lengths: NDArray[np.int32]
    """Bytes of each unit: int32 (units,)."""
    codes: NDArray[np.int32]
    """Its code: int32 (units,)."""


class IsolatingCharacters:
    """Which code points from U+0800 to U+FFFF are always a pre-token of their own? Asked when one is first met."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.kinds = np.zeros(65536, np.uint8)  # ISOLATED, OTHER, or 0 where it was not asked yet

    def __call__(self, points: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """ISOLATED or OTHER for each code point."""
        kinds = np.take(self.kinds, points)
        if not kinds.all():
            for point in np.unique(points[kinds == 0]).tolist():
                self.kinds[point] = ISOLATED if self._is_alone(chr(point)) else OTHER
            kinds = np.take(self.kinds, points)
        return kinds

    def _is_alone(self, character: str) -> bool:
        text = self.tokenizer.normalizer.normalize_str(f"a{character}b")
        pieces = [piece for piece, _ in self.tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        return len(pieces) == 3 and pieces[0] == "a" and pieces[2] == "b"


class Interner:
    """Gives every distinct unit a code, 0, 1, 2 …; `new_units` holds the text of those not yet collected."""

    def __init__(self, tokenizer: Tokenizer, lower: bool):
        """tokenizer: asked which characters isolate. lower: fold ASCII case (the tokenizer lowers the rest itself)."""
        self.isolating, self.lower = IsolatingCharacters(tokenizer), lower
        self.clear()

    def clear(self) -> None:
        """Forgets all codes; those given before are void."""
        self._short: dict[int, int] = {}  # the bytes of a unit of up to 8 as a little-endian integer
        self._long: dict[bytes, int] = {}
        self.new_units: list[str] = []

    def __len__(self) -> int:
        return len(self._short) + len(self._long)

    def cut(self, block: bytes) -> Units:
        """The units of a block of valid UTF-8 that ends at a word's end."""
        text = (block.lower() if self.lower else block) + _PAD
        data = np.frombuffer(text, np.uint8)
        starts, lengths = self._boundaries(text, data)
        return Units(starts, lengths, self._codes(data, starts, lengths))

    def _boundaries(self, text: bytes, data: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        classes = text.translate(_CLASS)
        ascii_only = text.isascii()
        kind = np.frombuffer(classes if ascii_only else bytearray(classes), np.uint8)
        if not ascii_only:
            lead = np.flatnonzero(kind == LEAD)
            point = np.take(data, lead).astype(np.uint16) << np.uint16(12)
            point |= (np.take(data, lead + 1) & 63).astype(np.uint16) << np.uint16(6)
            point |= np.take(data, lead + 2) & 63
            kind[lead] = kinds = self.isolating(point)
            lead = lead[kinds == ISOLATED]
            kind[lead + 1] = INSIDE
            kind[lead + 2] = INSIDE
        begins = np.empty(len(kind), bool)
        begins[0] = True
        np.not_equal(kind[1:], kind[:-1], out=begins[1:])
        begins |= kind == PUNCTUATION
        if not ascii_only:
            begins |= kind == ISOLATED
            begins &= kind != INSIDE
        starts = np.flatnonzero(begins).astype(np.int32)  # the units and the gaps between them, end to end
        kinds = np.take(kind, starts, mode="clip")
        other = np.flatnonzero(kinds == OTHER)
        if len(other):
            starts, kinds = _melt(starts, kinds, other)
        lengths = np.empty(len(starts), np.int32)
        np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
        lengths[-1:] = len(data) - starts[-1:]
        keep = kinds != SPACE
        return np.compress(keep, starts), np.compress(keep, lengths)

    def _codes(
        self, data: NDArray[np.uint8], starts: NDArray[np.int32], lengths: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        words: NDArray[np.uint64] = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
        keys = np.take(words, starts, mode="clip")  # clip: with bounds checked it takes twice as long
        keys &= np.take(_LOW_BYTES, lengths, mode="clip")  # and here it means "8 or more"
        long = np.flatnonzero(lengths > 8)
        long_units: list[bytes] = []
        if len(long):
            size = lengths[long]
            ends = np.cumsum(size, dtype=np.int32)
            index = np.arange(ends[-1], dtype=np.int32) + np.repeat(starts[long] - (ends - size), size)
            offsets = np.concatenate([np.zeros(1, np.int32), ends])
            buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[index])]
            encoded = pa.BinaryArray.from_buffers(pa.binary(), len(long), buffers).dictionary_encode()
            long_units = encoded.dictionary.to_pylist()
            keys[long] = _LONG | encoded.indices.to_numpy().astype(np.uint64)
        encoded = pa.array(keys).dictionary_encode()
        codes = self._look_up(encoded.dictionary.to_numpy(), long_units)
        return np.take(codes, encoded.indices.to_numpy(), mode="clip")

    def _look_up(self, distinct: NDArray[np.uint64], long_units: list[bytes]) -> NDArray[np.int32]:
        """The code of each distinct key of a block; new ones are appended to `new_units` in the order of their codes."""
        is_long = distinct >= _LONG
        codes = np.empty(len(distinct), np.int32)
        next_code, new = len(self), self.new_units
        short_codes = []
        for unit in distinct[~is_long].tolist():
            code = self._short.get(unit)
            if code is None:
                code = self._short[unit] = next_code
                next_code += 1
                new.append(unit.to_bytes(8, "little").rstrip(b"\0").decode())
            short_codes.append(code)
        long_codes = []
        for index in (distinct[is_long] & np.uint64(0xFFFFFFFF)).tolist():
            name = long_units[index]
            code = self._long.get(name)
            if code is None:
                code = self._long[name] = next_code
                next_code += 1
                new.append(name.decode())
            long_codes.append(code)
        codes[~is_long] = short_codes
        codes[is_long] = long_codes
        return codes


def _melt(starts: NDArray[np.int32], kinds: NDArray[np.uint8], other: NDArray[np.intp]):
    """Joins the pieces of each word that holds one of the `other` pieces to one unit, up to spaces and isolated ones."""
    parted = np.flatnonzero((kinds == SPACE) | (kinds == ISOLATED))  # the padding guarantees one after every word
    nearest = np.searchsorted(parted, other)
    first = np.where(nearest > 0, parted[nearest - 1] + 1, 0)
    after = parted[nearest]
    step = np.zeros(len(kinds), np.int8)  # a word may hold several such pieces: count it once
    step[np.unique(first) + 1] += 1
    step[np.unique(after)] -= 1
    melted = np.cumsum(step, dtype=np.int8).astype(bool)
    return starts[~melted], kinds[~melted]

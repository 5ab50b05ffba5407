"""Blocks of text to interned units. All later steps are array arithmetic over the units' codes.

A unit is a piece of text whose token ids do not depend on the text around it:

- a run of ASCII letters and digits, or one ASCII punctuation mark, in a word that is ASCII throughout;
- one *isolating* character (BERT puts it in a pre-token of its own: CJK ideographs, most punctuation), cut out of any word;
- the rest of a word with any other non-ASCII or control character, uncut and not normalized.

Words are separated by space, tab, line feed and carriage return only: BERT *deletes* the other control characters that look
like white space. The tokenizer itself decides which characters are isolating, so two Unicode versions cannot disagree.
Every distinct unit has a code; ids (`wordpiece`) and sentence marks (`sentences`) are computed once for each code.

    >>> interner.cut(b"It's 3.5, isn't it?")   # codes of  It ' s 3 . 5 , isn ' t it ?
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertloom.arrays import I64, U64, Bools
from pipeline.text.pieces import LOW_BYTES, slots

SPACE, ALNUM, PUNCTUATION, OTHER, ISOLATED, INSIDE, LEAD = range(7)
SLOT_BITS = 18
MAX_STEPS = 32  # bytes of a word that are followed one by one
MAX_UNITS = 1_000_000  # the table is emptied above this, after about 20 GB of English

_CLASS = bytes(
    SPACE
    if byte in b" \t\n\r"
    else ISOLATED
    if 0xE5 <= byte < 0xEA  # U+5000 to U+9FFF: Chinese ideographs, all of them isolated
    else LEAD
    if 0xE0 <= byte < 0xF0  # the first of three bytes: another code point from U+0800 to U+FFFF
    else OTHER
    if byte < 32 or byte >= 127
    else ALNUM
    if chr(byte).isalnum()
    else PUNCTUATION
    for byte in range(256)
)
_KIND = np.frombuffer(_CLASS, np.uint8)
_NO_UNIT = np.uint64(2**64 - 1)  # UTF-8 never holds the byte 0xFF
_PAD = b" " * 8


@dataclass(frozen=True, slots=True)
class Units:
    """The units of a block, in the order of the text."""

    starts: I64
    """First byte of each unit: int64 (units,)."""
    lengths: I64
    """Bytes of each unit: int64 (units,)."""
    codes: NDArray[np.int32]
    """Its code: int32 (units,)."""


class IsolatingCharacters:
    """Which code points up to U+FFFF are always a pre-token of their own, by asking the tokenizer once for each."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.kinds = np.zeros(65536, np.uint8)  # ISOLATED, OTHER, or 0 when not known yet

    def __call__(self, points: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Return ISOLATED or OTHER for each code point."""
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
    """Gives every distinct unit a code: 0, 1, 2 …. `new_units` holds the text of units that were not collected yet."""

    def __init__(self, tokenizer: Tokenizer, lower: bool):
        """tokenizer: decides which characters are isolating. lower: lower-case ASCII; the tokenizer does the rest."""
        self.isolating, self.lower = IsolatingCharacters(tokenizer), lower
        self.clear()

    def clear(self) -> None:
        """Forget all codes. Those given before are no longer valid."""
        self._short: dict[int, int] = {}  # the bytes of a unit of up to 8 as a little-endian integer
        self._long: dict[bytes, int] = {}
        self._kept, self._kept_long = _CodeCache(1), _CodeCache(2)
        self.new_units: list[str] = []

    def __len__(self) -> int:
        return len(self._short) + len(self._long)

    def with_spaces(self, block: bytes, borders: I64) -> tuple[bytes, I64]:
        """Return (the block with a space at each border after a mark, as after the ? in か?はい; these borders).

        Without the space, such a border would be inside a unit. The tokens stay the same, because the mark is a pre-token of
        its own.
        """
        data = np.frombuffer(block, np.uint8)
        at = borders[borders > 0]
        before, last = data[np.maximum(at - 2, 0)].astype(np.uint16), data[at - 1].astype(np.uint16)
        has_two_bytes = (before >= 0xC2) & (before < 0xE0) & (last >= 0x80)
        point = np.where(has_two_bytes, (before & 31) << 6 | (last & 63), last)
        may = (has_two_bytes | (last < 0x80)) & (_KIND[last] != SPACE) & (_KIND[data[at]] != SPACE)
        at, point = at[may], point[may]
        at = at[self.isolating(point) == ISOLATED]
        return (np.insert(data, at, ord(" ")).tobytes(), at) if len(at) else (block, at)

    def cut(self, block: bytes) -> Units:
        """Return the units of a block of valid UTF-8 that ends at the end of a word."""
        text = bytearray(block)
        text += _PAD
        if self.lower:
            text = text.lower()
        data = np.frombuffer(text, np.uint8)
        starts, lengths = self._boundaries(text, data)
        return Units(starts, lengths, self._codes(data, starts, lengths))

    def _boundaries(self, text: bytearray, data: NDArray[np.uint8]) -> tuple[I64, I64]:
        ascii_only = text.isascii()
        kind = np.frombuffer(text.translate(_CLASS), np.uint8)
        begins = np.empty(len(kind), bool)  # of a unit, or of the gap between two
        begins[0] = True
        if not ascii_only:
            lead = np.flatnonzero(kind == LEAD)
            point = np.take(data, lead).astype(np.uint16) << np.uint16(12)
            point |= (np.take(data, lead + 1) & 63).astype(np.uint16) << np.uint16(6)
            point |= np.take(data, lead + 2) & 63
            kind[lead] = self.isolating(point)
        np.not_equal(kind[1:], kind[:-1], out=begins[1:])
        begins |= kind == PUNCTUATION
        word = kind != SPACE
        joins = word
        if not ascii_only:
            alone = kind == ISOLATED
            inside = np.zeros(len(kind), bool)  # its other two bytes
            inside[1:] = alone[:-1]
            inside[2:] |= alone[:-2]
            np.greater(begins, inside, out=begins)
            begins[3:] |= alone[:-3]
            begins |= alone
            joins = word & ~(alone | inside)
        other = np.flatnonzero((kind == OTHER) & begins)
        if len(other):
            _join_words(begins, joins, other)
        starts = np.flatnonzero(begins & word)
        ends = np.flatnonzero(begins[1:] & word[:-1])  # the padding is not a word
        ends += 1
        ends -= starts
        return starts, ends

    def _codes(self, data: NDArray[np.uint8], starts: I64, lengths: I64) -> NDArray[np.int32]:
        words: U64 = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
        first = words[starts]  # not np.take, which would first copy all overlapping words
        first &= np.take(LOW_BYTES, lengths, mode="clip")  # clip, because checking bounds takes twice as long
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
        """Return the codes of units of up to 8 bytes, from the dictionary."""
        encoded = pa.array(keys).dictionary_encode()
        distinct = encoded.dictionary.to_numpy()
        codes = self._name(self._short, distinct.tolist(), _unit_of_key)
        self._kept.keep(codes, distinct)
        return np.take(codes, encoded.indices.to_numpy(), mode="clip")

    def _long_codes(
        self, data: NDArray[np.uint8], words: U64, starts: I64, lengths: I64, first: U64
    ) -> NDArray[np.int32]:
        second = words[np.minimum(starts + 8, len(words) - 1)]
        second &= np.take(LOW_BYTES, lengths - 8, mode="clip")
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
            distinct = self._name(self._long, encoded.dictionary.to_pylist(), _without_nuls)
            codes[new] = np.take(distinct, indices, mode="clip")
            new = new[size <= 16]
            self._kept_long.keep(codes[new], first[new], second[new])
        return codes

    def _name(self, table: dict[Any, int], units: list[Any], text: Callable[[Any], str]) -> NDArray[np.int32]:
        """Return the code of each distinct unit of a block. New units are appended to `new_units` in order."""
        next_code, new = len(self), self.new_units
        codes = []
        for unit in units:
            code = table.get(unit)
            if code is None:
                code = table[unit] = next_code
                next_code += 1
                new.append(text(unit))
            codes.append(code)
        return np.array(codes, np.int32)


def _unit_of_key(key: int) -> str:
    return _without_nuls(key.to_bytes(8, "little"))


def _without_nuls(unit: bytes) -> str:
    """Remove NULs at the end, which `_CodeCache` cannot distinguish from padding. BERT deletes them in any case."""
    return unit.rstrip(b"\0").decode()


class _CodeCache:
    """The codes of most units by their bytes: a hash table with one slot for each hash; the first unit keeps it."""

    def __init__(self, num_columns: int):
        self.columns = [np.full(1 << SLOT_BITS, _NO_UNIT, np.uint64) for _ in range(num_columns)]
        self.codes = np.zeros(1 << SLOT_BITS, np.int32)

    def look_up(self, *keys: U64) -> tuple[NDArray[np.int32], Bools]:
        """Return (code, whether it is known) for each unit."""
        at = slots(keys, SLOT_BITS)
        known = np.take(self.columns[0], at, mode="clip") == keys[0]
        for column, key in zip(self.columns[1:], keys[1:]):
            known &= np.take(column, at, mode="clip") == key
        return np.take(self.codes, at, mode="clip"), known

    def keep(self, codes: NDArray[np.int32], *keys: U64) -> None:
        at = slots(keys, SLOT_BITS)
        free = np.flatnonzero(self.columns[0][at] == _NO_UNIT)
        free = free[np.unique(at[free], return_index=True)[1]]  # the first unit for each slot
        for column, key in zip(self.columns, keys):
            column[at[free]] = key[free]
        self.codes[at[free]] = codes[free]


def _join_words(begins: Bools, joins: Bools, other: NDArray[np.intp]) -> None:
    """Join the pieces of each word that has one of the `other` bytes: only its first byte begins a unit.

    joins: whether a byte may be part of such a word, because it is neither a space nor isolated.
    """
    first, last = other.copy(), other.copy()
    for at, step in ((first, -1), (last, 1)):
        move = np.arange(len(at))
        for _ in range(MAX_STEPS):
            move = move[joins[at[move] + step]]  # byte -1 is the last byte of the padding
            at[move] += step
        if len(move):  # a long word
            ends = np.concatenate([[-1], np.flatnonzero(~joins)])
            at[move] = ends[np.searchsorted(ends, at[move]) + min(step, 0)] - step
    first, index = np.unique(first, return_index=True)  # a word may have several such bytes
    sizes = last[index] - first
    index = np.arange(int(sizes.sum())) + np.repeat(first - np.cumsum(sizes) + sizes + 1, sizes)
    begins[index] = False
    begins[first] = True

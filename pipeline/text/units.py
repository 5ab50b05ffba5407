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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertloom.arrays import I64, Bools
from pipeline.text.spans import PADDING, SpanCodes

SPACE, ALNUM, PUNCTUATION, OTHER, ISOLATED, INSIDE, LEAD = range(7)
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
    """Cuts blocks of text into units. `codes` gives every distinct unit a code."""

    def __init__(self, tokenizer: Tokenizer, lower: bool):
        """tokenizer: decides which characters are isolating. lower: lower-case ASCII; the tokenizer does the rest."""
        self.isolating, self.lower, self.codes = IsolatingCharacters(tokenizer), lower, SpanCodes()

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

    def cut_and_name(self, block: bytes) -> tuple[Units, list[str]]:
        """Return the units of a block, and the text of those that are new since the table was last emptied.

        If these are all that the table holds, it was emptied, and callers must empty tables of their own.
        """
        if len(self.codes) > MAX_UNITS:
            self.codes.clear()
        return self.cut(block), self.take_new()

    def cut(self, block: bytes) -> Units:
        """Return the units of a block of valid UTF-8 that ends at the end of a word."""
        text = bytearray(block)
        text += PADDING
        if self.lower:
            text = text.lower()
        data = np.frombuffer(text, np.uint8)
        starts, lengths = self._boundaries(text, data)
        return Units(starts, lengths, self.codes(data, starts, lengths))

    def take_new(self) -> list[str]:
        """Return the units that are new since the last call, in the order of their codes.

        They are without the NULs at their ends, which BERT deletes: these must not hide that "end." ends a sentence.
        """
        return [unit.rstrip(b"\0").decode() for unit in self.codes.take_new()]

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

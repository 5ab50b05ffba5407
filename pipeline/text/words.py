"""The words of texts, without capital letters, widths and punctuation, as arrays: what the search for test sets compares.

A text is in NFKC with its case folded, and without invisible format characters. A word is a run of letters, digits and
marks; each Chinese character or kana is a word; everything else separates words. Lines without a character that these rules
change are not touched. The rest of the work is done on the bytes of many texts at a time, with no Python object for a word.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64
from bertloom.draws import mix_in_place

_SEPARATOR, _PART, _WHOLE, _CHANGES = range(4)
"""Kinds of characters: between words, part of a word, a word alone; changed by the rules."""
_WINDOW = 8  # bytes of a word that are hashed in one step
_MASKS = np.array([(1 << 8 * n) - 1 for n in range(_WINDOW)] + [2**64 - 1], np.uint64)
_LINE_FEED = 10
_KANA_AND_MARKS = "〇々〻〼ーゝゞゟヽヾヿ〱〲〳〴〵\U00016ff0\U00016ff1"  # and marks of Chinese, apart from the ranges
_WHOLE_RANGES = (  # of Chinese characters and kana
    (0x3021, 0x3029),
    (0x3038, 0x303A),
    (0x3041, 0x3096),
    (0x30A1, 0x30FA),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)
_LARGE_RANGES = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x20000, 0x2F7FF), (0x30000, 0x3FFFF))
"""Characters of one kind that the rules do not change: looking at each would take a second."""
_JAMO = (0x1160, 0x11FF)  # medial and final letters of Hangul, which may be joined to the letter before them


@dataclass(frozen=True)
class Words:
    """The words of several texts, in order."""

    content: bytes
    """The changed texts end to end, in UTF-8. The bytes between words have no meaning."""
    starts: I64
    """First byte of each word: (words,)."""
    lengths: I64
    """Bytes of each word: (words,)."""
    texts: NDArray[np.intp]
    """Number of the text of each word: (words,)."""

    def word(self, number: int) -> str:
        """Return the word with this number."""
        start = int(self.starts[number])
        return self.content[start : start + int(self.lengths[number])].decode()

    def hashes(self, seed: np.uint64, chosen: NDArray[np.intp] | slice = slice(None)) -> U64:
        """Return a hash of each word, or of the chosen ones: the bytes of a word of up to 8, which differ for any two."""
        padded = np.frombuffer(self.content + bytes(_WINDOW), np.uint8)
        windows: U64 = np.ndarray((len(self.content) + 1,), "<u8", padded, strides=(1,))
        starts, left = self.starts[chosen], self.lengths[chosen]
        hashes = windows[starts]
        hashes &= _MASKS[np.minimum(left, _WINDOW)]
        longer, at = np.flatnonzero(left > _WINDOW), _WINDOW
        while len(longer):
            rest = windows[starts[longer] + at]
            rest &= _MASKS[np.minimum(left[longer] - at, _WINDOW)]
            hashes[longer] = mix_in_place(mix_in_place(hashes[longer] + seed) ^ rest)
            at += _WINDOW
            longer = longer[left[longer] > at]
        return hashes


def find_words(texts: Sequence[bytes]) -> Words:
    """Return the words of texts in UTF-8."""
    content = b"\n".join(texts) + b"\n"
    text_ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
    if content.isascii():
        return _split(content, text_ends, np.zeros(0, np.int64), np.zeros(0, np.uint8))
    leads, kinds = _other_characters(content, _kinds()[0])
    changes = leads[kinds == _CHANGES]
    if not changes.size:
        return _split(content, text_ends, leads, kinds)
    lines = _lines_with(content, changes)
    joined = b"\n".join([content[first:end] for first, end in lines.tolist()])
    joined = change_text(joined.decode()).encode()
    changed = joined.split(b"\n")
    sizes = np.fromiter(map(len, changed), np.int64, len(changed))
    shifts = np.concatenate([[0], np.cumsum(sizes - (lines[:, 1] - lines[:, 0]))])  # of what is after each line
    kept = [content[end:first] for first, end in zip([*lines[:, 0].tolist(), None], [0, *lines[:, 1].tolist()])]
    of_lines = np.searchsorted(leads, lines)
    is_kept = np.ones(len(leads), bool)
    for first, end in of_lines.tolist():
        is_kept[first:end] = False
    leads += np.repeat(shifts, np.diff(of_lines[:, 1], prepend=0, append=len(leads)))
    new_leads, new_kinds = _other_characters(joined, _kinds()[1])
    moves = lines[:, 0] + shifts[:-1] - (np.cumsum(sizes + 1) - (sizes + 1))
    firsts = np.searchsorted(new_leads, np.cumsum(sizes + 1))
    new_leads += np.repeat(moves, np.diff(firsts, prepend=0))
    return _split(
        b"".join(part for pair in zip(kept, [*changed, b""]) for part in pair),
        text_ends + shifts[np.searchsorted(lines[:, 1], text_ends)],
        np.concatenate([leads[is_kept], new_leads]),
        np.concatenate([kinds[is_kept], new_kinds]),
    )


def _split(content: bytes, text_ends: I64, leads: I64, kinds: NDArray[np.uint8]) -> Words:
    """Return the words. leads, kinds: first byte and kind of each character that is not ASCII, in any order."""
    content = content.translate(_ascii_table())
    raw = np.frombuffer(content, np.uint8)
    is_part = np.zeros(len(raw) + 2, bool)
    inner = is_part[1:-1]
    np.less(raw - np.uint8(1), np.uint8(127), out=inner)  # not 0, to which separators are translated, and ASCII
    parts = leads[kinds == _PART]
    if parts.size:
        first = raw[parts]
        inner[parts] = inner[parts + 1] = True
        inner[parts[first >= 0xE0] + 2] = True
        inner[parts[first >= 0xF0] + 3] = True
    edges = np.flatnonzero(is_part[1:] != is_part[:-1])
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    wholes = leads[kinds == _WHOLE]
    if wholes.size:
        starts = np.concatenate([starts, wholes])
        lengths = np.concatenate([lengths, 3 + (raw[wholes] >= 0xF0)])
        order = np.argsort(starts, kind="stable")  # merges sorted arrays
        starts, lengths = starts[order], lengths[order]
    counts = np.diff(np.searchsorted(starts, text_ends), prepend=0)
    return Words(content, starts, lengths, np.repeat(np.arange(len(counts)), counts))


def _other_characters(content: bytes, kinds: NDArray[np.uint8]) -> tuple[I64, NDArray[np.uint8]]:
    """Return (first byte, kind) of each character that is not ASCII. kinds: of all code points."""
    leads = np.flatnonzero(np.frombuffer(content, np.uint8) >= 0xC0)
    points = np.frombuffer(content.decode().encode("utf-32-le"), "<u4")
    return leads, kinds.take(points[points >= 0x80])


def _lines_with(content: bytes, places: I64) -> I64:
    """Return (begin, end) of the lines that hold these bytes: (lines, 2)."""
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == _LINE_FEED)
    numbers = np.unique(np.searchsorted(ends, places))
    return np.stack([np.where(numbers > 0, ends[numbers - 1] + 1, 0), ends[numbers]], axis=1)


def change_text(text: str) -> str:
    """Return a text in NFKC with its case folded, and without format characters (Cf), such as soft hyphens.

    >>> change_text("Ｆｕｌｌ ＳＴＲＡẞＥ")
    'full strasse'
    """
    return _format_characters().sub("", unicodedata.normalize("NFKC", text).casefold())


def kind_of(character: str) -> int:
    """Return the kind of a character in a changed text."""
    point, category = ord(character), unicodedata.category(character)
    if category[0] not in "LNM":
        return _SEPARATOR
    if point < 0x3005:  # most characters, sooner
        return _PART
    is_whole = character in _KANA_AND_MARKS or any(first <= point <= last for first, last in _WHOLE_RANGES)
    return _WHOLE if is_whole else _PART


@cache
def _small_scripts() -> tuple[int, ...]:
    """Return all other code points that are assigned. Not a constant: making it takes as long as many imports."""
    ranges = (
        (0, 0x3400),
        (0x4DC0, 0x4E00),
        (0xA000, 0xAC00),
        (0xD7A4, 0xD800),
        (0xF900, 0x20000),
        (0x2F800, 0x2FA20),
        (0xE0000, 0xE0200),
    )
    return tuple(point for first, end in ranges for point in range(first, end))


@cache
def _format_characters() -> re.Pattern[str]:
    points = np.array([point for point in _small_scripts() if unicodedata.category(chr(point)) == "Cf"])
    ranges = np.split(points, np.flatnonzero(np.diff(points) > 1) + 1)  # many times as fast as single characters
    return re.compile("[" + "".join(f"\\U{part[0]:08x}-\\U{part[-1]:08x}" for part in ranges) + "]+")


@cache
def _ascii_table() -> bytes:
    """Return a table for bytes.translate: capital letters become small ones, and separators 0."""
    small = [chr(point).lower() if chr(point).isalnum() else "\0" for point in range(0x80)]
    return "".join(small).encode() + bytes(range(0x80, 0x100))


@cache
def _kinds() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the kind of each code point in an unchanged text, which may be _CHANGES, and in a changed text."""
    final = np.full(0x110000, _SEPARATOR, np.uint8)
    for first, last in _LARGE_RANGES:
        is_letter = [unicodedata.category(chr(point)) == "Lo" for point in range(first, last + 1)]
        final[first : last + 1] = np.where(is_letter, kind_of(chr(first)), _SEPARATOR)
    for point in _small_scripts():
        final[point] = kind_of(chr(point))
    given = final.copy()
    for point in _small_scripts():
        character = chr(point)
        changed = change_text(character)
        joins = unicodedata.category(character)[0] == "M" or _JAMO[0] <= point <= _JAMO[1]
        is_separator = changed != "" and not any(map(kind_of, character + changed))
        if (changed != character or joins) and not is_separator:
            given[point] = _CHANGES
    return given, final

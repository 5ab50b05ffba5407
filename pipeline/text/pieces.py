"""BERT's greedy longest match for many short words at a time: a step of the search for all of them is one look-up.

A piece of up to 16 bytes is two integers, so a vocabulary is a table of integers and the look-up an array operation. The
slow twin is `tokenizers`' WordPiece.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 16
PLACE_BITS = 17
LOW_BYTES = np.array([(1 << 8 * n) - 1 for n in range(8)] + [2**64 - 1], np.uint64)  # of a size up to 8

_INSIDE = np.uint64(1 << 63)  # marks "##" pieces: these words are ASCII, so the bit is free
_ODD = np.uint64(0x9E3779B97F4A7C15)


def is_short(word: str) -> bool:
    """Is this a word that GreedyPieces cuts: 1 to MAX_BYTES ASCII letters and digits?"""
    return len(word) <= MAX_BYTES and word.isalnum() and word.isascii()


def places(keys: Sequence[NDArray[np.uint64]], bits: int) -> NDArray[np.int64]:
    """A place from 0 to 2^bits - 1 for each row of these columns."""
    place = keys[0] * _ODD
    for key in keys[1:]:
        place ^= key
        place *= _ODD
    place >>= np.uint64(64 - bits)
    return place.view(np.int64)


class GreedyPieces:
    """The ids of words of ASCII letters and digits: the longest piece of the vocabulary, again and again."""

    def __init__(self, ids: dict[str, int]):
        """ids: of the words of the vocabulary."""
        names = [name for name in ids if is_short(name.removeprefix("##"))]
        low, high = _integers([name.removeprefix("##") for name in names])
        high[[name.startswith("##") for name in names]] |= _INSIDE
        place = places((low, high), PLACE_BITS)
        order = np.argsort(place, kind="stable")
        self.low, self.high = low[order], high[order]
        self.ids = np.array([ids[names[i]] for i in order], np.int64)
        self.first = np.searchsorted(place[order], np.arange((1 << PLACE_BITS) + 1))  # of the pieces at each place
        self.unknown = ids["[UNK]"]

    def __call__(self, words: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(ids of all words end to end, number of ids of each) of short words."""
        text = np.frombuffer("".join(words).encode() + b" " * MAX_BYTES, np.uint8)
        windows: NDArray[np.uint64] = np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))
        sizes = np.fromiter(map(len, words), np.int64, len(words))
        ends = np.cumsum(sizes)
        starts = ends - sizes
        whole, unknown = starts, np.zeros(len(words), bool)
        found_words, found_ids = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        word = np.arange(len(words))  # still searched for
        at, size = starts.copy(), sizes  # of the piece that is tried for each
        while len(word):
            low = windows[at] & LOW_BYTES[np.minimum(size, 8)]
            high = windows[at + 8] & LOW_BYTES[np.maximum(size, 8) - 8]
            high[at > whole] |= _INSIDE
            ids = self._look_up(low, high)
            hit = ids >= 0
            found_words.append(word[hit])
            found_ids.append(ids[hit])
            at[hit] += size[hit]
            size = np.where(hit, ends - at, size - 1)
            left = size > 0
            unknown[word[~left & ~hit]] = True  # no piece at all fits
            word, at, size, ends, whole = (column[left] for column in (word, at, size, ends, whole))
        return self._in_order(np.concatenate(found_words), np.concatenate(found_ids), unknown)

    def _look_up(self, low: NDArray[np.uint64], high: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The id of each piece, -1 where there is none."""
        place = places((low, high), PLACE_BITS)
        at, end = self.first[place], self.first[place + 1]
        ids = np.full(len(at), -1)
        row = np.flatnonzero(at < end)
        while len(row):
            here = at[row]
            same = (self.low[here] == low[row]) & (self.high[here] == high[row])
            ids[row[same]] = self.ids[here[same]]
            at[row] += 1
            row = row[at[row] < end[row]]
        return ids

    def _in_order(self, words: NDArray[np.int64], ids: NDArray[np.int64], unknown: NDArray[np.bool_]):
        keep = ~unknown[words]
        lost = np.flatnonzero(unknown)
        words = np.concatenate([words[keep], lost])
        ids = np.concatenate([ids[keep], np.full(len(lost), self.unknown)])
        order = np.argsort(words, kind="stable")
        return ids[order], np.bincount(words, minlength=len(unknown)).astype(np.int32)


def _integers(names: list[str]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The first and the second 8 bytes of each name as little-endian integers, zeros behind its end."""
    columns = np.array([name.encode() for name in names], f"S{MAX_BYTES}").view("<u8").reshape(-1, 2)
    return columns[:, 0].copy(), columns[:, 1].copy()

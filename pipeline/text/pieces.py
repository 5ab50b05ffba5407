"""BERT's greedy longest match for many short words at a time: each step of the search is one look-up for all words.

A piece of up to 16 bytes is stored as two integers, so the vocabulary is a hash table of integers and the look-up is an
array operation. The slow twin is `tokenizers`' WordPiece.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64, Bools

MAX_BYTES = 16
SLOT_BITS = 17
LOW_BYTES = np.array([(1 << 8 * n) - 1 for n in range(8)] + [2**64 - 1], np.uint64)  # masks for sizes 0 to 8

_INSIDE = np.uint64(1 << 63)  # marks "##" pieces; the bit is free because these words are ASCII
_ODD = np.uint64(0x9E3779B97F4A7C15)


def is_short(word: str) -> bool:
    """Return whether GreedyPieces can cut the word: it has 1 to MAX_BYTES ASCII letters and digits."""
    return len(word) <= MAX_BYTES and word.isalnum() and word.isascii()


def slots(keys: Sequence[U64], bits: int) -> I64:
    """Return a hash from 0 to 2^bits - 1 for each row of these columns."""
    slot = keys[0] * _ODD
    for key in keys[1:]:
        slot ^= key
        slot *= _ODD
    slot >>= np.uint64(64 - bits)
    return slot.view(np.int64)


class GreedyPieces:
    """The ids of short ASCII words: repeatedly the longest piece of the vocabulary that fits."""

    def __init__(self, ids: dict[str, int]):
        """ids: word of the vocabulary -> id."""
        names = [name for name in ids if is_short(name.removeprefix("##"))]
        low, high = _integers([name.removeprefix("##") for name in names])
        high[[name.startswith("##") for name in names]] |= _INSIDE
        slot = slots((low, high), SLOT_BITS)
        order = np.argsort(slot, kind="stable")
        self.low, self.high = low[order], high[order]
        self.ids = np.array([ids[names[i]] for i in order], np.int64)
        self.first = np.searchsorted(slot[order], np.arange((1 << SLOT_BITS) + 1))  # piece of each slot
        self.unknown = ids["[UNK]"]

    def __call__(self, words: list[str]) -> tuple[I64, NDArray[np.int32]]:
        """Return (ids of all words end to end, number of ids of each)."""
        text = np.frombuffer("".join(words).encode() + b" " * MAX_BYTES, np.uint8)
        windows: U64 = np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))
        sizes = np.fromiter(map(len, words), np.int64, len(words))
        ends = np.cumsum(sizes)
        starts = ends - sizes
        whole, unknown = starts, np.zeros(len(words), bool)
        found_words, found_ids = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        word = np.arange(len(words))  # words that are not finished
        at, size = starts.copy(), sizes  # of the piece tried for each
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
            unknown[word[~left & ~hit]] = True  # no piece fits
            word, at, size, ends, whole = (column[left] for column in (word, at, size, ends, whole))
        return self._in_order(np.concatenate(found_words), np.concatenate(found_ids), unknown)

    def _look_up(self, low: U64, high: U64) -> I64:
        """Return the id of each piece, or -1."""
        slot = slots((low, high), SLOT_BITS)
        at, end = self.first[slot], self.first[slot + 1]
        ids = np.full(len(at), -1)
        row = np.flatnonzero(at < end)
        while len(row):
            here = at[row]
            same = (self.low[here] == low[row]) & (self.high[here] == high[row])
            ids[row[same]] = self.ids[here[same]]
            at[row] += 1
            row = row[at[row] < end[row]]
        return ids

    def _in_order(self, words: I64, ids: I64, unknown: Bools) -> tuple[I64, NDArray[np.int32]]:
        """Sort the ids by word and give the words without a piece [UNK]."""
        keep = ~unknown[words]
        lost = np.flatnonzero(unknown)
        words = np.concatenate([words[keep], lost])
        ids = np.concatenate([ids[keep], np.full(len(lost), self.unknown)])
        order = np.argsort(words, kind="stable")
        return ids[order], np.bincount(words, minlength=len(unknown)).astype(np.int32)


def _integers(names: list[str]) -> tuple[U64, U64]:
    """Return the first and the second 8 bytes of each name as little-endian integers, padded with zeros."""
    columns = np.array([name.encode() for name in names], f"S{MAX_BYTES}").view("<u8").reshape(-1, 2)
    return columns[:, 0].copy(), columns[:, 1].copy()

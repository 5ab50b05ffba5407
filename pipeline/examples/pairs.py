"""Examples before masking: segments as ranges of a bucket's tokens, and what the pair objectives share in making them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64, Bools
from bertloom.draws import SURPLUS, bounded, draw, fold, threshold
from pipeline.examples.sentences import Sentences

NO_PAIR = -1
"""Label of a single segment."""
PLACE_TRIES = 32  # draws of a place inside a sentence before the pair is given up


@dataclass(frozen=True, slots=True)
class Pairs:
    """Examples as ranges of the bucket's ids, before masking. All arrays (examples,)."""

    a_start: I64
    a_length: I64
    b_start: I64
    b_length: I64
    """0 for a single segment."""
    label: NDArray[np.int8]
    document_a: I64
    document_b: I64
    """Index of the document in the bucket."""
    sentence: I64
    """Ordinal in its document of the chunk's first sentence. With A's document it identifies the example."""

    def take(self, index: NDArray[np.intp] | slice) -> "Pairs":
        """Return the examples with these numbers."""
        return Pairs(*(getattr(self, name)[index] for name in self.__slots__))

    def __len__(self) -> int:
        return len(self.label)


def coins(draws: U64) -> Bools:
    """Return a fair coin from the lower 32 bits of each draw."""
    return (draws & np.uint64(0xFFFFFFFF)) < np.uint64(threshold(0.5, 32))


def without_surplus(
    s: Sentences, chosen: I64, label: NDArray[np.int8], max_seq_length: int, copy: int, seed: int
) -> NDArray[np.intp]:
    """Return which pairs to keep so that the numbers of labels 0 and 1 differ by at most one.

    Keyed priorities decide which pairs are dropped. chosen: the first sentence of each pair.
    """
    num_ones = int(label.sum())
    more = 1 if num_ones * 2 > len(label) else 0
    surplus = abs(len(label) - 2 * num_ones) - 1
    if surplus <= 0:
        return np.arange(len(label))
    among = np.flatnonzero(label == more)
    sentence = chosen[among]
    document = s.document[sentence]
    priority = fold(seed, SURPLUS, max_seq_length, copy, s.ids_of_documents[document], sentence - s.first[document])
    drop = among[np.argsort(priority, kind="stable")[:surplus]]
    return np.delete(np.arange(len(label)), drop)


def draw_places(allowed: Bools, keys: U64, first_draw: int, start: I64, end: I64, mirrored: bool = False) -> I64:
    """Return a place that is allowed, drawn uniformly from start + 1 ... end - 1, for each key; -1 where none was found.

    Draws first_draw ... first_draw + PLACE_TRIES - 1 of each key are taken in turn.

    Args:
        allowed: bool (tokens,).
        mirrored: whether the place as far from the end as this one is from the start must be allowed, too.
    """
    found = np.full(len(keys), -1)
    open_ = np.flatnonzero(end - start > 1)
    for j in range(first_draw, first_draw + PLACE_TRIES):
        place = start[open_] + 1 + bounded(draw(keys[open_], j), end[open_] - start[open_] - 1)
        good = allowed[place]
        if mirrored:
            good &= allowed[start[open_] + end[open_] - place]
        found[open_[good]] = place[good]
        open_ = open_[~good]
    return found

"""Sketches of documents: what is kept of a text so that similar ones are found when the text itself is gone.

A sketch has the hashes of the document's bands (pipeline/text/minhash.py), by which candidates are found, and the least
NUM_LEAST of its shingles' hashes, by which their similarity is measured. Both halves of a pair need not be sketches: the
other document is there with all its shingles.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64
from pipeline.text.minhash import Banding, band_hashes, shingles

NUM_LEAST = 256
BLOCK_TOKENS = 1 << 20  # sketched at a time


@dataclass(frozen=True)
class Sketches:
    """The sketches of some documents."""

    bands: U64
    """(documents, bands)."""
    num_shingles: I64
    """Different shingles of each document: (documents,)."""
    least: NDArray[np.uint32]
    """The least NUM_LEAST hashes of each document, or all if there are fewer, ascending, end to end."""
    num_least: I64
    """Their number for each document: (documents,)."""


def sketch(ids: NDArray[np.integer], num_tokens: NDArray[np.integer], banding: Banding) -> Sketches:
    """Return the sketches of documents whose tokens are end to end. num_tokens: of each document, at least 1."""
    ends = np.cumsum(num_tokens, dtype=np.int64)
    cuts = np.flatnonzero(np.diff(ends // BLOCK_TOKENS)) + 1
    bands = [np.zeros((0, banding.num_bands), np.uint64)]
    numbers: list[int] = []
    least = [np.zeros(0, np.uint32)]
    for lengths, last in zip(np.split(num_tokens, cuts), np.split(ends, cuts), strict=True):
        if len(lengths) == 0:
            continue
        block = ids[int(last[0]) - int(lengths[0]) : int(last[-1])]
        bands.append(band_hashes(block, lengths, banding).T)
        values, counts = shingles(block, lengths)
        for of_document in np.split(values, np.cumsum(counts)[:-1]):
            distinct = short_hashes(of_document)
            numbers.append(len(distinct))
            least.append(distinct[:NUM_LEAST])
    num_shingles = np.array(numbers, np.int64)
    return Sketches(np.concatenate(bands), num_shingles, np.concatenate(least), np.minimum(num_shingles, NUM_LEAST))


def short_hashes(hashes: U64) -> NDArray[np.uint32]:
    """Return the upper halves of shingles' hashes, each once, ascending."""
    return np.unique((hashes >> np.uint64(32)).astype(np.uint32))


def similarity_to_sketch(
    hashes: NDArray[np.uint32], least: NDArray[np.uint32], num_shingles: int
) -> tuple[int, int, bool]:
    """Return (shingles that both documents have, shingles that at least one has, whether these are all shingles).

    If the sketch does not hold all shingles of its document, only shingles up to its greatest hash are counted, which are a
    random sample of at least NUM_LEAST shingles that at least one document has.

    Args:
        hashes: of one document, as `short_hashes` returns them.
        least, num_shingles: of the sketch.
    """
    is_whole = num_shingles <= len(least)
    if not is_whole:
        hashes = hashes[: np.searchsorted(hashes, least[-1], side="right")]
    shared = len(np.intersect1d(hashes, least, assume_unique=True))
    return shared, len(hashes) + len(least) - shared, is_whole

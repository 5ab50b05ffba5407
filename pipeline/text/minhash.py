"""MinHash: the Jaccard similarity of documents' shingles, and hashes that find similar documents.

A shingle is a run of SHINGLE_TOKENS tokens. A document's signature is, for each of NUM_HASHES hash functions, the least hash
of its shingles (Broder, 1997): the probability that two documents agree in a value is their similarity. The signature is
cut into bands. Two documents that agree in a whole band are candidates, whose shingles are then compared.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64
from bertloom.draws import NEAR, draw, fold, mix

SHINGLE_TOKENS = 5
NUM_HASHES = 96
MIN_CHANCE = 0.99  # of finding two documents that are exactly as similar as requested
BLOCK_SHINGLES = 1 << 15  # processed at a time, so that they stay in the processor's cache

_POWERS = np.array([pow(0x9E3779B97F4A7C15, i, 1 << 64) for i in range(SHINGLE_TOKENS)], np.uint64)
_DRAWS = draw(fold(NEAR), np.arange(NUM_HASHES)).view(np.uint32).reshape(-1, 2)
_FACTORS, _TERMS = _DRAWS[:, 0] | 1, _DRAWS[:, 1]


@dataclass(frozen=True)
class Banding:
    """How a signature is cut into bands."""

    num_bands: int
    num_rows: int
    """Values of the signature in each band."""

    @classmethod
    def of(cls, similarity: float) -> "Banding":
        """Return the longest bands that find similar documents with MIN_CHANCE. Longer bands give fewer candidates.

        >>> Banding.of(0.8)
        Banding(num_bands=16, num_rows=6)
        """
        choices = (cls(NUM_HASHES // rows, rows) for rows in range(NUM_HASHES, 0, -1))
        return next(choice for choice in choices if choice.chance(similarity) >= MIN_CHANCE)

    def chance(self, similarity: float) -> float:
        """Return the probability that two documents of this similarity share a band."""
        return 1 - (1 - similarity**self.num_rows) ** self.num_bands


def shingles(ids: NDArray[np.integer], num_tokens: NDArray[np.integer]) -> tuple[U64, I64]:
    """Return (hashes of all documents' shingles, end to end: uint64; number of each document's: int64 (documents,)).

    ids: the documents' tokens end to end. num_tokens: of each document, at least 1. A document of fewer than SHINGLE_TOKENS
    tokens has one shingle with all of them.
    """
    sizes = num_tokens.astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    padded = np.concatenate([ids, np.zeros(SHINGLE_TOKENS, ids.dtype)]).astype(np.uint64)
    padded += np.uint64(1)  # so that 0 means no token
    hashes = np.zeros(len(ids), np.uint64)
    for i, power in enumerate(_POWERS):
        hashes += padded[i : i + len(ids)] * power
    short = np.flatnonzero(sizes < SHINGLE_TOKENS)
    hashes[starts[short]] = 0
    for i, power in enumerate(_POWERS):
        some = short[sizes[short] > i]
        hashes[starts[some]] += padded[starts[some] + i] * power
    counts = np.maximum(sizes - SHINGLE_TOKENS + 1, 1)
    begins = np.ones(len(ids), bool)  # of a shingle; one that would reach into the next document does not count
    tails = np.repeat(starts + counts, sizes - counts)
    tails += np.arange(len(tails)) - np.repeat(np.cumsum(sizes - counts) - (sizes - counts), sizes - counts)
    begins[tails] = False
    return mix(hashes[begins]), counts


def band_hashes(ids: NDArray[np.integer], num_tokens: NDArray[np.integer], banding: Banding) -> U64:
    """Return a hash of each band of each document's signature: uint64 (bands, documents)."""
    hashes, counts = shingles(ids, num_tokens)
    small = (hashes >> np.uint64(32)).astype(np.uint32)
    edges = np.concatenate([[0], np.cumsum(counts)])
    out = np.empty((banding.num_bands, len(counts)), np.uint64)
    first = 0
    while first < len(counts):
        last = max(first + 1, int(np.searchsorted(edges, edges[first] + BLOCK_SHINGLES, side="right")) - 1)
        least = _signatures(small[edges[first] : edges[last]], edges[first:last] - edges[first])
        for band in range(banding.num_bands):
            rows = least[band * banding.num_rows : (band + 1) * banding.num_rows]
            out[band, first:last] = fold(NEAR, band, *rows)
        first = last
    return out


def _signatures(hashes: NDArray[np.uint32], starts: I64) -> NDArray[np.uint32]:
    """Return the least hash of each document for each function: uint32 (NUM_HASHES, documents)."""
    least = np.empty((NUM_HASHES, len(starts)), np.uint32)
    hashed = np.empty_like(hashes)
    for i in range(NUM_HASHES):
        np.multiply(hashes, _FACTORS[i], out=hashed)
        np.add(hashed, _TERMS[i], out=hashed)
        np.minimum.reduceat(hashed, starts, out=least[i])
    return least


def similarity(a: U64, b: U64) -> tuple[int, int]:
    """Return (shingles that both documents have, shingles that at least one has), each counted once."""
    a, b = np.unique(a), np.unique(b)
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared, len(a) + len(b) - shared


def is_alike(shared: int, either: int, least: float) -> bool:
    """Return whether shared / either is at least the decimal number that the user wrote, computed exactly."""
    return shared >= Fraction(str(least)) * either

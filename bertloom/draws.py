"""Draws keyed by what they are for: the same for every worker, order of work, retry and library version.

`docs/shard-format.md` (Draws) is normative; `model/loading/order.py` has its own few lines of the same arithmetic, because
the two halves share files and not code. Every function takes NumPy uint64 arrays, or numbers, and wraps modulo 2^64.
"""

from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

U64 = NDArray[np.uint64]

PAIRS, MASKS, SHARD_ORDER, SURPLUS = 1, 2, 3, 5  # purposes; 4 is the trainer's
VALIDATION = 0x76616C6964617465  # "validate" in ASCII
SAMPLE = 0x73616D706C652020  # "sample  "
NEAR = 0x6E65617220202020  # "near    "
GOLDEN = np.uint64(0x9E3779B97F4A7C15)

_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


def _array(value: ArrayLike) -> U64:
    """uint64, at least one-dimensional: NumPy's scalars warn when they wrap, its arrays do not."""
    if isinstance(value, int):
        value = np.uint64(value & 0xFFFFFFFFFFFFFFFF)
    return np.atleast_1d(np.asarray(value)).astype(np.uint64, copy=False)


def mix(value: ArrayLike) -> U64:
    """The finalizer of splitmix64 (Steele, Lea and Flood, 2014): uint64 (n,) -> uint64 (n,)."""
    x = _array(value).copy()
    shifted = x >> _S30
    x ^= shifted
    x *= _M1
    np.right_shift(x, _S27, out=shifted)
    x ^= shifted
    x *= _M2
    np.right_shift(x, _S31, out=shifted)
    x ^= shifted
    return x


def fold(*values: ArrayLike) -> U64:
    """The key for these values, in this order; arrays broadcast. fold(seed, PAIRS, 128, 0, documents, sentences)."""
    key = _array(0)
    for value in values:
        key = mix((key ^ _array(value)) + GOLDEN)
    return key


def draw(keys: U64, j: ArrayLike) -> U64:
    """Draw number j = 0, 1, ... of each key: uint64 (n,)."""
    return mix(keys + (_array(j) + np.uint64(1)) * GOLDEN)


def bounded(draws: U64, n: ArrayLike) -> NDArray[np.int64]:
    """Uniform integers 0 ... n - 1 from the draws' upper 32 bits, by multiply-high; 1 <= n < 2^32."""
    return (((draws >> _S32) * _array(n)) >> _S32).astype(np.int64)


def bounded_low(draws: U64, n: ArrayLike) -> NDArray[np.int64]:
    """The same from the lower 32 bits: a second integer from one draw."""
    return (((draws & np.uint64(0xFFFFFFFF)) * _array(n)) >> _S32).astype(np.int64)


def chance(draws: U64, probability: float) -> NDArray[np.bool_]:
    """True with this probability, decided by the draws' upper 32 bits."""
    return (draws >> _S32) < np.uint64(threshold(probability, 32))


@cache
def threshold(probability: float, bits: int) -> int:
    """floor(p * 2^bits), exactly: the decimal that a person wrote, not its nearest binary fraction."""
    return int(Fraction(str(probability)) * 2**bits)


def choose(
    keys: U64, sizes: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose counts[i] of the numbers 0 ... sizes[i] - 1 without replacement and return (row i, number), sorted.

    Floyd's algorithm (Bentley and Floyd 1987), one step for all rows at a time. A bitmap holds what is taken and gives
    the numbers back in order without a sort. Step j takes draw j of the row's key.
    """
    bits = max(1, int(sizes.max(initial=1)) - 1).bit_length()
    taken = np.zeros(len(keys) << bits, bool)
    order = np.argsort(-counts, kind="stable")
    active = np.searchsorted(-counts[order], -np.arange(counts.max(initial=0)), side="left")  # rows with counts > step
    keys, base, room = keys[order], order << bits, (sizes - counts)[order]
    for step, n in enumerate(active):
        last = room[:n] + step
        number = base[:n] + bounded(draw(keys[:n], step), last + 1)
        number = np.where(taken[number], base[:n] + last, number)
        taken[number] = True
    flat = np.flatnonzero(taken)
    return flat >> bits, flat & ((1 << bits) - 1)

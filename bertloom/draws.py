"""Random draws keyed by their purpose: the same for every worker, order of work, retry and library version.

`docs/shard-format.md`, section "Draws", is normative. Every function takes NumPy uint64 arrays or integers, and wraps
modulo 2^64.
"""

from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from bertloom.arrays import I64, U64, Bools

PAIRS, MASKS, SHARD_ORDER, SURPLUS = 1, 2, 3, 5  # purposes of preprocessing
EPOCH_ORDER, MEMBER_ORDER, WINDOW_ORDER, MIXTURE_ORDER = 4, 6, 7, 8  # purposes of the order of training
VALIDATION = 0x76616C6964617465  # "validate" in ASCII
SAMPLE = 0x73616D706C652020  # "sample  "
NEAR = 0x6E65617220202020  # "near    "
GOLDEN = np.uint64(0x9E3779B97F4A7C15)

FACTOR_1, FACTOR_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_MIXED_ITEMS = 1 << 14  # fit in the processor's fastest caches through all steps
_S30, _S27, _S31, _S32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


def _array(value: ArrayLike) -> U64:
    """Return a uint64 array of at least one dimension: NumPy's scalars warn when they wrap, its arrays do not."""
    if isinstance(value, int):
        value = np.uint64(value & 0xFFFFFFFFFFFFFFFF)
    return np.atleast_1d(np.asarray(value)).astype(np.uint64, copy=False)


def mix(value: ArrayLike) -> U64:
    """Return the finalizer of splitmix64 (Steele, Lea and Flood, 2014), a bijection of 64-bit integers: (n,) -> (n,).

    >>> hex(mix(1)[0])
    '0x5692161d100b05e5'
    """
    return mix_in_place(_array(value).copy())


def mix_in_place(x: U64) -> U64:
    """Overwrite each item with its `mix` and return the array."""
    for start in range(0, len(x), _MIXED_ITEMS):
        some = x[start : start + _MIXED_ITEMS]
        shifted = some >> _S30
        some ^= shifted
        some *= FACTOR_1
        np.right_shift(some, _S27, out=shifted)
        some ^= shifted
        some *= FACTOR_2
        np.right_shift(some, _S31, out=shifted)
        some ^= shifted
    return x


def fold(*values: ArrayLike) -> U64:
    """Return the key of these values; their order matters, arrays broadcast.

    >>> fold(seed, PAIRS, 128, 0, documents, sentences)  # (n,) from arrays (n,)
    """
    key = _array(0)
    for value in values:
        key = key ^ _array(value)
        key += GOLDEN
        mix_in_place(key)
    return key


def fold_int(*values: int) -> int:
    """Return the `fold` of integers as an integer.

    >>> fold_int(1, 2)
    13608149317741381227
    """
    return int(fold(*values)[0])


def draw(keys: U64, j: ArrayLike) -> U64:
    """Return draw number j = 0, 1, ... of each key: (n,)."""
    return mix_in_place(keys + (_array(j) + np.uint64(1)) * GOLDEN)


def bounded(draws: U64, n: ArrayLike) -> I64:
    """Return uniform integers 0 ... n - 1 from the draws' upper 32 bits, by multiply-high; 1 <= n < 2^32."""
    return (((draws >> _S32) * _array(n)) >> _S32).astype(np.int64)


def bounded_low(draws: U64, n: ArrayLike) -> I64:
    """Return the same from the lower 32 bits: a second integer from one draw."""
    return (((draws & np.uint64(0xFFFFFFFF)) * _array(n)) >> _S32).astype(np.int64)


def chance(draws: U64, probability: float) -> Bools:
    """Return true with this probability, decided by the draws' upper 32 bits."""
    return (draws >> _S32) < np.uint64(threshold(probability, 32))


@cache
def threshold(probability: float, bits: int) -> int:
    """Return floor(p * 2^bits) of the decimal as it was written, not of its nearest binary fraction."""
    return int(Fraction(str(probability)) * 2**bits)


def choose(keys: U64, sizes: I64, counts: I64) -> tuple[I64, I64]:
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

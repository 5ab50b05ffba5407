"""Static masks for masked language modelling: 15 % of an example's tokens, replaced 80/10/10.

An example of n tokens, specials counted, has min(max_predictions_per_seq, max(1, floor(n·p + 1/2))) masks, drawn without
replacement from its tokens but [CLS] and [SEP] (Devlin et al. 2018, 3.1 and A.2). Of the chosen, 80 % become [MASK],
10 % a random word, 10 % stay. Against google-research/bert: halves are rounded up, not to even, and a random word is
never a special or an unused one.
"""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipeline.randomness import GOLDEN, U64, bounded, bounded_low, draw, mix, threshold
from pipeline.vocabulary import Vocabulary

MASKED, REPLACED = 0.8, 0.1  # the rest is kept


def default_max_predictions(max_seq_length: int, masked_lm_prob: float) -> int:
    """floor(L·p + 1/2) + 1: 20 for 128 and 78 for 512 at p = 0.15; Google's scripts say 20 and 77 by hand."""
    return int(max_seq_length * Fraction(str(masked_lm_prob)) + Fraction(1, 2)) + 1


def mask_counts(max_seq_length: int, masked_lm_prob: float, max_predictions: int) -> NDArray[np.int64]:
    """Number of masks of an example by its length, specials counted: (max_seq_length + 1,). Exact, no floats."""
    p = Fraction(str(masked_lm_prob))
    wanted = [max(1, int(n * p + Fraction(1, 2))) for n in range(max_seq_length + 1)]
    return np.array([min(count, max_predictions, max(n - 3, 0)) for n, count in enumerate(wanted)])


def choose(keys: U64, sizes: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """Draws counts[i] of the numbers 0 ... sizes[i] - 1 without replacement: (row, number), sorted.

    Floyd's algorithm (Bentley and Floyd 1987), a step for all rows at a time; a bitmap tells what is taken and gives the
    numbers back in order without a sort. Step j takes draw j of the row's key.
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


def mask_tokens(
    input_ids: NDArray,
    starts: NDArray[np.int64],
    a_length: NDArray[np.int64],
    b_length: NDArray[np.int64],
    keys: U64,
    counts: NDArray[np.int64],
    max_predictions: int,
    vocabulary: Vocabulary,
) -> tuple[NDArray[np.uint16], NDArray, NDArray[np.int64]]:
    """Masks a run of examples in place: (masked_lm_positions (masks,), masked_lm_ids (masks,), masks of each (n,)).

    input_ids: all examples end to end (tokens,); starts: of each (n,); keys: of each (n,); counts: by length, from
    `mask_counts`. Mask r of an example, in the order of the text, takes draw `max_predictions + r`.
    """
    size = a_length + b_length
    quota = counts[size + 3]
    rows, number = choose(keys, size, quota)
    positions = number + 1 + (number >= a_length[rows])
    flat = starts[rows] + positions
    originals = input_ids[flat]

    rank = np.arange(len(rows)) - np.repeat(np.cumsum(quota) - quota, quota)
    draws = mix(keys[rows] + (rank + max_predictions + 1).astype(np.uint64) * GOLDEN)
    share = draws >> np.uint64(32)
    masked = share < np.uint64(threshold(MASKED, 32))
    replaced = ~masked & (share < np.uint64(threshold(MASKED, 32) + threshold(REPLACED, 32)))
    new = originals.copy()
    new[masked] = vocabulary.mask
    ordinary = vocabulary.ordinary
    new[replaced] = ordinary[bounded_low(draws[replaced], len(ordinary))]
    input_ids[flat] = new
    return positions.astype(np.uint16), originals, quota

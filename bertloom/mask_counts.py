"""The number of masks of an example, which preprocessing and training share: docs/pairs-and-masks.md, section "Masks"."""

from fractions import Fraction

import numpy as np

from bertloom.arrays import I64


def mask_counts(max_seq_length: int, masked_lm_prob: float, max_predictions: int) -> I64:
    """Return the number of masks of an example by its length, specials counted: (max_seq_length + 1,). No floats."""
    p = Fraction(str(masked_lm_prob))
    wanted = [max(1, int(n * p + Fraction(1, 2))) for n in range(max_seq_length + 1)]
    return np.minimum(wanted, max_predictions)


def default_max_predictions(max_seq_length: int, masked_lm_prob: float) -> int:
    """Return floor(L·p + 1/2) + 1: 20 for 128 and 78 for 512 at p = 0.15. Google's scripts have 20 and 77, set by hand."""
    return int(max_seq_length * Fraction(str(masked_lm_prob)) + Fraction(1, 2)) + 1

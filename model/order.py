"""The order of training: which row is read when, as arithmetic.

Item t of training is a (copy, row) that follows from the numbers of rows, the seed and t alone, so the whole state of
the loader is one integer, and going to item 10^12 costs what going to item 0 costs. `docs/shard-format.md`, sections
"Draws" and "The order of training", is the contract; `pipeline/randomness.py` is the other side of it.
"""

from collections.abc import Sequence

import numpy as np

ORDER_VERSION = 1
"""Goes into checkpoints. Another number means another order of the same rows."""

GOLDEN = 0x9E3779B97F4A7C15
MULTIPLIER_1 = 0xBF58476D1CE4E5B9
MULTIPLIER_2 = 0x94D049BB133111EB
MASK = 2**64 - 1
EPOCH_ORDER = 4
NUM_ROUNDS = 6


def mix(x: int) -> int:
    """SplitMix64's finalizer (Steele, Lea, Flood 2014): a bijection of 64-bit integers.

    >>> hex(mix(1))
    '0x5692161d100b05e5'
    """
    x ^= x >> 30
    x = x * MULTIPLIER_1 & MASK
    x ^= x >> 27
    x = x * MULTIPLIER_2 & MASK
    return x ^ x >> 31


def mix_array(x: np.ndarray) -> np.ndarray:
    """`mix` of each item of a uint64 array."""
    x = x ^ x >> np.uint64(30)
    x *= np.uint64(MULTIPLIER_1)
    x ^= x >> np.uint64(27)
    x *= np.uint64(MULTIPLIER_2)
    return x ^ x >> np.uint64(31)


def fold(*values: int) -> int:
    """One 64-bit key from several integers; their order matters."""
    key = 0
    for value in values:
        key = mix((key ^ value & MASK) + GOLDEN & MASK)
    return key


def permute(indices: np.ndarray, num_rows: int, seed: int, max_seq_length: int, epoch: int) -> np.ndarray:
    """Rows at the given places of an epoch: a permutation of range(num_rows), a six-round Feistel network.

    An index that the network sends beyond num_rows is sent on until it lands inside (cycle walking); the network's
    domain is less than four times num_rows, so that takes less than four rounds on average.

    Args:
        indices: integers in range(num_rows), any shape.

    Returns:
        int64, the same shape.
    """
    half = 0
    while 4**half < num_rows:
        half += 1
    keys = [np.uint64(fold(seed, EPOCH_ORDER, max_seq_length, epoch, r)) for r in range(NUM_ROUNDS)]
    shift, mask = np.uint64(half), np.uint64(2**half - 1)
    rows = np.array(indices, dtype=np.uint64).reshape(-1)
    walking = np.arange(rows.size)
    while walking.size:
        left, right = rows[walking] >> shift, rows[walking] & mask
        for key in keys:
            left, right = right, left ^ (mix_array(key ^ right) & mask)
        rows[walking] = left << shift | right
        walking = walking[rows[walking] >= num_rows]
    return rows.astype(np.int64).reshape(np.shape(indices))


class TrainingOrder:
    """The endless sequence of items: epoch after epoch, each one a permutation of one copy's rows.

    >>> order = TrainingOrder(rows_per_copy=[3, 2], seed=1, max_seq_length=128)
    >>> copies, rows = order.items(0, 6)
    >>> copies.tolist(), sorted(rows[:3].tolist()), sorted(rows[3:5].tolist())
    ([0, 0, 0, 1, 1, 0], [0, 1, 2], [0, 1])
    """

    def __init__(self, rows_per_copy: Sequence[int], seed: int, max_seq_length: int) -> None:
        """rows_per_copy: rows of copy 0, 1, …; epoch e reads copy e mod their number."""
        if not any(rows_per_copy):
            raise ValueError("there are no rows to train on: the data set has no training examples of this length")
        self.rows_per_copy = [int(rows) for rows in rows_per_copy]
        self.seed = seed
        self.max_seq_length = max_seq_length
        self._starts = [sum(self.rows_per_copy[:copy]) for copy in range(len(self.rows_per_copy) + 1)]

    def epoch_start(self, epoch: int) -> int:
        """The first item of an epoch."""
        cycles, copy = divmod(epoch, len(self.rows_per_copy))
        return cycles * self._starts[-1] + self._starts[copy]

    def epoch_of(self, item: int) -> int:
        """The epoch that an item belongs to."""
        cycles, rest = divmod(item, self._starts[-1])
        # The last copy that starts at or before the item: copies without rows start where the next one starts.
        copy = max(copy for copy in range(len(self.rows_per_copy)) if self._starts[copy] <= rest)
        return cycles * len(self.rows_per_copy) + copy

    def items(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Copies and rows, int64 (stop - start,) each, of items start … stop - 1."""
        copies, rows = [], []
        while start < stop:
            epoch = self.epoch_of(start)
            first, end = self.epoch_start(epoch), min(self.epoch_start(epoch + 1), stop)
            copy = epoch % len(self.rows_per_copy)
            indices = np.arange(start - first, end - first)
            rows.append(permute(indices, self.rows_per_copy[copy], self.seed, self.max_seq_length, epoch))
            copies.append(np.full(end - start, copy, dtype=np.int64))
            start = end
        if not rows:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        return np.concatenate(copies), np.concatenate(rows)

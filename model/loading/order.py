"""The order of training: which row is read when, computed by arithmetic.

Item t of training is a (copy, row) that depends only on the sizes of copies and members, the seed and t. So the state of
the loader is one integer, and seeking to item 10^12 costs as much as seeking to item 0. In global order any row may follow
any other. In window order K members are read at a time, for data that is not on a local disk.
`docs/shard-format.md`, section "The order of training", is the contract.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from bertloom.arrays import I64
from bertloom.draws import EPOCH_ORDER, MEMBER_ORDER, WINDOW_ORDER, fold, mix_in_place

ORDER_VERSION = 1
"""Saved in checkpoints. Another number means another order of the same rows."""

NUM_ROUNDS = 6
ITEMS_AHEAD = 16_384


def permute(indices: np.ndarray, size: int, *key: int) -> np.ndarray:
    """Apply a keyed permutation of range(size): a six-round Feistel network.

    The network is applied again to results beyond size until they are inside (cycle walking). Its domain is less than
    four times size, so this takes fewer than four applications on average.

    Args:
        indices: integers in range(size), any shape.
        key: integers that key the permutation. Each round folds them with its number.

    Returns:
        int64, the same shape.
    """
    half = 0
    while 4**half < size:
        half += 1
    keys = fold(*key, np.arange(NUM_ROUNDS))
    shift, mask = np.uint64(half), np.uint64(2**half - 1)

    def network(places: np.ndarray) -> np.ndarray:
        left, right = places >> shift, places & mask
        for key_of_round in keys:
            mixed = mix_in_place(key_of_round ^ right)
            mixed &= mask
            mixed ^= left
            left, right = right, mixed
        return left << shift | right

    places = network(np.array(indices, dtype=np.uint64).reshape(-1))
    outside = np.flatnonzero(places >= size)
    while outside.size:
        places[outside] = network(places[outside])
        outside = outside[places[outside] >= size]
    return places.astype(np.int64).reshape(np.shape(indices))


def parse_shuffle(shuffle: str) -> int | None:
    """Return the number of members in a window, None for global order.

    >>> parse_shuffle("window:16"), parse_shuffle("global")
    (16, None)
    """
    name, _, size = shuffle.partition(":")
    if shuffle == "global":
        return None
    if name != "window" or not size.isdecimal() or not int(size):
        raise ValueError(f"shuffle={shuffle!r}: expected global, or window:16 to read 16 members at a time")
    return int(size)


class Order(Protocol):
    """A sequence of items."""

    @property
    def num_items(self) -> int | None:
        """Number of items; None if it is endless."""

    def items(self, start: int, stop: int) -> tuple[I64, I64]:
        """Return copies and rows of items start … stop - 1, int64 (stop - start,) each."""

    def epochs(self, start: int, stop: int) -> I64:
        """Return the epochs of items start … stop - 1, int64 (stop - start,)."""

    def rows_ahead(self, start: int, stop: int) -> tuple[I64, I64]:
        """Return copies and rows whose members hold items start … stop - 1 and some later ones, earliest first."""


class TrainingOrder:
    """The endless sequence of items. Each epoch is a permutation of one copy's rows.

    >>> order = TrainingOrder(rows_per_copy=[3, 2], seed=1, max_seq_length=128)
    >>> copies, rows = order.items(0, 6)
    >>> copies.tolist(), sorted(rows[:3].tolist()), sorted(rows[3:5].tolist())
    ([0, 0, 0, 1, 1, 0], [0, 1, 2], [0, 1])
    """

    num_items = None

    def __init__(self, rows_per_copy: Sequence[int], seed: int, max_seq_length: int) -> None:
        """rows_per_copy: number of rows of copy 0, 1, …; epoch e reads copy e mod the number of copies."""
        if not any(rows_per_copy):
            raise ValueError(
                "there are no rows to train on: the data set has no training examples of this length; preprocess more text"
            )
        self.rows_per_copy = [int(rows) for rows in rows_per_copy]
        self.seed = seed
        self.max_seq_length = max_seq_length
        self._starts = [sum(self.rows_per_copy[:copy]) for copy in range(len(self.rows_per_copy) + 1)]

    def epoch_start(self, epoch: int) -> int:
        """Return the first item of an epoch."""
        cycles, copy = divmod(epoch, len(self.rows_per_copy))
        return cycles * self._starts[-1] + self._starts[copy]

    def epoch_of(self, item: int) -> int:
        """Return the epoch of an item."""
        cycles, rest = divmod(item, self._starts[-1])
        # The last copy that starts at or before the item: copies without rows start where the next one starts.
        copy = max(copy for copy in range(len(self.rows_per_copy)) if self._starts[copy] <= rest)
        return cycles * len(self.rows_per_copy) + copy

    def items_in(self, epochs: float) -> int:
        """Return the number of items in this many epochs."""
        first, after = self.epoch_start(int(epochs)), self.epoch_start(int(epochs) + 1)
        return first + round(epochs % 1 * (after - first))

    def epochs_before(self, item: int) -> float:
        """Return the number of epochs before an item, with a fraction."""
        epoch = self.epoch_of(item)
        first, after = self.epoch_start(epoch), self.epoch_start(epoch + 1)
        return epoch + (item - first) / (after - first)

    def items(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return copies and rows of items start … stop - 1, int64 (stop - start,) each."""
        return self._by_epoch(start, stop, self._rows)

    def epochs(self, start: int, stop: int) -> np.ndarray:
        """Return the epochs of items start … stop - 1, int64 (stop - start,)."""
        return self._by_epoch(start, stop, lambda epoch, first, end: np.full(end - first, epoch))[1]

    def rows_ahead(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return copies and rows whose members hold items start … stop - 1 and some later ones, earliest first."""
        return self.items(start, stop)

    def _by_epoch(
        self, start: int, stop: int, rows_of: Callable[[int, int, int], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        copies, rows = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        while start < stop:
            epoch = self.epoch_of(start)
            first, end = self.epoch_start(epoch), min(self.epoch_start(epoch + 1), stop)
            rows.append(rows_of(epoch, start - first, end - first))
            copies.append(np.full(len(rows[-1]), epoch % len(self.rows_per_copy)))
            start = end
        return np.concatenate(copies), np.concatenate(rows)

    def _rows(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Return the rows at places start … stop - 1 of an epoch."""
        size = self.rows_per_copy[epoch % len(self.rows_per_copy)]
        return permute(np.arange(start, stop), size, self.seed, EPOCH_ORDER, self.max_seq_length, epoch)


class WindowOrder(TrainingOrder):
    """An order that reads few members at a time: members are permuted and grouped into windows of K, then the rows of each
    window are permuted.

    Each epoch needs a table of the members, in time and memory proportional to their number: 0.03 s and 5 MB for 300,000
    members with 300 million rows. The last two tables are kept.
    """

    def __init__(
        self, members_per_copy: Sequence[np.ndarray], seed: int, max_seq_length: int, members_per_window: int
    ) -> None:
        """members_per_copy: number of rows of each member, for each copy. members_per_window: K."""
        super().__init__([int(members.sum()) for members in members_per_copy], seed, max_seq_length)
        self.members_per_copy = members_per_copy
        self.members_per_window = members_per_window
        self._table = lru_cache(maxsize=2)(self._make_table)

    def rows_ahead(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first row of each member of the windows that hold these items, and of the next window or two."""
        longest = max(int(members.max(initial=0)) for members in self.members_per_copy)
        return self._by_epoch(start, stop + self.members_per_window * longest, self._first_rows)

    def _make_table(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return, for the epoch's members in their new order, the first row of each, int64 (M,), and the place in the epoch
        where each begins, followed by the end of the epoch, int64 (M + 1,)."""
        sizes = self.members_per_copy[epoch % len(self.members_per_copy)]
        order = permute(np.arange(len(sizes)), len(sizes), self.seed, MEMBER_ORDER, self.max_seq_length, epoch)
        return (np.cumsum(sizes) - sizes)[order], np.concatenate([[0], np.cumsum(sizes[order])])

    def _windows(self, epoch: int, start: int, stop: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield each window that holds one of these places: its number, the first row of each member, and the place where
        each begins, followed by the end of the window."""
        first_rows, begins = self._table(epoch)
        size = self.members_per_window
        first, last = (np.searchsorted(begins, [start, stop - 1], side="right") - 1) // size
        for window in range(int(first), int(last) + 1):
            yield window, first_rows[window * size :][:size], begins[window * size :][: size + 1]

    def _first_rows(self, epoch: int, start: int, stop: int) -> np.ndarray:
        return np.concatenate([first_rows for _, first_rows, _ in self._windows(epoch, start, stop)])

    def _rows(self, epoch: int, start: int, stop: int) -> np.ndarray:
        rows = []
        for window, first_rows, begins in self._windows(epoch, start, stop):
            begin, end = int(begins[0]), int(begins[-1])
            places = np.arange(max(start, begin), min(stop, end)) - begin
            key = (self.seed, WINDOW_ORDER, self.max_seq_length, epoch, window)
            places = begin + permute(places, end - begin, *key)
            members = np.searchsorted(begins, places, side="right") - 1
            rows.append((first_rows - begins[:-1])[members] + places)
        return np.concatenate(rows)


class ItemsAhead:
    """The items of an order, computed for many batches at once, which costs little more than for one batch."""

    def __init__(self, order: Order, expect: Callable[[np.ndarray, np.ndarray], None] | None = None) -> None:
        """expect: called with copies and rows that will be needed soon."""
        self.order = order
        self.expect = expect
        self._start = self._stop = 0
        self._copies = self._rows = np.zeros(0, dtype=np.int64)

    def items(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return copies and rows of items start … stop - 1, int64 (stop - start,) each."""
        if not self._start <= start <= stop <= self._stop:
            end = start + ITEMS_AHEAD
            self._start, self._stop = (
                start,
                max(stop, end if self.order.num_items is None else min(end, self.order.num_items)),
            )
            self._copies, self._rows = self.order.items(self._start, self._stop)
            if self.expect:
                self.expect(*self.order.rows_ahead(self._start, self._stop + ITEMS_AHEAD))
        chosen = slice(start - self._start, stop - self._start)
        return self._copies[chosen], self._rows[chosen]

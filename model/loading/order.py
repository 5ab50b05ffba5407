"""The order of training: which row is read when, as arithmetic.

Item t of training is a (copy, row) that follows from the sizes of copies and members, the seed and t alone, so the
whole state of the loader is one integer, and going to item 10^12 costs what going to item 0 costs. In global order any
row may follow any other; in windows, K members are read at a time, for data that does not lie on a local disk.
`docs/shard-format.md`, section "The order of training", is the contract.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from bertloom.draws import EPOCH_ORDER, MEMBER_ORDER, WINDOW_ORDER, fold, mix_in_place

ORDER_VERSION = 1
"""Goes into checkpoints. Another number means another order of the same rows."""

NUM_ROUNDS = 6
ITEMS_AHEAD = 16_384


def permute(indices: np.ndarray, size: int, *key: int) -> np.ndarray:
    """Where a keyed permutation of range(size) sends these places: a six-round Feistel network.

    An index that the network sends beyond size is sent on until it lands inside (cycle walking); the network's domain
    is less than four times size, so that takes less than four rounds on average.

    Args:
        indices: integers in range(size), any shape.
        key: the integers that key the permutation; each round folds them with its number.

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
    """Members in a window; None for global order.

    >>> parse_shuffle("window:16"), parse_shuffle("global")
    (16, None)
    """
    name, _, size = shuffle.partition(":")
    if shuffle == "global":
        return None
    if name != "window" or not size.isdecimal() or not int(size):
        raise ValueError(f"shuffle={shuffle!r}: expected global, or window:16 to read 16 members at a time")
    return int(size)


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
        return self._by_epoch(start, stop, self._rows)

    def epochs(self, start: int, stop: int) -> np.ndarray:
        """The epochs of items start … stop - 1, int64 (stop - start,)."""
        return self._by_epoch(start, stop, lambda epoch, first, end: np.full(end - first, epoch))[1]

    def rows_ahead(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Copies and rows whose members hold items start … stop - 1 and perhaps some that follow, soonest first."""
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
        """Rows at places start … stop - 1 of an epoch."""
        size = self.rows_per_copy[epoch % len(self.rows_per_copy)]
        return permute(np.arange(start, stop), size, self.seed, EPOCH_ORDER, self.max_seq_length, epoch)


class WindowOrder(TrainingOrder):
    """The same with few members read at a time: they are permuted, joined K by K to windows, and each window's rows
    permuted.

    For each epoch it makes a table of the members, in time and memory proportional to their number: 0.03 s and 5 MB for
    300,000 of them, which are 300 million rows. The last two tables are kept.
    """

    def __init__(
        self, members_per_copy: Sequence[np.ndarray], seed: int, max_seq_length: int, members_per_window: int
    ) -> None:
        """members_per_copy: rows of each member, for each copy; members_per_window: K."""
        super().__init__([int(members.sum()) for members in members_per_copy], seed, max_seq_length)
        self.members_per_copy = members_per_copy
        self.members_per_window = members_per_window
        self._table = lru_cache(maxsize=2)(self._make_table)

    def rows_ahead(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The first row of every member of the windows that hold these items, and of the next window or two."""
        longest = max(int(members.max(initial=0)) for members in self.members_per_copy)
        return self._by_epoch(start, stop + self.members_per_window * longest, self._first_rows)

    def _make_table(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the epoch's members in their new order: the first row of each, int64 (M,), and the place in the epoch at
        which each begins, with the end of the epoch behind them, int64 (M + 1,)."""
        sizes = self.members_per_copy[epoch % len(self.members_per_copy)]
        order = permute(np.arange(len(sizes)), len(sizes), self.seed, MEMBER_ORDER, self.max_seq_length, epoch)
        return (np.cumsum(sizes) - sizes)[order], np.concatenate([[0], np.cumsum(sizes[order])])

    def _windows(self, epoch: int, start: int, stop: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Of each window that holds one of these places of an epoch: its number, the first row of each of its members,
        and the place at which each begins, with the end behind them."""
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
    """The items of an order, worked out for many batches at once, which costs little more than for one."""

    def __init__(self, order: TrainingOrder, expect: Callable[[np.ndarray, np.ndarray], None] | None = None) -> None:
        """expect: is told copies and rows that will be needed soon."""
        self.order = order
        self.expect = expect
        self._start = self._stop = 0
        self._copies = self._rows = np.zeros(0, dtype=np.int64)

    def items(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Copies and rows, int64 (stop - start,) each, of items start … stop - 1."""
        if not self._start <= start <= stop <= self._stop:
            self._start, self._stop = start, max(stop, start + ITEMS_AHEAD)
            self._copies, self._rows = self.order.items(self._start, self._stop)
            if self.expect:
                self.expect(*self.order.rows_ahead(self._start, self._stop + ITEMS_AHEAD))
        chosen = slice(start - self._start, stop - self._start)
        return self._copies[chosen], self._rows[chosen]

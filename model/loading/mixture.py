"""Which data set each item of training comes from, computed by arithmetic.

A mixture has sources with shares. Item t comes from a source, and is an item in the order of that source. Both depend only
on the shares, the limits, the key and t. So the state of the loader is still one integer, and seeking to item 10^12 costs as
much as seeking to item 0. `docs/shard-format.md`, section "The order of a mixture", is the contract.

Items come in blocks of 1,024, and blocks in cycles of 1,024. In every cycle each source has exactly its number of items, and
in every block that number over 1,024, rounded down or up. The places in a block are in keyed order. Where a source is used
up, a stretch ends, and the next one divides its share among the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from bertloom.arrays import I64
from model.loading.order import TrainingOrder, permute

BLOCK = 1024
"""Items of a block."""
CYCLE = 1024
"""Blocks of a cycle. Sources then have their shares exactly, up to a millionth of the items."""
STARTS: I64 = np.array([int(f"{number:010b}"[::-1], 2) for number in range(CYCLE)])
"""The ten bits of 0 … 1023 in reverse order: where the rounding of each block of a cycle starts."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Blocks in which the sources have the same shares."""

    first_block: int
    num_blocks: int | None
    """None: it has no end."""
    counts: tuple[int, ...]
    """Items of each source in a cycle."""
    before: tuple[int, ...]
    """Items of each source in all blocks before."""

    @cached_property
    def table(self) -> I64:
        """Items of each source in the first 0, 1, … 1,024 blocks of a cycle: (CYCLE + 1, number of sources)."""
        counts = np.array(self.counts)
        rests = np.cumsum(counts % CYCLE)
        rounded = (np.concatenate([[0], rests]) + STARTS[:, None]) // CYCLE
        per_block = counts // CYCLE + np.diff(rounded, axis=1)
        return np.concatenate([np.zeros((1, len(counts)), np.int64), np.cumsum(per_block, axis=0)])

    def num_read(self, num_blocks: int) -> list[int]:
        """Return the items of each source in the first blocks of the stretch."""
        cycles, rest = divmod(num_blocks, CYCLE)
        return [cycles * count + int(part) for count, part in zip(self.counts, self.table[rest])]

    def blocks_within(self, source: int, limit: int) -> int:
        """Return the largest number of blocks that hold at most this number of items of a source, which has some."""
        cycles, rest = divmod(limit, self.counts[source])
        return cycles * CYCLE + int(np.searchsorted(self.table[:, source], rest, side="right")) - 1


class Mixture:
    """The sequence of the sources of items. It is endless unless all sources have limits.

    >>> mixture = Mixture([Fraction(3, 4), Fraction(1, 4)], [None, 300], 1)
    >>> sources, numbers = mixture.items(0, 1024)
    >>> np.bincount(sources).tolist(), numbers[sources == 1][:3].tolist()
    ([768, 256], [0, 1, 2])
    >>> mixture.num_before(3 * 1024), mixture.used_up()
    ([2772, 300], [(1, 2048)])
    """

    def __init__(self, weights: Sequence[Fraction], limits: Sequence[int | None], *key: int) -> None:
        """
        Args:
            weights: of each source, in items; a source with weight 0 is not read.
            limits: number of items that each source has, None if it has no limit.
            key: of the order in blocks.
        """
        assert any(weights) and min(weights) >= 0
        self.key = key
        self.limits = list(limits)
        self.stretches = list(_stretches(weights, limits))

    @cached_property
    def num_items(self) -> int | None:
        """Number of items; None if there is a source without a limit."""
        last = self.stretches[-1] if self.stretches else None
        if last is None:
            return 0
        if last.num_blocks is None:
            return None
        return sum(last.before) + sum(last.num_read(last.num_blocks))

    def used_up(self) -> list[tuple[int, int]]:
        """Return (source, item of the mixture after which it has no items left) for each source that ends, in time order."""
        ends: list[tuple[int, int]] = []
        for stretch in self.stretches:
            if stretch.num_blocks is None:
                break
            read = [a + b for a, b in zip(stretch.before, stretch.num_read(stretch.num_blocks))]
            known = {source for source, _ in ends}
            for source, (count, limit) in enumerate(zip(read, self.limits)):
                if count == limit and source not in known and limit:
                    ends.append((source, sum(read)))
        return ends

    def items(self, start: int, stop: int) -> tuple[I64, I64]:
        """Return the sources of items start … stop - 1 and their numbers within them, int64 (stop - start,) each."""
        self._check(stop)
        sources, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            chosen = slice(max(start - block * BLOCK, 0), stop - block * BLOCK)
            of, number = self._block(block)
            sources.append(of[chosen])
            numbers.append(number[chosen])
        return np.concatenate(sources), np.concatenate(numbers)

    def _check(self, stop: int) -> None:
        """Raise ValueError if the mixture has fewer items."""
        if self.num_items is not None and stop > self.num_items:
            raise ValueError(
                f"the data sets have {self.num_items:,} examples within their limits of epochs, and training needs more: "
                f"train for fewer steps, raise a limit, or leave one out"
            )

    def num_before(self, item: int) -> list[int]:
        """Return the number of items of each source before this item."""
        self._check(item)
        if not item:
            return [0] * len(self.limits)
        block, place = divmod(item, BLOCK)
        stretch = self._stretch(block - (not place))  # at a border, the stretch of the item before it
        counts = [a + b for a, b in zip(stretch.before, stretch.num_read(block - stretch.first_block))]
        if place:
            inside = np.bincount(self._block(block)[0][:place], minlength=len(counts))
            counts = [count + int(more) for count, more in zip(counts, inside)]
        return counts

    def _stretch(self, block: int) -> Stretch:
        return next(stretch for stretch in reversed(self.stretches) if stretch.first_block <= block)

    def _block(self, block: int) -> tuple[I64, I64]:
        """Return the sources of a block's items, and their numbers within their sources."""
        stretch = self._stretch(block)
        before, after = (stretch.num_read(block + more - stretch.first_block) for more in (0, 1))
        counts = np.subtract(after, before)
        size = int(counts.sum())
        places = permute(np.arange(size), size, *self.key, block)
        sources = np.repeat(np.arange(len(counts)), counts)[places]
        first = np.add(stretch.before, before)
        order = np.argsort(sources, kind="stable")
        numbers = np.empty(size, np.int64)
        numbers[order] = np.arange(size) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        return sources, numbers


def _stretches(weights: Sequence[Fraction], limits: Sequence[int | None]) -> list[Stretch]:
    """Return the stretches: at most three for each source with a limit, and one more."""
    stretches: list[Stretch] = []
    block, read = 0, [0] * len(weights)
    while True:
        left = [None if limit is None else limit - count for limit, count in zip(limits, read)]
        active = [weight if rest != 0 else Fraction(0) for weight, rest in zip(weights, left)]
        if not any(active):
            return stretches
        stretch = Stretch(first_block=block, num_blocks=None, counts=_cycle_counts(active), before=tuple(read))
        ends = [
            stretch.blocks_within(source, rest)
            for source, rest in enumerate(left)
            if rest is not None and active[source]
        ]
        if not ends:
            return [*stretches, stretch]
        num_blocks, counts = min(ends), stretch.counts
        if num_blocks == 0:
            num_blocks, counts = 1, tuple(CYCLE * count for count in _last_block(counts, left))
        stretch = Stretch(first_block=block, num_blocks=num_blocks, counts=counts, before=tuple(read))
        stretches.append(stretch)
        block, read = block + num_blocks, [a + b for a, b in zip(read, stretch.num_read(num_blocks))]


def _cycle_counts(weights: Sequence[Fraction]) -> tuple[int, ...]:
    """Return the items of each source in a cycle, at least 1 for each one with a weight."""
    counts = apportion(weights, BLOCK * CYCLE)
    for source, weight in enumerate(weights):
        if weight and not counts[source]:
            counts[int(np.argmax(counts))] -= 1
            counts[source] = 1
    return tuple(counts)


def _last_block(counts: Sequence[int], left: Sequence[int | None]) -> list[int]:
    """Return the items of each source in a block in which at least one of them is used up."""
    found, room = [0] * len(counts), BLOCK
    open_ = [source for source, count in enumerate(counts) if count]
    while open_:
        parts = dict(zip(open_, apportion([Fraction(counts[source]) for source in open_], room)))
        full = {source: rest for source in open_ if (rest := left[source]) is not None and rest <= parts[source]}
        for source, count in (full or parts).items():
            found[source] = count
        room -= sum(full.values())
        open_ = [source for source in open_ if source not in full] if full else []
    return found


def apportion(weights: Sequence[Fraction], total: int) -> list[int]:
    """Return whole numbers with this total in proportion to the weights, by largest remainders; the first of equal ones.

    >>> apportion([Fraction(1), Fraction(1), Fraction(4)], 10)
    [2, 2, 6]
    >>> apportion([Fraction(1), Fraction(1), Fraction(1)], 1024)
    [342, 341, 341]
    """
    exact = [weight * total / sum(weights) for weight in weights]
    counts = [int(part) for part in exact]
    by_remainder = sorted(range(len(weights)), key=lambda source: counts[source] - exact[source])
    for source in by_remainder[: total - sum(counts)]:
        counts[source] += 1
    return counts


class MixedOrder:
    """The order in which training reads a mixture: each source is read in its own `TrainingOrder`.

    The copies of all sources are numbered one after the other, so a row is still a (copy, row).
    """

    def __init__(self, mixture: Mixture, orders: Sequence[TrainingOrder], firsts: Sequence[int]) -> None:
        """
        Args:
            orders: of each source.
            firsts: the item in the order of each source that is its first one here.
        """
        self.mixture = mixture
        self.orders = orders
        self.firsts = firsts
        sizes = [len(order.rows_per_copy) for order in orders]
        self._first_copies = np.cumsum(sizes) - sizes

    @property
    def num_items(self) -> int | None:
        """Number of items; None if there is a source without a limit."""
        return self.mixture.num_items

    def items(self, start: int, stop: int) -> tuple[I64, I64]:
        """Return copies and rows of items start … stop - 1, int64 (stop - start,) each."""
        copies, rows = np.empty((2, stop - start), np.int64)
        for source, chosen, first, end in self._by_source(start, stop):
            copies[chosen], rows[chosen] = self.orders[source].items(first, end)
            copies[chosen] += self._first_copies[source]
        return copies, rows

    def epochs(self, start: int, stop: int) -> I64:
        """Return the epochs of items start … stop - 1 in their sources, int64 (stop - start,)."""
        epochs = np.empty(stop - start, np.int64)
        for source, chosen, first, end in self._by_source(start, stop):
            epochs[chosen] = self.orders[source].epochs(first, end)
        return epochs

    def rows_ahead(self, start: int, stop: int) -> tuple[I64, I64]:
        """Return copies and rows whose members hold items start … stop - 1 and some later ones, earliest first for each
        source."""
        end = stop if self.num_items is None else min(stop, self.num_items)
        copies, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for source, (first, last) in enumerate(zip(self.mixture.num_before(start), self.mixture.num_before(end))):
            if first < last:
                of, row = self.orders[source].rows_ahead(self.firsts[source] + first, self.firsts[source] + last)
                copies.append(of + self._first_copies[source])
                rows.append(row)
        return np.concatenate(copies), np.concatenate(rows)

    def _by_source(self, start: int, stop: int) -> list[tuple[int, I64, int, int]]:
        """Return, for each source of these items: its number, their places, its first item, and the one after its last."""
        sources, numbers = self.mixture.items(start, stop)
        found = []
        for source in np.unique(sources).tolist():
            places = np.flatnonzero(sources == source)
            first = self.firsts[source] + int(numbers[places[0]])
            found.append((source, places, first, first + len(places)))
        return found

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.loading.mixture import BLOCK, CYCLE, MixedOrder, Mixture, apportion
from model.loading.order import TrainingOrder, WindowOrder
from tests.pipeline.twins import slow_permute


def slow_apportion(weights, total):
    counts = [int(weight * total / sum(weights)) for weight in weights]
    while sum(counts) < total:
        rests = [weight * total / sum(weights) - count for weight, count in zip(weights, counts)]
        counts[rests.index(max(rests))] += 1
    return counts


def slow_cycle(weights):
    counts = slow_apportion(weights, 2**20)
    for i, weight in enumerate(weights):
        if weight and counts[i] == 0:
            counts[counts.index(max(counts))] -= 1
            counts[i] = 1
    return counts


def slow_block_counts(cycle, number):
    start = int("".join(reversed(f"{number % 1024:010b}")), 2)
    counts, rests = [], 0
    for count in cycle:
        following = rests + count % 1024
        counts.append(count // 1024 + (following + start) // 1024 - (rests + start) // 1024)
        rests = following
    return counts


def slow_last_block(cycle, left):
    counts, is_open = [0] * len(cycle), [count > 0 for count in cycle]
    while any(is_open):
        parts = slow_apportion([count * is_open[i] for i, count in enumerate(cycle)], 1024 - sum(counts))
        full = [i for i in range(len(cycle)) if is_open[i] and left[i] is not None and left[i] <= parts[i]]
        if not full:
            return [count + part for count, part in zip(counts, parts)]
        for i in full:
            counts[i], is_open[i] = left[i], False
    return counts


def slow_items(weights, limits, key, count):
    """List all items, (source, number) each, block after block, as docs/shard-format.md has it."""
    items, read, block, number, cycle = [], [0] * len(weights), 0, 0, None
    while len(items) < count:
        left = [None if limit is None else limit - done for limit, done in zip(limits, read)]
        if cycle is None:
            active = [weight * (rest != 0) for weight, rest in zip(weights, left)]
            if not any(active):
                return items
            cycle, number = slow_cycle(active), 0
        counts, is_last = slow_block_counts(cycle, number), False
        if any(rest is not None and part > rest for part, rest in zip(counts, left)):
            if number:
                cycle = None  # a new stretch begins at this block
                continue
            counts, is_last = slow_last_block(cycle, left), True
        of = [source for source, part in enumerate(counts) for _ in range(part)]
        for i in range(len(of)):
            source = of[slow_permute(i, len(of), *key, block)]
            items.append((source, read[source]))
            read[source] += 1
        block, number, cycle = block + 1, number + 1, None if is_last else cycle
    return items[:count]


SHARES = st.lists(st.integers(0, 1000) | st.sampled_from([1, 10**6]), min_size=1, max_size=5).filter(any)


@st.composite
def mixtures(draw, largest_limit=9000):
    weights = [Fraction(share, 1000) for share in draw(SHARES)]
    limits = draw(st.lists(st.none() | st.integers(0, largest_limit), min_size=len(weights), max_size=len(weights)))
    return weights, limits, (draw(st.integers(0, 2**63 - 1)), 8, 128, draw(st.integers(0, 99)))


@settings(max_examples=60, deadline=None)
@given(mixtures(), st.integers(0, 6000), st.integers(0, 3000))
def test_any_range_of_a_mixture_equals_that_of_the_list_of_all_items(case, start, size):
    weights, limits, key = case
    mixture = Mixture(weights, limits, *key)
    expected = slow_items(weights, limits, key, start + size)
    stop = start + size if mixture.num_items is None else min(start + size, mixture.num_items)
    assert len(expected) == max(stop, min(len(expected), start))
    start = min(start, stop)
    sources, numbers = mixture.items(start, stop)
    assert list(zip(sources.tolist(), numbers.tolist())) == expected[start:]
    assert mixture.num_before(start) == [
        sum(source == i for source, _ in expected[:start]) for i in range(len(weights))
    ]


@settings(max_examples=100, deadline=None)
@given(mixtures(largest_limit=10**7), st.integers(0, 10**7), st.integers(1, 3000))
def test_items_of_each_source_follow_each_other_without_gap_or_repeat(case, start, size):
    weights, limits, key = case
    mixture = Mixture(weights, limits, *key)
    if mixture.num_items is not None:
        start, size = min(start, mixture.num_items), max(0, min(size, mixture.num_items - start))
    sources, numbers = mixture.items(start, start + size)
    before, after = mixture.num_before(start), mixture.num_before(start + size)
    for source, limit in enumerate(limits):
        assert numbers[sources == source].tolist() == list(range(before[source], after[source]))
        assert limit is None or after[source] <= limit
        assert weights[source] or not after[source]
    assert sum(before) == start


@settings(max_examples=100, deadline=None)
@given(SHARES, st.integers(0, 10**9))
def test_each_block_has_the_shares_rounded_and_each_cycle_has_them_exactly(shares, block):
    weights = [Fraction(share) for share in shares]
    mixture = Mixture(weights, [None] * len(shares), 1)
    [stretch] = mixture.stretches
    assert sum(stretch.counts) == 2**20
    for weight, count in zip(weights, stretch.counts):
        exact = 2**20 * weight / sum(weights)
        assert abs(count - exact) < 1 + len(shares)  # one more where a source would have none
        assert (count > 0) == (weight > 0)
    before, after = (np.array(mixture.num_before((block + more) * BLOCK)) for more in (0, 1))
    counts = after - before
    assert counts.sum() == BLOCK
    for count, of_cycle in zip(counts.tolist(), stretch.counts):
        assert of_cycle // CYCLE <= count <= -(-of_cycle // CYCLE)
    start = block * BLOCK * CYCLE
    a_cycle = np.subtract(mixture.num_before(start + BLOCK * CYCLE), mixture.num_before(start))
    assert tuple(a_cycle) == stretch.counts


def test_the_shares_of_any_beginning_are_within_a_few_items():
    weights = [Fraction(share, 1000) for share in (613, 287, 99, 1)]
    mixture = Mixture(weights, [None] * 4, 5)
    for blocks in range(1, 3000, 7):
        counts = mixture.num_before(blocks * BLOCK)
        assert max(abs(count - blocks * BLOCK * weight) for count, weight in zip(counts, weights)) < 5


def test_items_after_a_million_million_are_found_without_those_before():
    weights = [Fraction(7, 10), Fraction(3, 10)]
    mixture = Mixture(weights, [None, None], 1)
    sources, numbers = mixture.items(10**12, 10**12 + 256)
    place = 10**12 % BLOCK
    block = 10**12 // BLOCK
    of = np.repeat([0, 1], slow_block_counts(slow_cycle(weights), block))
    assert sources.tolist() == [of[slow_permute(place + i, BLOCK, 1, block)] for i in range(256)]
    assert abs(numbers[sources == 1][0] / (3 * 10**11) - 1) < 1e-6


def test_the_share_of_a_source_that_is_used_up_goes_to_the_others_in_proportion():
    mixture = Mixture([Fraction(6, 10), Fraction(3, 10), Fraction(1, 10)], [None, None, 1000], 1)
    assert mixture.used_up() == [(2, 10 * BLOCK)]
    assert mixture.num_before(10 * BLOCK)[2] == 1000
    later = np.subtract(mixture.num_before(10 * BLOCK + 2**20), mixture.num_before(10 * BLOCK))
    assert later.tolist() == [699051, 349525, 0]
    assert mixture.num_items is None


def test_a_mixture_of_limited_sources_ends_when_all_are_used_up():
    mixture = Mixture([Fraction(1, 2), Fraction(1, 2), Fraction(0)], [700, 5000, 10], 1)
    assert mixture.num_items == 5700
    assert mixture.num_before(5700) == [700, 5000, 0]
    assert [source for source, _ in mixture.used_up()] == [0, 1]
    assert Mixture([Fraction(1)], [0], 1).num_items == 0


def test_apportioned_numbers_have_the_total():
    assert apportion([Fraction(1, 3)] * 3, 2**20) == [349526, 349525, 349525]
    assert apportion([Fraction(0), Fraction(2)], 7) == [0, 7]


# ---- with the orders of the sources


def window_order(seed):
    return WindowOrder([np.array([3, 4, 5, 2, 6] * 20), np.array([7, 7])], seed, 128, 3)


@pytest.mark.parametrize("kind", ["global", "window"])
def test_a_mixed_order_reads_each_source_in_its_own_order(kind):
    orders = [TrainingOrder([500, 400], 7, 128), window_order(7) if kind == "window" else TrainingOrder([90], 7, 128)]
    mixed = MixedOrder(Mixture([Fraction(2), Fraction(1)], [None, 5000], 7), orders, [0, 130])
    copies, rows = mixed.items(0, 4000)
    epochs = mixed.epochs(0, 4000)
    sources = np.where(copies < 2, 0, 1)
    for source, first in enumerate([0, 130]):
        is_own = sources == source
        own_copies, own_rows = orders[source].items(first, first + int(is_own.sum()))
        assert (copies[is_own] - 2 * source).tolist() == own_copies.tolist()
        assert rows[is_own].tolist() == own_rows.tolist()
        assert epochs[is_own].tolist() == orders[source].epochs(first, first + int(is_own.sum())).tolist()
    assert np.array_equal(np.stack(mixed.items(1234, 3456)), np.stack([copies, rows])[:, 1234:3456])


def test_rows_ahead_of_a_mixed_order_include_all_rows_in_global_order():
    orders = [TrainingOrder([500], 7, 128), TrainingOrder([90], 7, 128)]
    mixed = MixedOrder(Mixture([Fraction(2), Fraction(1)], [None, 400], 7), orders, [0, 0])
    ahead = set(zip(*(part.tolist() for part in mixed.rows_ahead(100, 900))))
    assert ahead == set(zip(*(part.tolist() for part in mixed.items(100, 900))))

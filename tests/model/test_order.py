import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.draws import EPOCH_ORDER
from model.loading.order import (
    ItemsAhead,
    TrainingOrder,
    WindowOrder,
    parse_shuffle,
    permute,
)
from tests.pipeline.twins import slow_permute


def slow_item(t: int, rows_per_copy: list[int], seed: int, max_seq_length: int) -> tuple[int, int]:
    epoch = 0
    while t >= rows_per_copy[epoch % len(rows_per_copy)]:
        t -= rows_per_copy[epoch % len(rows_per_copy)]
        epoch += 1
    copy = epoch % len(rows_per_copy)
    return copy, slow_permute(t, rows_per_copy[copy], seed, 4, max_seq_length, epoch)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2**63 - 1), st.integers(0, 100))
def test_an_epoch_is_a_permutation_of_the_rows(num_rows, seed, epoch):
    rows = permute(np.arange(num_rows), num_rows, seed, EPOCH_ORDER, 128, epoch)
    assert np.array_equal(np.sort(rows), np.arange(num_rows))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2**40), st.data(), st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_the_permutation_equals_its_twin_at_any_place(num_rows, data, seed, epoch):
    places = data.draw(st.lists(st.integers(0, num_rows - 1), min_size=1, max_size=5))
    rows = permute(np.array(places), num_rows, seed, EPOCH_ORDER, 512, epoch)
    assert rows.tolist() == [slow_permute(i, num_rows, seed, 4, 512, epoch) for i in places]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any), st.integers(0, 60), st.integers(0, 40))
def test_epochs_join_end_to_end_also_where_copies_differ_in_size(rows_per_copy, start, size):
    order = TrainingOrder(rows_per_copy, seed=7, max_seq_length=128)
    copies, rows = order.items(start, start + size)
    expected = [slow_item(t, rows_per_copy, 7, 128) for t in range(start, start + size)]
    assert list(zip(copies.tolist(), rows.tolist())) == expected


def test_any_cut_of_the_items_gives_the_same_items():
    order = TrainingOrder([100, 90], seed=1, max_seq_length=128)
    whole = np.stack(order.items(0, 500))
    pieces = [np.stack(order.items(start, min(start + 37, 500))) for start in range(0, 500, 37)]
    assert np.array_equal(whole, np.concatenate(pieces, axis=1))


def test_items_after_a_million_million_are_found_without_those_before():
    order = TrainingOrder([10**9, 10**9 - 7], seed=1, max_seq_length=128)
    copies, rows = order.items(10**12, 10**12 + 256)
    epoch = order.epoch_of(10**12)
    place = 10**12 - order.epoch_start(epoch)
    assert (copies == epoch % 2).all()
    assert rows[5] == slow_permute(place + 5, [10**9, 10**9 - 7][epoch % 2], 1, 4, 128, epoch)


def test_neighbours_come_from_everywhere():
    rows = permute(np.arange(20000), 65536, 1, EPOCH_ORDER, 128, 0)
    same_group = np.mean(rows[1:] // 1024 == rows[:-1] // 1024)
    assert abs(same_group - 1 / 64) < 0.004


def test_no_rows_at_all_is_refused():
    with pytest.raises(ValueError, match="there are no rows to train on"):
        TrainingOrder([0, 0], seed=1, max_seq_length=128)


# ---- in windows


def slow_windows(sizes: list[int], k: int, seed: int, max_seq_length: int, epoch: int) -> list[int]:
    """The rows of an epoch in order, as docs/shard-format.md has it, word for word."""

    def permute(size: int, *key: int) -> list[int]:
        return [slow_permute(i, size, *key) for i in range(size)]

    members = [list(range(sum(sizes[:m]), sum(sizes[: m + 1]))) for m in range(len(sizes))]
    order = [members[m] for m in permute(len(sizes), seed, 6, max_seq_length, epoch)]
    rows = []
    for w in range(-(-len(order) // k)):
        joined = sum(order[w * k : (w + 1) * k], [])
        rows += [joined[i] for i in permute(len(joined), seed, 7, max_seq_length, epoch, w)]
    return rows


SIZES = st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=3).filter(any)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 14), st.integers(0, 2**63 - 1), st.integers(0, 90), st.integers(0, 90))
def test_windows_equal_their_twin_from_any_item_to_any_item(sizes, k, seed, start, size):
    order = WindowOrder([np.array(members, dtype=np.int64) for members in sizes], seed, 128, k)
    expected = []
    for epoch in range(1000):
        expected += [(epoch % len(sizes), row) for row in slow_windows(sizes[epoch % len(sizes)], k, seed, 128, epoch)]
        if len(expected) >= start + size:
            break
    copies, rows = order.items(start, start + size)
    assert list(zip(copies.tolist(), rows.tolist())) == expected[start : start + size]
    assert copies.dtype == rows.dtype == np.int64


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 40), st.integers(0, 2**63 - 1))
def test_an_epoch_in_windows_is_a_permutation_of_the_rows(sizes, k, seed):
    order = WindowOrder([np.array(sizes)], seed, 128, k)
    for epoch in (0, 1, 10**9):
        rows = order.items(epoch * sum(sizes), (epoch + 1) * sum(sizes))[1]
        assert np.array_equal(np.sort(rows), np.arange(sum(sizes)))


def test_a_window_holds_the_rows_of_its_members_alone():
    sizes = np.full(64, 1024)
    order = WindowOrder([sizes], 1, 128, 16)
    rows = order.items(0, 65536)[1].reshape(4, 16384)
    for window in rows:
        assert len(np.unique(window // 1024)) == 16
        assert abs(np.mean(window[1:] // 1024 == window[:-1] // 1024) - 1 / 16) < 0.008  # mixed within the window
    assert not np.array_equal(order.items(65536, 131072)[1], rows.ravel())  # another epoch, another order


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(1, 14), st.integers(0, 50), st.integers(1, 50))
def test_the_rows_ahead_stand_for_every_member_that_the_items_need(sizes, k, start, size):
    order = WindowOrder([np.array(members, dtype=np.int64) for members in sizes], 3, 128, k)

    def members(copies: np.ndarray, rows: np.ndarray) -> list[tuple[int, int]]:
        ends = [np.cumsum(members) for members in sizes]
        return [(c, int(np.searchsorted(ends[c], r, side="right"))) for c, r in zip(copies.tolist(), rows.tolist())]

    needed, ahead = members(*order.items(start, start + size)), members(*order.rows_ahead(start, start + size))
    assert set(needed) <= set(ahead)


def test_items_after_a_million_million_in_windows_are_found_without_those_before():
    sizes = [np.full(10**6, 1024)]
    whole = np.stack(WindowOrder(sizes, 1, 128, 16).items(10**12, 10**12 + 512))
    assert np.unique(whole[1]).size == 512 and whole.min() >= 0 and whole[1].max() < 1024 * 10**6
    assert np.array_equal(np.stack(WindowOrder(sizes, 1, 128, 16).items(10**12 + 256, 10**12 + 512)), whole[:, 256:])


@pytest.mark.parametrize("shuffle", ["window", "window:0", "window:-3", "window:x", "none", "", "global:3"])
def test_what_is_no_shuffle_is_refused(shuffle):
    with pytest.raises(ValueError, match="expected global, or window:16"):
        parse_shuffle(shuffle)


@pytest.mark.parametrize("order", [TrainingOrder([100, 90], 1, 128), WindowOrder([np.full(10, 10)], 1, 128, 3)])
def test_items_worked_out_ahead_are_the_same_items(order, monkeypatch):
    monkeypatch.setattr("model.loading.order.ITEMS_AHEAD", 50)
    ahead = ItemsAhead(order)
    for start, stop in ((0, 7), (7, 20), (45, 60), (60, 61), (3, 5), (0, 300), (290, 300)):
        assert np.array_equal(np.stack(ahead.items(start, stop)), np.stack(order.items(start, stop)))

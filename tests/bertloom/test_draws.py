import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertloom import draws as randomness
from tests.pipeline import twins

U64 = st.integers(0, 2**64 - 1)
SHARES = st.sampled_from([0.0, 1e-05, 0.01, 0.1, 0.15, 0.5, 0.8, 1.0])


def test_the_draws_of_a_key_are_the_stream_of_splitmix64():
    """Seed 1234567: the first five numbers, as many implementations print them."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert randomness.draw(np.array([1234567], np.uint64), np.arange(5)).tolist() == expected
    assert [twins.draw(1234567, j) for j in range(5)] == expected


@given(st.lists(U64, min_size=1))
def test_mix_equals_its_twin(values):
    assert randomness.mix(np.array(values, np.uint64)).tolist() == [twins.mix(value) for value in values]


@given(values=st.lists(U64, max_size=20), size=st.integers(1, 5))
def test_mix_equals_its_twin_in_slices_of_any_size(values, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(randomness, "_MIXED_ITEMS", size)
        assert randomness.mix(np.array(values, np.uint64)).tolist() == [twins.mix(value) for value in values]


def test_mix_leaves_its_argument_alone():
    values = np.array([1, 2, 3], np.uint64)
    randomness.mix(values)
    assert values.tolist() == [1, 2, 3]


def test_mix_sends_no_two_numbers_to_one():
    """It is a bijection; here on a few thousand neighbours."""
    assert len(set(randomness.mix(np.arange(5000)).tolist())) == 5000


@given(st.lists(U64, max_size=6))
def test_fold_equals_its_twin(values):
    assert randomness.fold(*values).tolist() == [twins.fold(*values)]


@given(U64, st.lists(st.tuples(U64, U64), min_size=1))
def test_fold_broadcasts_arrays_over_single_numbers(seed, rows):
    documents, sentences = (np.array(column, np.uint64) for column in zip(*rows))
    keys = randomness.fold(seed, 1, documents, sentences)
    assert keys.tolist() == [twins.fold(seed, 1, document, sentence) for document, sentence in rows]


def test_the_order_of_what_is_folded_matters():
    assert randomness.fold(1, 2) != randomness.fold(2, 1)
    assert randomness.fold(1) != randomness.fold(1, 0)


@given(st.lists(U64, min_size=1), st.integers(0, 1000))
def test_draw_equals_its_twin(keys, j):
    assert randomness.draw(np.array(keys, np.uint64), j).tolist() == [twins.draw(key, j) for key in keys]


@given(st.lists(st.tuples(U64, st.integers(1, 2**32 - 1)), min_size=1))
def test_bounded_integers_equal_their_twins_and_stay_in_range(rows):
    draws, bounds = (np.array(column, np.uint64) for column in zip(*rows))
    upper, lower = randomness.bounded(draws, bounds).tolist(), randomness.bounded_low(draws, bounds).tolist()
    assert upper == [twins.bounded(d, n) for d, n in rows]
    assert lower == [twins.bounded_low(d, n) for d, n in rows]
    assert all(0 <= value < n for value, (_, n) in zip(upper + lower, rows + rows))


@given(st.lists(U64, min_size=1), SHARES)
def test_chance_equals_its_twin(draws, probability):
    assert randomness.chance(np.array(draws, np.uint64), probability).tolist() == [
        twins.chance(d, probability) for d in draws
    ]


def test_chance_is_never_at_0_and_always_at_1():
    extremes = np.array([0, 2**64 - 1], np.uint64)
    assert randomness.chance(extremes, 0.0).tolist() == [False, False]
    assert randomness.chance(extremes, 1.0).tolist() == [True, True]


@pytest.mark.parametrize(
    "probability, bits, expected",
    [(0.1, 32, 429496729), (0.15, 32, 644245094), (0.01, 64, 184467440737095516), (1.0, 32, 2**32), (1e-05, 32, 42949)],
)
def test_a_threshold_is_that_of_the_decimal_as_written(probability, bits, expected):
    """0.01 as a float is a little more than a hundredth; 2^64 shows the difference."""
    assert randomness.threshold(probability, bits) == expected


def test_a_purpose_keeps_its_number():
    """They are part of the format: another number would be other shards."""
    numbers = randomness.PAIRS, randomness.MASKS, randomness.SHARD_ORDER, randomness.SURPLUS
    assert numbers == (twins.PAIRS, twins.MASKS, twins.SHARD_ORDER, twins.SURPLUS)
    assert int(randomness.VALIDATION).to_bytes(8, "big") == b"validate"


@given(st.lists(U64, min_size=1, max_size=6))
def test_fold_int_is_fold_as_an_integer(values):
    assert randomness.fold_int(*values) == twins.fold(*values)


def test_mix_in_place_overwrites_its_argument():
    values = np.array([1, 2], np.uint64)
    assert randomness.mix_in_place(values) is values and values.tolist() == [twins.mix(1), twins.mix(2)]

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.tasks.data import DataBuilder, Windowing, best_windows
from tests.model.small_task import small_tokenizer


def windowing(**changes) -> Windowing:
    return Windowing(**{"max_seq_length": 8, "stride": None, "max_windows": None} | changes)


@given(st.integers(0, 60), st.integers(1, 20), st.one_of(st.none(), st.integers(1, 20)))
def test_windows_cover_every_token_are_full_and_begin_a_stride_apart(num_tokens, room, stride):
    windows = windowing(stride=stride).windows(num_tokens, room)
    assert windows[0][0] == 0 and windows[-1][1] == num_tokens
    for begin, end in windows:
        assert end - begin == min(room, num_tokens)
    for (first, _), (second, _) in zip(windows, windows[1:-1]):
        assert second - first == min(stride or max(1, room // 2), room)
    for (_, end), (begin, _) in zip(windows, windows[1:]):
        assert begin <= end, "nothing lies between two windows"
    assert windowing(stride=stride, max_windows=2).windows(num_tokens, room) == windows[:2]


@given(st.integers(1, 60), st.integers(1, 20))
def test_the_best_window_is_that_of_run_squad(num_tokens, room):
    """The twin: google-research/bert's _check_is_max_context, but for the length, which is the same in all of ours."""
    windows = windowing().windows(num_tokens, room)
    best = best_windows(windows, num_tokens)
    for token in range(num_tokens):
        scores = {}
        for number, (begin, end) in enumerate(windows):
            if begin <= token < end:
                scores[number] = min(token - begin, end - 1 - token)
        assert best[token] == min(number for number in scores if scores[number] == max(scores.values()))
    assert (np.diff(best) >= 0).all(), "windows follow each other"


def test_tokens_after_the_last_window_belong_to_no_window():
    assert best_windows([(0, 3)], 5).tolist() == [0, 0, 0, -1, -1]


@pytest.fixture
def data():
    """Three items: of one, two, and one sequence, with one, two and no targets at positions."""
    builder = DataBuilder(small_tokenizer())
    builder.add_sequence(np.array([10, 11]))
    builder.add_item(0, 1, np.array([2]))
    builder.add_sequence(np.array([20]), np.array([21, 22]))
    builder.add_sequence(np.array([30]))
    builder.add_item(1, 2, np.array([1, 7]))
    builder.add_sequence(np.array([40, 41, 42]))
    builder.add_item(2, 0, np.array([], dtype=int))
    return replace(builder.build(np.array([5, 6, 7])), weights=np.array([1, 2, 3], dtype=np.float32))


def test_a_batch_holds_the_sequences_of_its_items_in_their_order(data):
    batch = data.batch(np.array([1, 2, 0]))
    assert [part.tolist() for part in batch.input_ids.split(batch.lengths)] == [
        [2, 20, 3, 21, 22, 3],
        [2, 30, 3],
        [2, 40, 41, 42, 3],
        [2, 10, 11, 3],
    ]
    assert batch.token_type_ids.split(batch.lengths)[0].tolist() == [0, 0, 0, 1, 1, 1]
    assert not any(part.any() for part in batch.token_type_ids.split(batch.lengths)[1:])
    assert batch.position_ids.split(batch.lengths)[1].tolist() == [0, 1, 2]
    assert batch.item_of.tolist() == [0, 0, 1, 2] and batch.num_items == 3
    assert batch.labels.tolist() == [6, 7, 5] and batch.weights.tolist() == [2, 3, 1]
    assert batch.input_ids[batch.positions].tolist() == [20, 30, 11]
    assert data.num_tokens(np.array([0, 1, 2])).tolist() == [4, 9, 5]


def test_token_ids_take_two_bytes_each(data):
    assert data.input_ids.dtype == np.uint16 and data.batch(np.array([0])).input_ids.dtype == torch.int64


def test_a_stride_is_at_most_the_room_so_that_no_text_is_skipped():
    assert windowing(stride=9).windows(14, 6) == [(0, 6), (6, 12), (8, 14)]

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.distributed import Ranks
from model.loading.batches import BatchReader, global_batch
from model.loading.data import DataSet
from model.loading.data_sets import DataSets
from model.loading.order import TrainingOrder
from model.loading.stream import START, Leg, extend, list_sums, list_weights, row_hashes, rows_sum
from tests.pipeline.twins import WRAP, draw, fold


def slow_hash(place: int, row: dict) -> int:
    """docs/training.md, word for word, in Python's integers."""

    def of_list(column: int, values: list[int]) -> int:
        return sum(v * (draw(column, j) | 1) for j, v in enumerate(values)) & WRAP

    return fold(
        place,
        len(row["input_ids"]),
        row["segment_b_start"],
        len(row["positions"]),
        row["label"],
        of_list(1, row["input_ids"]),
        of_list(2, row["positions"]),
        of_list(3, row["masked_ids"]),
    )


ROWS = [
    {"input_ids": [2, 9, 3, 7, 3], "segment_b_start": 3, "positions": [1, 3], "masked_ids": [8, 7], "label": 1},
    {"input_ids": [2, 3], "segment_b_start": 2, "positions": [], "masked_ids": [], "label": -1},
    {"input_ids": [2, 65535, 3], "segment_b_start": 3, "positions": [1], "masked_ids": [11], "label": 0},
]


def columns(rows: list[dict]) -> dict[str, np.ndarray]:
    sums = []
    for number, name in enumerate(("input_ids", "positions", "masked_ids"), 1):
        longest = max(len(row[name]) for row in rows)
        sums.append(
            list_sums(number, np.array([row[name] + [0] * (longest - len(row[name])) for row in rows], np.uint32))
        )
    return {
        "list_sums": np.stack(sums),
        "lengths": np.array([len(row["input_ids"]) for row in rows]),
        "num_masks": np.array([len(row["positions"]) for row in rows]),
        "segment_b_start": np.array([row["segment_b_start"] for row in rows]),
        "labels": np.array([row["label"] for row in rows]),
    }


def test_the_hash_of_a_row_equals_its_twin_and_a_literal():
    hashes = row_hashes(columns(ROWS), np.array([5, 0, 9])).tolist()
    assert hashes == [slow_hash(5, ROWS[0]), slow_hash(0, ROWS[1]), slow_hash(9, ROWS[2])]
    assert hex(hashes[0]) == "0xb08c8191a5440410"


def test_long_lists_have_weights_of_their_own_and_short_ones_keep_theirs():
    before = list_weights(1, 10)[:10].tolist()
    assert len(list_weights(1, 3000)) >= 3000
    assert list_weights(1, 10)[:10].tolist() == before
    assert len(set(list_weights(1, 3000).tolist()) | set(list_weights(2, 3000).tolist())) >= 6000


@pytest.mark.parametrize("name, index", [("input_ids", 1), ("positions", 0), ("masked_ids", 1)])
def test_every_value_and_the_place_matter(name, index):
    changed = dict(ROWS[0], **{name: [value ^ 1 if i == index else value for i, value in enumerate(ROWS[0][name])]})
    places = np.array([0])
    whole = rows_sum(columns([ROWS[0]]), places)
    assert rows_sum(columns([changed]), places) != whole
    assert rows_sum(columns([dict(ROWS[0], label=0)]), places) != whole
    assert rows_sum(columns([dict(ROWS[0], segment_b_start=2)]), places) != whole
    assert rows_sum(columns([ROWS[0]]), places + 1) != whole


def test_the_sum_of_a_batch_does_not_depend_on_who_reads_what(data_set):
    examples = DataSet(data_set).examples("train", 32)
    order = TrainingOrder(examples.rows_per_copy, 1, 32)
    sums = set()
    for micro_batch_size, num_ranks in ((50, 1), (7, 1), (7, 2), (4, 4), (1, 64)):
        shares = [global_batch(examples, order, 1490, 50, micro_batch_size, r, num_ranks) for r in range(num_ranks)]
        assert len({(share.num_tokens, share.num_masked, share.num_pairs) for share in shares}) == 1
        assert sum(len(part.lengths) for share in shares for part in share.micro_batches) == 50
        sums.add(sum(share.stream_sum for share in shares) & WRAP)
    assert len(sums) == 1
    assert global_batch(examples, order, 1491, 50, 50).stream_sum not in sums


def test_steps_are_chained_and_their_order_matters():
    assert extend(START, 1) == f"{fold(0, 1):016x}"
    assert extend(extend(START, 1), 2) != extend(extend(START, 2), 1)


def test_a_leg_counts_on_from_its_first_item():
    leg = Leg(step=10, max_seq_length=64, item=1000, batch_size=8, seed=1, shards_digest="")
    assert (leg.item_at(10), leg.item_at(13)) == (1000, 1024)


def test_a_prefetched_batch_is_the_one_that_is_asked_for_or_is_read_anew(data_set):
    ranks = Ranks(device=torch.device("cpu"))
    leg = Leg(step=0, max_seq_length=64, item=0, batch_size=8, seed=1, shards_digest="")
    with BatchReader(DataSets({"": DataSet(data_set)}), [leg, replace(leg, max_seq_length=32)], 8, ranks) as reader:
        assert reader.micro_batch_sizes == {32: 8, 64: 4}
        first, second = (reader.read(leg, step).stream_sum for step in (0, 1))
        reader.prefetch(leg, 1)
        assert reader.read(leg, 1).stream_sum == second
        reader.prefetch(leg, 1)
        assert reader.read(leg, 0).stream_sum == first
        assert reader.read(leg, 1).stream_sum == second
        reader.prefetch(leg, 2)  # and never asked for


def test_an_order_worked_out_ahead_is_the_order(data_set, monkeypatch):
    monkeypatch.setattr("model.loading.order.ITEMS_AHEAD", 40)
    leg = Leg(step=3, max_seq_length=32, item=1000, batch_size=16, seed=1, shards_digest="")
    examples = DataSet(data_set).examples("train", 32)
    with BatchReader(DataSets({"": DataSet(data_set)}), [leg], 16, Ranks(device=torch.device("cpu"))) as reader:
        for step in (3, 4, 5, 60, 61, 4, 3000, 62):
            expected = global_batch(examples, examples.order(1, "global"), leg.item_at(step), 16, 16)
            assert reader.read(leg, step).stream_sum == expected.stream_sum


def test_rows_have_a_number_in_the_whole_data_set(data_set):
    set_ = DataSet(data_set)
    before = sum(row["examples"] for row in set_.shards.to_pylist() if row["max_seq_length"] == 32)
    before -= sum(row["examples"] for row in set_.shards.to_pylist() if row["split"] == "validation") // 2
    examples = set_.examples("train", 64)
    assert examples.indices(np.array([0, 1]), np.array([5, 7])).tolist() == [before + 5, before + 1500 + 7]

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.batch import PackedBatch
from model.distributed import Ranks
from model.loading.batches import BatchReader
from model.loading.data import DataSet
from model.loading.data_sets import DataSets
from model.loading.order import TrainingOrder
from model.loading.remask import NEW_MASKS, EpochMasks, Remasking, example_keys, remasking_of
from model.loading.stream import Leg
from tests.model.synthetic import NUM_WORDS, write_manifest
from tests.pipeline.twins import WRAP, draw, fold

CLS, SEP, MASK_ID = 2, 3, 4
WORDS = list(range(5, 5 + NUM_WORDS))
REMASKING = Remasking(
    mask_id=MASK_ID,
    words=np.array(WORDS),
    mask_below=int(0.8 * 2**32),
    random_below=int(0.8 * 2**32) + int(0.1 * 2**32),
    masked_lm_prob=0.15,
    max_predictions={32: 6, 64: 11},
)


def floor_of_half_up(length: int, rate: float) -> int:
    return (length * Fraction(str(rate)) + Fraction(1, 2)).__floor__()


def slow_masks(row: dict, key: int, max_seq_length: int, rate: float | None = None) -> dict:
    """One example with new masks, in Python's integers and lists; docs/training.md, "Masks drawn again", word for word."""
    ids = list(row["input_ids"])
    for position, word in zip(row["positions"], row["masked_ids"]):
        ids[position] = word
    separators = {0, len(ids) - 1} | ({row["segment_b_start"] - 1} if row["segment_b_start"] < len(ids) else set())
    candidates = [position for position in range(len(ids)) if position not in separators]
    count, taken = len(row["positions"]), set()
    if rate is not None:
        most = REMASKING.max_predictions[max_seq_length] if rate == 0.15 else floor_of_half_up(max_seq_length, rate) + 1
        count = min(most, max(1, floor_of_half_up(len(ids), rate)), len(candidates))
    for j in range(count):
        last = len(candidates) - count + j
        number = (draw(key, j) >> 32) * (last + 1) >> 32
        taken.add(last if number in taken else number)
    positions = [candidates[number] for number in sorted(taken)]
    true = [ids[position] for position in positions]
    for r, position in enumerate(positions):
        upper, lower = divmod(draw(key, max_seq_length + r), 2**32)
        if upper < REMASKING.mask_below:
            ids[position] = MASK_ID
        elif upper < REMASKING.random_below:
            ids[position] = WORDS[lower * len(WORDS) >> 32]
    return {**row, "input_ids": ids, "positions": positions, "masked_ids": true}


def columns(rows: list[dict]) -> dict[str, np.ndarray]:
    flat = {
        name: np.array([value for row in rows for value in row[name]], dtype=np.uint16)
        for name in ("input_ids", "positions", "masked_ids")
    }
    return flat | {
        "lengths": np.array([len(row["input_ids"]) for row in rows]),
        "num_masks": np.array([len(row["positions"]) for row in rows]),
        "segment_b_start": np.array([row["segment_b_start"] for row in rows]),
        "labels": np.zeros(len(rows), dtype=np.int64),
    }


@st.composite
def examples(draw_from):
    a = draw_from(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30))
    b = draw_from(st.lists(st.sampled_from(WORDS), max_size=30))
    ids = [CLS, *a, SEP, *([*b, SEP] if b else [])]
    places = [position for position, word in enumerate(ids) if word not in (CLS, SEP)]
    positions = sorted(draw_from(st.sets(st.sampled_from(places), max_size=len(places))))
    masked = [ids[position] for position in positions]
    for position in positions:
        ids[position] = draw_from(st.sampled_from([MASK_ID, *WORDS]))
    return {"input_ids": ids, "segment_b_start": len(a) + 2, "positions": positions, "masked_ids": masked}


@settings(max_examples=200)
@given(
    st.lists(st.tuples(examples(), st.integers(0, 2**64 - 1)), min_size=1, max_size=6),
    st.one_of(st.none(), st.just(0.15), st.integers(1, 1000).map(lambda number: number / 1000)),
)
def test_new_masks_equal_their_twin_example_by_example(drawn, rate):
    rows, keys = zip(*drawn)
    before = columns(rows)
    untouched = {name: value.copy() for name, value in before.items()}
    counts = None if rate is None else REMASKING.counts(64, rate)
    keys_of = np.array(keys, dtype=np.uint64)
    masks = EpochMasks(keys=keys_of, max_seq_length=64, remasking=REMASKING, counts=counts)
    found = masks.put_on(before, np.arange(len(rows)))
    expected = columns([slow_masks(row, key, 64, rate) for row, key in zip(rows, keys)])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        np.testing.assert_array_equal(before[name], untouched[name], err_msg=name)  # what was read stays as it was
        assert found[name].dtype == value.dtype


def test_keys_are_of_the_seed_the_length_the_epoch_and_the_row():
    keys = example_keys(7, 128, np.array([0, 0, 1]), np.array([3, 4, 3]))
    assert keys.tolist() == [fold(7, NEW_MASKS, 128, epoch, row) for epoch, row in ((0, 3), (0, 4), (1, 3))]


def test_every_item_has_its_epoch():
    order = TrainingOrder([5, 0, 3], seed=1, max_seq_length=32)
    assert (
        order.epochs(3, 12).tolist() == [order.epoch_of(item) for item in range(3, 12)] == [0, 0, 2, 2, 2, 3, 3, 3, 3]
    )


def read(
    data: Path,
    steps: range,
    micro_batch_size: int = 16,
    num_ranks: int = 1,
    rate: float | None = None,
    **options,
) -> tuple[dict, dict]:
    """By (step, copy, row): an example's tokens, masked positions and true words; and by step the stream sums."""
    leg = Leg(step=0, max_seq_length=32, item=0, batch_size=16, seed=1, shards_digest="", masked_lm_prob=rate)
    found, sums, counted = {}, dict.fromkeys(steps, 0), {step: set() for step in steps}
    for rank in range(num_ranks):
        ranks = Ranks(device=torch.device("cpu"), rank=rank, size=num_ranks)
        with BatchReader(DataSets({"": DataSet(data)}), [leg], micro_batch_size, ranks, **options) as reader:
            for step in steps:
                batch = reader.read(leg, step)
                sums[step] += batch.stream_sum
                counted[step].add(batch.num_masked)
                for part in batch.micro_batches:
                    for row, example in zip(part.rows.tolist(), split(part)):
                        found[step, *row] = example
    for step in steps:  # every rank knows the number of masks of the whole batch
        assert counted[step] == {sum(len(masks) for key, (_, masks) in found.items() if key[0] == step)}
    return found, {step: total & WRAP for step, total in sums.items()}


def split(batch: PackedBatch) -> list[tuple]:
    """Tokens, masked positions and true words of each example."""
    edges = batch.cu_seqlens.tolist()
    masked = list(zip(batch.masked_positions.tolist(), batch.masked_ids.tolist()))
    return [
        (batch.input_ids[start:end].tolist(), [(p - start, word) for p, word in masked if start <= p < end])
        for start, end in zip(edges, edges[1:])
    ]


def test_masks_do_not_depend_on_ranks_micro_batches_or_where_reading_began(data_set):
    remasking = remasking_of(DataSet(data_set))
    whole, sums = read(data_set, range(3, 6), remasking=remasking)
    assert read(data_set, range(3, 6), 5, remasking=remasking) == (whole, sums)
    assert read(data_set, range(3, 6), 4, 3, remasking=remasking) == (whole, sums)
    later, _ = read(data_set, range(5, 6), remasking=remasking)
    assert later == {key: example for key, example in whole.items() if key[0] == 5}

    plain, plain_sums = read(data_set, range(3, 6))
    assert plain_sums == sums  # the digest is of the rows as they were read
    for key, (ids, masks) in plain.items():
        true, new = dict(masks), dict(whole[key][1])
        assert len(new) == len(true)
        for position, (old, now) in enumerate(zip(ids, whole[key][0])):
            assert new.get(position, now) == true.get(position, old)
    assert sum(masks != whole[key][1] for key, (_, masks) in plain.items()) > 40


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0])
def test_a_rate_changes_the_number_of_masks_and_nothing_else(data_set, rate):
    remasking = remasking_of(DataSet(data_set))
    plain, plain_sums = read(data_set, range(3, 6))
    found, sums = read(data_set, range(3, 6), remasking=remasking, rate=rate)
    assert sums == plain_sums and found.keys() == plain.keys()
    assert read(data_set, range(3, 6), 5, 3, remasking=remasking, rate=rate) == (found, sums)
    for key, (ids, masks) in plain.items():
        true, new = dict(masks), dict(found[key][1])
        most = len(ids) - sum(word in (CLS, SEP) for word in ids)
        assert len(new) == min(max(1, floor_of_half_up(len(ids), rate)), floor_of_half_up(32, rate) + 1, most)
        for position, (old, now) in enumerate(zip(ids, found[key][0])):
            assert new.get(position, now) == true.get(position, old)


def test_at_the_rate_of_the_data_set_the_masks_are_the_same_as_without_a_rate(data_set):
    remasking = remasking_of(DataSet(data_set))
    assert read(data_set, range(6), remasking=remasking, rate=0.15) == read(data_set, range(6), remasking=remasking)


def test_the_most_masks_of_an_example_are_those_of_the_manifest_only_at_its_own_rate():
    few = replace(REMASKING, max_predictions={32: 2})
    assert few.counts(32, 0.15).tolist() == [1] * 10 + [2] * 23
    assert few.counts(32, 0.3)[[5, 10, 32]].tolist() == [2, 3, 10]
    assert REMASKING.counts(128, 0.3)[128] == 38  # a length without an entry, too


def test_masks_at_a_rate_are_uniform_and_become_what_the_data_set_asks_for(data_set):
    """Every place is masked equally often; chi-squared with 19 degrees of freedom, one in a thousand."""
    n = 10_000
    row = {"input_ids": [CLS, *[5] * 12, SEP, *[5] * 8, SEP], "segment_b_start": 14, "positions": [], "masked_ids": []}
    before = columns([row] * n)
    for rate, count in ((0.05, 1), (0.3, 7)):
        keys = example_keys(1, 32, np.arange(n) // 100, np.arange(n) % 100)
        masks = EpochMasks(keys=keys, max_seq_length=32, remasking=REMASKING, counts=REMASKING.counts(32, rate))
        found = masks.put_on(before, np.arange(n))
        assert set(found["num_masks"].tolist()) == {count}
        numbers = found["positions"] - 1 - (found["positions"] >= 14)
        expected = n * count / 20
        assert ((np.bincount(numbers, minlength=20) - expected) ** 2 / expected).sum() < 43.8
        now = found["input_ids"].reshape(n, 23)[np.repeat(np.arange(n), count), found["positions"]]
        assert np.mean(now == MASK_ID) == pytest.approx(0.8, abs=4 * (0.16 / n / count) ** 0.5)
        assert np.mean(now == 5) == pytest.approx(0.1 + 0.1 / len(WORDS), abs=4 * (0.09 / n / count) ** 0.5)


def test_padded_batches_have_room_for_the_masks_of_their_rate(data_set):
    ranks = Ranks(device=torch.device("cpu"))
    found = DataSet(data_set)
    values = {"step": 0, "max_seq_length": 32, "item": 0, "batch_size": 64, "seed": 1}
    legs = [Leg(**values, shards_digest=found.shards_digest, masked_lm_prob=rate) for rate in (0.3, 0.15, 0.05, None)]
    with BatchReader(DataSets({"": found}), legs, 64, ranks, remasking_of(found)) as reader:
        shapes = reader.pad_batches()
        assert len(shapes) == 4 and len({shape.num_tokens for shape in shapes}) == 1
        for leg, shape in zip(legs, shapes):
            for step in range(8):
                batch = reader.read(leg, step)
                assert [len(part.masked_ids) for part in batch.micro_batches] == [shape.num_masked]
                assert batch.num_masked <= shape.num_masked
        sizes = [shape.num_masked for shape in shapes]
        assert sizes[0] > sizes[1] > sizes[2] and sizes[3] == sizes[1]


def test_the_same_row_has_other_masks_in_another_epoch(data_set):
    examples = DataSet(data_set).examples("train", 32)
    rows = np.arange(1500)
    before = examples.read(np.zeros_like(rows), rows)
    drawn = []
    for epoch in (0, 2):
        keys = example_keys(1, 32, np.full(1500, epoch), rows)
        drawn.append(EpochMasks(keys=keys, max_seq_length=32, remasking=REMASKING).put_on(before, rows))
    assert not np.array_equal(drawn[0]["positions"], drawn[1]["positions"])
    for found in drawn:
        starts = np.repeat(np.cumsum(found["lengths"]) - found["lengths"], found["num_masks"])
        now = found["input_ids"][starts + found["positions"]]
        assert np.mean(now == MASK_ID) == pytest.approx(0.8, abs=0.03)
        assert np.mean(now == found["masked_ids"]) == pytest.approx(0.1 + 0.1 / len(WORDS), abs=0.02)
        assert set(np.unique(now)) == {MASK_ID, *WORDS}


def edited(data_set: Path, folder: Path, **changes) -> DataSet:
    data = Path(shutil.copytree(data_set, folder))
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["configuration"] |= changes
    write_manifest(data, manifest)
    return DataSet(data)


def test_the_words_and_shares_come_from_the_data_set(data_set, tmp_path):
    found = remasking_of(edited(data_set, tmp_path / "set", mask_token_prob=0.5, random_token_prob=0.25))
    assert (found.mask_id, found.words.tolist()) == (MASK_ID, WORDS)
    assert (found.mask_below, found.random_below) == (2**31, 3 * 2**30)


@pytest.mark.parametrize(
    ("masking", "scheme"),
    [
        ({"scheme": "whole_word", "can_be_redrawn": False}, "'whole_word'"),
        ({"scheme": "of_another_year", "can_be_redrawn": False}, "'of_another_year'"),
    ],
)
def test_masks_are_redrawn_only_where_the_manifest_says_that_they_can_be(data_set, tmp_path, masking, scheme):
    data = Path(shutil.copytree(data_set, tmp_path / "set"))
    manifest = json.loads((data / "manifest.json").read_text())
    write_manifest(data, manifest | {"masking": masking})
    with pytest.raises(ValueError, match=rf"remask: the masks of .*set have the scheme {scheme}, .*: the 2 copies of"):
        remasking_of(DataSet(data))


@pytest.mark.parametrize(
    ("masking", "lost"), [({"scheme": "of_another_year"}, "masking.can_be_redrawn"), (None, "masking")]
)
def test_a_manifest_that_does_not_say_how_its_masks_were_drawn_is_refused(data_set, tmp_path, masking, lost):
    data = Path(shutil.copytree(data_set, tmp_path / "set"))
    manifest = json.loads((data / "manifest.json").read_text())
    del manifest["masking"]
    write_manifest(data, manifest | ({"masking": masking} if masking else {}))
    with pytest.raises(ValueError, match=rf"manifest.json has lost a part: it has no {lost}; copy it again"):
        DataSet(data)


def test_an_example_that_cannot_be_is_refused():
    row = {"input_ids": [2, 4, 3], "segment_b_start": 3, "positions": [1, 1], "masked_ids": [5, 5]}
    masks = EpochMasks(keys=np.zeros(1, dtype=np.uint64), max_seq_length=8, remasking=REMASKING)
    with pytest.raises(ValueError, match="an example has more masks than tokens, .* run `bertloom verify`"):
        masks.put_on(columns([row]), np.arange(1))

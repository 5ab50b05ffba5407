import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.batch import PackedBatch
from model.loading import members
from model.loading.batches import cut_by_length, global_batch
from model.loading.data import DataSet
from model.loading.order import TrainingOrder
from model.packing import flat_ranges
from tests.model.seen_from_outside import num_mapped
from tests.model.synthetic import place_of, write_data_set, write_manifest


def slow_rows(directory: Path, split: str, max_seq_length: int, copy: int) -> list[dict]:
    """Every row of a copy in the order of training, by plain pyarrow."""
    rows = []
    for shard in pq.read_table(directory / "shards.parquet").to_pylist():
        if (shard["split"], shard["max_seq_length"], shard["copy"]) == (split, max_seq_length, copy):
            content = (directory / shard["path"]).read_bytes()
            for offset, size in zip(shard["member_offsets"], shard["member_bytes"]):
                rows += pa.ipc.open_file(content[offset : offset + size]).read_all().to_pylist()
    return rows


def assert_batch_is(batch: PackedBatch, rows: list[dict]) -> None:
    """The batch holds these rows, one after the other: the obvious way to say it."""
    ids, types, places, masks, true_ids, ends = [], [], [], [], [], [0]
    for row in rows:
        size = len(row["input_ids"])
        masks += [ends[-1] + position for position in row["masked_lm_positions"]]
        true_ids += row["masked_lm_ids"]
        ids += row["input_ids"]
        types += [int(i >= row["segment_b_start"]) for i in range(size)]
        places += range(size)
        ends.append(ends[-1] + size)
    assert batch.input_ids.tolist() == ids
    assert batch.token_type_ids.tolist() == types
    assert batch.position_ids.tolist() == places
    assert batch.masked_positions.tolist() == masks
    assert batch.masked_ids.tolist() == true_ids
    assert batch.next_sentence_label.tolist() == [row["next_sentence_label"] for row in rows]
    assert batch.lengths == [len(row["input_ids"]) for row in rows]
    assert batch.cu_seqlens.tolist() == ends and batch.cu_seqlens.dtype == torch.int32
    assert {x.dtype for x in (batch.input_ids, batch.token_type_ids, batch.position_ids)} == {torch.int64}
    assert {x.dtype for x in (batch.masked_positions, batch.masked_ids, batch.next_sentence_label)} == {torch.int64}


def test_any_rows_in_any_order_equal_those_read_by_plain_pyarrow(data_set):
    examples = DataSet(data_set).examples("train", 64)
    rows = [slow_rows(data_set, "train", 64, copy) for copy in (0, 1)]
    assert examples.rows_per_copy == [len(rows[0]), len(rows[1])] == [1500, 1100]
    draw = np.random.default_rng(1)
    for size in (1, 7, 300):
        copies = draw.integers(0, 2, size)
        numbers = draw.integers(0, 1100, size)
        batch = examples.gather(copies, numbers)
        assert_batch_is(batch, [rows[copy][number] for copy, number in zip(copies, numbers)])
        assert batch.rows.tolist() == np.stack([copies, numbers], axis=1).tolist()


def test_ids_of_32_bits_are_read_too(tmp_path):
    write_data_set(tmp_path, rows=(70,), num_validation=0, id_type=pa.uint32())
    rows = slow_rows(tmp_path, "train", 32, 0)
    batch = DataSet(tmp_path).examples("train").gather(np.zeros(70, dtype=np.int64), np.arange(70)[::-1])
    assert_batch_is(batch, rows[::-1])


def test_members_of_more_than_one_size_and_few_shards_mapped_at_once(tmp_path, monkeypatch):
    write_data_set(tmp_path, rows=(2500, 30), num_shards=2, num_validation=0)  # 1,024 + 226 rows in a shard
    monkeypatch.setattr(members, "MAX_MAPPED", 1)
    examples = DataSet(tmp_path).examples("train")
    rows = [slow_rows(tmp_path, "train", 32, copy) for copy in (0, 1)]
    copies, numbers = np.array([0, 1, 0, 0, 1, 0]), np.array([2499, 29, 0, 1250, 3, 1023])
    for copy, number in zip(copies, numbers):
        assert_batch_is(examples.gather(np.array([copy]), np.array([number])), [rows[copy][number]])
        assert num_mapped(tmp_path) == 1
    assert_batch_is(examples.gather(copies, numbers), [rows[c][n] for c, n in zip(copies, numbers)])


def test_more_rows_than_are_read_in_one_go(data_set, monkeypatch):
    examples = DataSet(data_set).examples("train", 64)
    copies, numbers = np.arange(700) % 2, np.arange(700)[::-1] + 0
    whole = examples.gather(copies, numbers)
    monkeypatch.setattr(members, "ROWS_AT_ONCE", 64)
    assert examples.gather(copies, numbers).input_ids.equal(whole.input_ids)


def test_mapped_shards_hold_no_file_open(tmp_path):
    write_data_set(tmp_path, rows=(40,), num_shards=20, num_validation=0)
    before = len(os.listdir("/proc/self/fd"))
    examples = DataSet(tmp_path).examples("train")
    examples.gather(np.zeros(40, dtype=np.int64), np.arange(40))
    assert num_mapped(tmp_path) == 20
    assert len(os.listdir("/proc/self/fd")) == before


def test_validation_is_read_in_order_up_to_a_bound(data_set):
    examples = DataSet(data_set).examples("validation", 32)
    rows = slow_rows(data_set, "validation", 32, 0)
    batches = list(examples.in_order(64, limit=150))
    assert [len(batch.lengths) for batch in batches] == [64, 64, 22]
    for start, batch in zip((0, 64, 128), batches):
        assert_batch_is(batch, rows[start : start + len(batch.lengths)])
    assert sum(len(batch.lengths) for batch in examples.in_order(64)) == 200


def test_a_global_batch_holds_the_items_of_the_order_each_once(data_set):
    examples = DataSet(data_set).examples("train", 32)
    order = TrainingOrder(examples.rows_per_copy, 5, 32)
    batch = global_batch(examples, order, 1480, 50, 16)  # over the border of two epochs
    expected = np.stack(order.items(1480, 1530), axis=1)
    found = np.concatenate([part.rows for part in batch.micro_batches])
    assert sorted(found.tolist()) == sorted(expected.tolist())
    assert {copy for copy, _ in found.tolist()} == {0, 1}
    assert [len(part.lengths) <= 16 for part in batch.micro_batches] == [True] * 4
    assert batch.num_tokens == sum(len(part.input_ids) for part in batch.micro_batches)
    assert batch.num_masked == sum(len(part.masked_ids) for part in batch.micro_batches)
    assert batch.num_pairs == 50
    sizes = [len(part.input_ids) for part in batch.micro_batches]
    assert max(sizes) - min(sizes) <= 32


def test_a_batch_without_pairs_counts_none(tmp_path):
    write_data_set(tmp_path, rows=(40,), num_validation=0, pairs=False)
    examples = DataSet(tmp_path).examples("train")
    batch = global_batch(examples, TrainingOrder([40], 1, 32), 0, 8, 8)
    assert batch.num_pairs == 0
    assert not batch.micro_batches[0].token_type_ids.any()


def slow_cut(lengths: list[int], micro_batch_size: int) -> list[list[int]]:
    parts: list[list[int]] = [[] for _ in range(-(-len(lengths) // micro_batch_size))]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        room = [part for part in parts if len(part) < micro_batch_size]
        min(room, key=lambda part: sum(lengths[i] for i in part)).append(index)
    return [sorted(part) for part in parts]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 12))
def test_a_global_batch_is_cut_by_the_written_rule(lengths, micro_batch_size):
    parts = cut_by_length(np.array(lengths), micro_batch_size)
    assert [part.tolist() for part in parts] == slow_cut(lengths, micro_batch_size)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 5)), max_size=8))
def test_flat_ranges_equal_their_twin(pairs):
    starts, lengths = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    assert flat_ranges(starts, lengths).tolist() == [s + i for s, n in pairs for i in range(n)]


@pytest.fixture
def own(data_set, tmp_path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(data_set, tmp_path / "set"))


def edit_manifest(directory: Path, **changes) -> None:
    manifest = json.loads((directory / "manifest.json").read_text())
    write_manifest(directory, manifest | changes)


def read_all(directory: Path) -> None:
    examples = DataSet(directory).examples("train", 32)
    examples.gather(np.zeros(1500, dtype=np.int64), np.arange(1500))


def says(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def test_what_is_no_data_set_or_not_finished_is_refused(own, tmp_path):
    with says("nowhere is not a data set: the folder does not exist"):
        DataSet(tmp_path / "nowhere")
    (own / "manifest.json").rename(own / "manifest")
    with says("has no manifest.json: it is not a data set, or `bertloom preprocess` has not finished it"):
        DataSet(own)
    (own / "manifest.json").write_text("{")
    with says("manifest.json is not JSON"):
        DataSet(own)
    (own / "manifest").rename(own / "manifest.json")
    changed = (own / "manifest.json").read_text().replace('"size": 53', '"size": 54')
    (own / "manifest.json").write_text(changed)
    with says("manifest.json is not as it was written: its sha256 is not the one that it holds"):
        DataSet(own)


@pytest.mark.parametrize("cache_gb", [0.0, -1.0, 1e300, float("inf"), float("nan")])
def test_a_cache_without_size_or_end_is_refused(data_set, cache_gb):
    with says(f"cache_gb={cache_gb:g} must be above 0 and below 2^63"):
        DataSet(data_set, cache_gb=cache_gb)


def test_another_format_or_version_is_refused(own):
    edit_manifest(own, format_version=2)
    with says("format_version is 2, this program reads 1"):
        DataSet(own)
    edit_manifest(own, format="other")
    with says("format is 'other', expected 'bertloom-dataset'"):
        DataSet(own)


def test_a_changed_or_missing_shards_parquet_is_refused(own):
    with open(own / "shards.parquet", "ab") as file:
        file.write(b" ")
    with says("the data set was changed or copied in part"):
        DataSet(own)
    (own / "shards.parquet").unlink()
    with says("shards.parquet is missing"):
        DataSet(own)


def test_a_length_or_split_that_is_not_there_is_refused_with_those_that_are(data_set, tmp_path):
    with says("has no train examples of max_seq_length=128: it has 32, 64"):
        DataSet(data_set).examples("train", 128)
    write_data_set(tmp_path, rows=(10,), num_validation=0)
    with says("has no validation split"):
        DataSet(tmp_path).examples("validation")


def test_another_vocabulary_is_refused(data_set):
    DataSet(data_set).check_vocabulary(DataSet(data_set).vocabulary_sha256)
    with says("is not the checkpoint's (abcabcabcabc…): its ids mean other words"):
        DataSet(data_set).check_vocabulary("abc" * 20)


def test_a_missing_or_truncated_shard_is_named(own):
    path = own / "train/seq32/copy0/00001.tar"
    os.truncate(path, path.stat().st_size - 512)
    for read in (read_all, lambda directory: DataSet(directory).examples("train", 32).check_shards()):
        with says(f"shard {path} has {path.stat().st_size} bytes, shards.parquet says {path.stat().st_size + 512}"):
            read(own)
    path.unlink()
    for read in (read_all, lambda directory: DataSet(directory).examples("train", 32).check_shards()):
        with says(f"shard {path} is missing"):
            read(own)


def overwrite(path: Path, place: int, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(content)


def test_a_damaged_member_is_named(own):
    shard = pq.read_table(own / "shards.parquet").to_pylist()[0]
    path = own / shard["path"]
    overwrite(path, shard["member_offsets"][0] + shard["member_bytes"][0] - 6, b"NOTHIS")
    with says(f"member 0 of shard {path} cannot be read"):
        read_all(own)


def test_a_member_of_another_length_copy_or_vocabulary_is_named(own):
    # the shard of the other length in the place of this one, with a line of shards.parquet that fits it in size
    table = pq.read_table(own / "shards.parquet")
    rows = {row["path"]: row for row in table.to_pylist()}
    mine, other = rows["train/seq32/copy0/00000.tar"], rows["train/seq64/copy0/00000.tar"]
    for name in ("bytes", "member_offsets", "member_bytes"):
        mine[name] = other[name]
    shutil.copyfile(own / "train/seq64/copy0/00000.tar", own / mine["path"])
    pq.write_table(pa.Table.from_pylist(list(rows.values()), schema=table.schema), own / "shards.parquet")
    digest = hashlib.sha256((own / "shards.parquet").read_bytes()).hexdigest()
    edit_manifest(own, shards_parquet={"sha256": digest, "rows": len(rows)})
    with says("its max_seq_length is '64', expected '32'"):
        read_all(own)


def test_offsets_and_ids_that_make_no_sense_are_named(own):
    path = own / "train/seq32/copy0/00000.tar"
    whole = path.read_bytes()
    place = place_of(path, "input_ids", 1) + 4
    for wrong in (2**30, 2**31 - 1, 2**32 - 1, 30_000):  # out of the data set, out of the member, backwards
        overwrite(path, place, wrong.to_bytes(4, "little"))
        with says(f"member 0 of shard {path} cannot be read: its column input_ids is not valid (Offset invariant"):
            read_all(own)
    path.write_bytes(whole)
    overwrite(path, place_of(path, "masked_lm_ids", 1) + 4, (0).to_bytes(4, "little"))
    with says(f"member 0 of shard {path} cannot be read: example 0 has more or fewer masked_lm_positions than masked"):
        read_all(own)
    for column, value, message in [
        ("segment_b_start", 40, "example 0 has a segment_b_start outside of it"),
        ("masked_lm_positions", 60000, "example 0 has a masked_lm_position outside of it"),
        ("next_sentence_label", 258, "example 0 has a label that is none of (-1, 0, 1)"),
        ("input_ids", 60000, "input_ids has the token id 60000, but the vocabulary has 53 words"),
        ("masked_lm_ids", 53, "masked_lm_ids has the token id 53, but the vocabulary has 53 words"),
    ]:
        path.write_bytes(whole)
        buffer = 2 if column in ("input_ids", "masked_lm_positions", "masked_lm_ids") else 1
        overwrite(path, place_of(path, column, buffer), value.to_bytes(2, "little"))
        with says(f"member 0 of shard {path} cannot be read: {message}; run `bertloom verify`"):
            read_all(own)


def test_a_shard_that_changes_after_it_was_opened_is_named(own):
    path = own / "train/seq32/copy0/00000.tar"
    place, whole = place_of(path, "input_ids", 1) + 4, path.read_bytes()
    examples = DataSet(own).examples("train", 32)
    one = np.zeros(1, dtype=np.int64)
    examples.gather(one, one)
    for wrong in (2**30, 2**31 - 1, 2**32 - 1, 30_000):
        overwrite(path, place, wrong.to_bytes(4, "little"))
        with says(f"member 0 of shard {path} cannot be read: its offsets of input_ids lead outside the member or"):
            examples.gather(one, one)
    overwrite(path, 0, whole)
    overwrite(path, place_of(path, "masked_lm_ids", 1) + 4, (0).to_bytes(4, "little"))
    with says(f"member 0 of shard {path} cannot be read: an example has 21 input_ids, 3 masked_lm_positions, 0 mas"):
        examples.gather(one, one)
    overwrite(path, 0, whole)
    overwrite(path, place_of(path, "segment_b_start", 1), (40).to_bytes(2, "little"))
    with says(f"member 0 of shard {path} cannot be read: a segment_b_start is beyond its example"):
        examples.gather(one, one)
    overwrite(path, 0, whole)
    overwrite(path, place_of(path, "input_ids", 2), (60000).to_bytes(2, "little"))
    with says("has token ids beyond its vocabulary of 53 words"):
        examples.gather(one, one)

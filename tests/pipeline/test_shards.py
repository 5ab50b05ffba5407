import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertloom.mask_counts import mask_counts
from bertloom.members import read_shard
from bertloom.shards import SHARDS_SCHEMA, ShardName, digest_of, schema, shards_table
from pipeline.examples import shards
from pipeline.examples.masking.masks import Masking
from pipeline.examples.masking.tokens import TOKENS
from pipeline.examples.objectives.nsp import cut_sentences, make_pairs
from pipeline.examples.shards import write_shard
from pipeline.tokens import DOCUMENT, TokenBlock
from tests.pipeline import twins
from tests.pipeline import twins_of_pairs as slow
from tests.pipeline.small_text import VOCABULARY

LENGTH, SEED, MOST = 32, 5, 6
NAME = ShardName(split="train", max_seq_length=LENGTH, copy=1, number=3)
ORDINARY = [i for i, word in enumerate(VOCABULARY.words) if word[0] != "[" or word[-1] != "]" or len(word) < 3]


def make_block(num_documents: int, dtype=np.uint16) -> TokenBlock:
    """Documents of four sentences of one to nine tokens."""
    rows = np.zeros(num_documents, DOCUMENT)
    sizes = [[1 + (5 * i + 3 * j) % 9 for j in range(4)] for i in range(num_documents)]
    rows["id"] = rows["source_key"] = [twins.mix(i) for i in range(num_documents)]
    rows["num_sentences"], rows["num_tokens"] = 4, [sum(each) for each in sizes]
    ids = np.array([ORDINARY[twins.mix(i) % len(ORDINARY)] for i in range(sum(map(sum, sizes)))], dtype)
    return TokenBlock(ids, np.array(sizes, np.uint32).ravel(), rows)


def write(folder: Path, num_documents: int, name: ShardName = NAME, dtype=np.uint16, max_pairs: int | None = None):
    """(row of shards.parquet, the sentences, the pairs) of a shard that was written."""
    sentences = cut_sentences(make_block(num_documents, dtype), VOCABULARY.kinds, LENGTH)
    pairs, _ = make_pairs(sentences, LENGTH, name.copy, SEED, 0.1)
    if max_pairs is not None:
        pairs = pairs.take(np.arange(max_pairs))
    counts = mask_counts(LENGTH, 0.15, MOST)
    row = write_shard(str(folder), name, sentences, pairs, SEED, Masking(TOKENS, counts, MOST, VOCABULARY))
    return row, sentences, pairs


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """A shard of more than two members: (path, row, sentences, pairs)."""
    folder = tmp_path_factory.mktemp("shard")
    row, sentences, pairs = write(folder, 2000)
    return folder / row["path"], row, sentences, pairs


def test_a_shard_holds_the_examples_of_its_twin_in_the_order_of_its_key(shard):
    path, _, s, pairs = shard
    order_key = twins.fold(SEED, twins.SHARD_ORDER, LENGTH, NAME.copy, NAME.number)
    order = sorted(range(len(pairs)), key=lambda i: twins.draw(order_key, i))
    ids, first_tokens = s.ids.tolist(), s.edges[s.first[:-1]].tolist()
    names = [int(document) for document in s.ids_of_documents]
    rows = read_shard(str(path)).to_pylist()
    assert len(rows) == len(pairs)
    for row, i in zip(rows, order):
        a_start, a_length, b_start, b_length = (
            int(getattr(pairs, name)[i]) for name in ("a_start", "a_length", "b_start", "b_length")
        )
        a, b = ids[a_start : a_start + a_length], ids[b_start : b_start + b_length]
        plain = [VOCABULARY.cls, *a, VOCABULARY.sep, *b, VOCABULARY.sep]
        document_a, document_b = int(pairs.document_a[i]), int(pairs.document_b[i])
        key = slow.mask_key(SEED, LENGTH, NAME.copy, names[document_a], int(pairs.sentence[i]))
        count = slow.num_masks(len(plain), 0.15, MOST)
        input_ids, positions, originals = slow.mask(plain, a_length + 2, key, count, MOST, VOCABULARY.mask, ORDINARY)
        assert row == {
            "input_ids": input_ids,
            "segment_b_start": a_length + 2,
            "masked_lm_positions": positions,
            "masked_lm_ids": originals,
            "next_sentence_label": int(pairs.label[i]),
            "document_a": names[document_a],
            "token_a": a_start - first_tokens[document_a],
            "document_b": names[document_b],
            "token_b": b_start - first_tokens[document_b],
        }


def test_the_same_pairs_give_the_same_bytes(shard, tmp_path):
    path, row, _, _ = shard
    again, _, _ = write(tmp_path, 2000)
    assert again == row
    assert (tmp_path / row["path"]).read_bytes() == path.read_bytes()


def test_the_row_of_a_shard_describes_its_file(shard):
    path, row, _, pairs = shard
    content = path.read_bytes()
    assert row["path"] == "train/seq32/copy1/00003.tar" and str(path).endswith(row["path"])
    assert (row["split"], row["max_seq_length"], row["copy"], row["number"]) == ("train", 32, 1, 3)
    assert row["bytes"] == len(content) and row["sha256"] == hashlib.sha256(content).hexdigest()
    assert row["examples"] == len(pairs) == sum(row["member_examples"])
    assert row["tokens"] == sum(len(ids) for ids in read_shard(str(path)).column("input_ids").to_pylist())


def test_members_have_1024_examples_and_the_last_has_the_rest(shard):
    _, row, _, pairs = shard
    full, rest = divmod(len(pairs), 1024)
    assert full >= 2 and rest
    assert row["member_examples"] == [1024] * full + [rest]


@pytest.mark.parametrize("count, members", [(1, [1]), (1023, [1023]), (1024, [1024]), (1025, [1024, 1])])
def test_the_1025th_example_begins_another_member(tmp_path, count, members):
    row, _, _ = write(tmp_path, 2000, max_pairs=count)
    assert row["member_examples"] == members


def test_a_shard_does_not_depend_on_the_size_of_the_masked_batches(shard, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BATCH_EXAMPLES", 1024)
    assert write(tmp_path, 2000)[0] == shard[1]


def test_plain_tarfile_and_pyarrow_open_a_shard(shard):
    path, row, _, _ = shard
    with tarfile.open(path) as tar:
        entries = tar.getmembers()
        tables = [pa.ipc.open_file(io.BytesIO(tar.extractfile(entry).read())).read_all() for entry in entries]
    assert [entry.name for entry in entries] == [f"00003-{i:06d}.arrow" for i in range(len(entries))]
    assert [table.num_rows for table in tables] == row["member_examples"]
    assert pa.concat_tables(tables).equals(read_shard(str(path)))


def test_payloads_begin_at_multiples_of_512_bytes_as_the_row_lists(shard):
    path, row, _, _ = shard
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        assert row["member_offsets"] == [entry.offset_data for entry in tar]
    for offset, size, count in zip(row["member_offsets"], row["member_bytes"], row["member_examples"]):
        assert offset % 512 == 0
        reader = pa.ipc.open_file(pa.py_buffer(content[offset : offset + size]))
        assert reader.num_record_batches == 1 and reader.get_batch(0).num_rows == count


def test_a_mapped_member_is_read_without_a_copy(shard):
    path, row, _, _ = shard
    with pa.memory_map(str(path)) as file:
        base = file.read_buffer(1).address
        offset, size = row["member_offsets"][1], row["member_bytes"][1]
        file.seek(offset)
        batch = pa.ipc.open_file(file.read_buffer(size)).get_batch(0)
        addresses = [b.address for column in batch.columns for b in column.buffers() if b is not None]
        assert all(base + offset <= address < base + offset + size for address in addresses)
        assert all(address % 8 == 0 for address in addresses)


def test_the_tar_is_ustar_without_an_owner_and_ends_in_two_blocks_of_zeros(shard):
    path, row, _, _ = shard
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        for entry in tar:
            assert (entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, 0, "", "")
            assert entry.mode == 0o644 and entry.isreg()
            assert content[entry.offset + 257 : entry.offset + 263] == b"ustar\0"
    end = row["member_offsets"][-1] + -(-row["member_bytes"][-1] // 512) * 512
    assert content[end:] == bytes(1024)


def test_the_schema_equals_the_format(shard):
    found = read_shard(str(shard[0])).schema
    ids, positions = (pa.list_(pa.field("item", kind, nullable=False)) for kind in (pa.uint16(), pa.uint16()))
    kinds = {
        "input_ids": ids,
        "segment_b_start": pa.uint16(),
        "masked_lm_positions": positions,
        "masked_lm_ids": ids,
        "next_sentence_label": pa.int8(),
        "document_a": pa.uint64(),
        "token_a": pa.uint32(),
        "document_b": pa.uint64(),
        "token_b": pa.uint32(),
    }
    assert found.equals(pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()]))
    assert found.metadata == {
        b"format_version": b"1",
        b"max_seq_length": b"32",
        b"copy": b"1",
        b"vocabulary_sha256": VOCABULARY.sha256.encode(),
    }


def test_a_large_vocabulary_makes_ids_of_four_bytes(tmp_path):
    row, _, _ = write(tmp_path, 20, dtype=np.uint32)
    table = read_shard(str(tmp_path / row["path"]))
    assert table.schema.field("input_ids").type.value_type == pa.uint32()
    assert table.schema.field("masked_lm_ids").type == table.schema.field("input_ids").type
    assert schema(np.dtype(np.uint32)).equals(table.schema)


def test_a_validation_shard_has_an_order_of_its_own(tmp_path):
    assert NAME.order_number == 3
    assert ShardName(split="validation", max_seq_length=32, copy=1, number=3).order_number == 3 + 2**32
    name = ShardName(split="validation", max_seq_length=LENGTH, copy=1, number=3)
    (train, _, _), (validation, _, _) = write(tmp_path, 40), write(tmp_path, 40, name)
    assert validation["path"] == "validation/seq32/copy1/00003.tar"
    one, other = (read_shard(str(tmp_path / row["path"])).to_pylist() for row in (train, validation))
    assert one != other and sorted(map(str, one)) == sorted(map(str, other))


def test_a_tar_without_members_is_named(tmp_path):
    (tmp_path / "e.tar").write_bytes(bytes(1024))
    with pytest.raises(ValueError, match="e.tar has no members"):
        read_shard(str(tmp_path / "e.tar"))


def test_rows_of_all_shards_are_sorted_train_before_validation(tmp_path):
    rows = []
    for split in ("validation", "train"):
        for number in (10, 2):
            name = ShardName(split=split, max_seq_length=LENGTH, copy=0, number=number)
            rows.append(write(tmp_path, 10, name)[0])
    table = shards_table(rows)
    assert table.schema.equals(SHARDS_SCHEMA)
    keys = zip(table.column("split").to_pylist(), table.column("number").to_pylist())
    assert list(keys) == [("train", 2), ("train", 10), ("validation", 2), ("validation", 10)]
    pq.write_table(table, tmp_path / "shards.parquet")
    assert pq.read_table(tmp_path / "shards.parquet").equals(shards_table(rows[::-1]))


def test_the_digest_of_all_shards_does_not_depend_on_their_order():
    rows = [{"path": "b", "sha256": "2"}, {"path": "a", "sha256": "1"}]
    assert digest_of(rows) == digest_of(rows[::-1]) == hashlib.sha256(b"1  a\n2  b\n").hexdigest()
    assert digest_of(rows) != digest_of([{"path": "b", "sha256": "1"}, {"path": "a", "sha256": "2"}])

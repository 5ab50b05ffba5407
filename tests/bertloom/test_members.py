"""Shards of strangers: what is not a whole, valid and uncompressed member is refused before it is used."""

import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from bertloom.members import check_ids, check_values, read_member, read_shard

SHARD = Path(__file__).parent.parent / "golden/dataset/train/seq24/copy0/00000.tar"


def member() -> bytes:
    with tarfile.open(SHARD) as tar:
        return tar.extractfile(tar.next()).read()


def written(table: pa.Table, **options) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
    return sink.getvalue()


def test_a_member_is_read_without_a_copy_and_passes_every_check():
    payload = pa.py_buffer(member())
    batch = read_member(payload)
    check_values(batch, 24)
    check_ids(batch, 649)
    address = batch.column("input_ids").values.buffers()[1].address
    assert payload.address < address < payload.address + payload.size


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_compressed_member_is_refused_before_it_is_decompressed(compression):
    content = bytearray(written(read_shard(str(SHARD)), compression=compression))
    magic = {"zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18"}[compression]
    place = content.find(magic) - 8
    content[place : place + 8] = (1 << 60).to_bytes(8, "little")  # the size that it promises
    with pytest.raises(ValueError, match="it is compressed"):
        read_member(pa.py_buffer(bytes(content)))


def test_other_columns_no_batch_several_batches_and_other_metadata_are_refused():
    table = read_shard(str(SHARD))
    with pytest.raises(ValueError, match="its columns are not those of the format"):
        read_member(written(table.drop_columns(["masked_lm_ids"])))
    with pytest.raises(ValueError, match="it has 0 batches, expected 1"):
        read_member(written(table.slice(0, 0)))
    with pytest.raises(ValueError, match="it has 2 batches, expected 1"):
        read_member(written(pa.concat_tables([table.slice(0, 5), table.slice(5, 5)])))
    with pytest.raises(ValueError, match="its metadata are {'copy': '0'}"):
        read_member(written(table.replace_schema_metadata({"copy": "0"})))


@pytest.mark.parametrize("column", ["next_sentence_label", "document_a"])
def test_nulls_in_a_column_that_has_none_are_refused(column):
    batch = read_member(pa.py_buffer(member()))
    values = pa.array([None] * batch.num_rows, batch.column(column).type)
    arrays = [values if name == column else batch.column(name) for name in batch.schema.names]
    table = pa.Table.from_batches([pa.RecordBatch.from_arrays(arrays, schema=batch.schema)])
    with pytest.raises(ValueError, match=f"its column {column} has nulls"):
        read_member(written(table))


def test_every_cut_of_a_member_is_refused_in_one_line():
    content = member()
    for size in [*range(200), *range(200, len(content), 997)]:
        with pytest.raises(ValueError) as error:
            read_member(pa.py_buffer(content[:size]))
        assert "\n" not in str(error.value)


def test_ids_beyond_the_vocabulary_are_named():
    with pytest.raises(ValueError, match=r"input_ids has the token id \d+, but the vocabulary has 10 words"):
        check_ids(read_member(pa.py_buffer(member())), 10)


# ---- the tar file


def test_what_is_not_a_plain_tar_of_members_is_refused(tmp_path):
    path, content = tmp_path / "00000.tar", SHARD.read_bytes()

    def refused(changed: bytes, message: str) -> None:
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=message):
            read_shard(str(path))

    refused(content[:700], "ends .* bytes early")
    refused(bytes(1024), "has no members, but a shard has one or more")
    refused(b"not a tar file" * 100, "is not a tar file: at byte 0 it has no header")
    for kind in (
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
        tarfile.XHDTYPE,
    ):
        info = tarfile.TarInfo("00000-000000.arrow")
        info.type, info.size = kind, 1 << 40
        refused(info.tobuf(tarfile.GNU_FORMAT) + content[512:], "holds '00000-000000.arrow'.*, which is not a member")
    info = tarfile.TarInfo("00000-000000.arrow")
    info.size = 1 << 40
    refused(info.tobuf(tarfile.GNU_FORMAT) + content[512:], "of 1099511627776 bytes at byte 0, which is not a member")


def test_a_pipe_or_a_device_is_not_read_as_a_shard(tmp_path):
    os.mkfifo(tmp_path / "00000.tar")
    (tmp_path / "zero.tar").symlink_to("/dev/zero")
    for name in ("00000.tar", "zero.tar"):
        with pytest.raises(ValueError, match="is not a regular file"):
            read_shard(str(tmp_path / name))

"""The webdataset pipeline over shards."""

import io
import pickle
import re
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds

from model.loading.webdataset_pipeline import example_pipeline, member_pipeline
from tests.model.synthetic import place_of, write_data_set


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("web") / "set", rows=(2500,), num_shards=2, num_validation=0)


@pytest.fixture
def shards(data) -> str:
    return f"{data}/train/seq32/copy0/{{00000..00001}}.tar"


def slow_rows(data: Path) -> list[dict]:
    """Every row, by plain pyarrow."""
    rows = []
    for shard in pq.read_table(data / "shards.parquet").to_pylist():
        content = (data / shard["path"]).read_bytes()
        for offset, size in zip(shard["member_offsets"], shard["member_bytes"]):
            rows += pa.ipc.open_file(content[offset : offset + size]).read_all().to_pylist()
    return rows


def plain(example: dict) -> dict:
    return {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in example.items()
        if not name.startswith("__")
    }


def test_examples_are_the_rows_of_the_shards(data, shards):
    found = list(example_pipeline(shards))
    assert [plain(example) for example in found] == slow_rows(data)
    assert found[0]["__key__"] == "00000-000000-0000" and found[-1]["__key__"] == "00001-000001-0225"
    assert found[-1]["__url__"] == f"{data}/train/seq32/copy0/00001.tar"
    assert found[0]["input_ids"].dtype == "uint16" and type(found[0]["document_a"]) is int


def test_members_are_record_batches(shards):
    found = list(member_pipeline(shards))
    assert [member["__key__"] for member in found] == ["00000-000000", "00000-000001", "00001-000000", "00001-000001"]
    assert [member["member"].num_rows for member in found] == [1024, 226, 1024, 226]


@pytest.mark.parametrize("pipeline", [example_pipeline, member_pipeline])
def test_a_file_that_is_not_a_tar_file_is_named(pipeline, tmp_path):
    (tmp_path / "00000.tar").write_bytes(b"x" * 2048)
    with pytest.raises(ValueError, match=r"/00000.tar is not a tar file, or is damaged"):
        list(pipeline(str(tmp_path / "00000.tar")))


def test_each_worker_and_node_has_shards_of_its_own(shards, monkeypatch):
    """Told by the environment, as webdataset looks for it; a DataLoader runs in tests/test_docs_snippets.py."""
    for name, number in (("WORKER", "NUM_WORKERS"), ("RANK", "WORLD_SIZE")):
        monkeypatch.setenv(number, "2")
        found = []
        for value in range(2):
            monkeypatch.setenv(name, str(value))
            found.append([example["__key__"] for example in example_pipeline(shards)])
        assert len(found[0]) == len(found[1]) == 1250 and len(set(found[0] + found[1])) == 2500
        monkeypatch.setenv(number, "3")
        monkeypatch.setenv(name, "2")
        assert list(example_pipeline(shards)) == []  # more of them than shards
        monkeypatch.delenv(name)
        monkeypatch.delenv(number)
    assert isinstance(pickle.loads(pickle.dumps(example_pipeline(shards))), wds.WebDataset)


def test_options_of_webdataset_pass_through(shards):
    keys = [example["__key__"] for example in example_pipeline(shards, shardshuffle=2, seed=3).shuffle(500)]
    assert sorted(keys) == sorted(example["__key__"] for example in example_pipeline(shards)) and keys != sorted(keys)


def test_a_tar_of_something_else_is_named(tmp_path):
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("picture.jpg"), io.BytesIO())
    with pytest.raises(
        ValueError, match=re.escape(f"{tmp_path}/other.tar holds picture without .arrow: it is not a sha")
    ):
        list(example_pipeline(str(tmp_path / "other.tar")))


def test_a_damaged_member_is_named(data, tmp_path):
    shard = tmp_path / "00000.tar"
    content = bytearray((data / "train/seq32/copy0/00000.tar").read_bytes())
    place = place_of(data / "train/seq32/copy0/00000.tar", "input_ids", 1) + 4
    content[place : place + 4] = (1 << 29).to_bytes(4, "little")
    shard.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"{shard}: 00000-000000.arrow cannot be read: its column input_ids is not valid"
    ):
        list(member_pipeline(str(shard)))

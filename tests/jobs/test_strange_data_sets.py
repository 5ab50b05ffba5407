"""Data sets of strangers: every command ends with faults or one line, and opens nothing but files of the data set."""

import gzip
import hashlib
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.explain import Explainer
from pipeline import dataset as data_set_files
from tests.jobs.data_set_mutants import make_whole, seal

SHARD = "train/seq8/copy0/00000.tar"
COMMANDS = {
    "verify": ["verify", "SET"],
    "inspect": ["inspect", "SET"],
    "explain": ["explain", "SET", "0"],
    "report": ["report", "SET"],
}


@pytest.fixture
def dataset(tmp_path) -> Path:
    return make_whole(tmp_path / "set")


def manifest_of(dataset: Path) -> dict:
    return json.loads((dataset / "manifest.json").read_bytes())


def said(command: str, dataset: Path, capsys) -> tuple[int, str]:
    """Exit status and what was printed, the last line of it in errors."""
    status = cli.main([str(dataset) if word == "SET" else word for word in COMMANDS[command]])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return status, printed.out if command == "verify" else printed.err.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_or_device_in_the_place_of_a_shard_is_not_read(dataset, capsys, command):
    for path in dataset.glob("*/*/*/*.tar"):
        path.unlink()
        os.mkfifo(path) if "seq8" in str(path) else path.symlink_to("/dev/zero")
    status, text = said(command, dataset, capsys)
    assert status == (1 if command == "verify" else 2)
    assert "/00000.tar is not a regular file: devices, pipes and folders are not read" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_in_the_place_of_a_small_file_is_not_read(dataset, capsys, command):
    for name in ("vocab.txt", "shards.parquet", "manifest.json"):
        (dataset / name).unlink()
        os.mkfifo(dataset / name)
        status, text = said(command, dataset, capsys)
        assert status == (1 if command == "verify" else 2)
        assert f"{name} is not a regular file" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_names_that_lead_out_of_the_data_set_are_refused(dataset, capsys, command):
    rows = pq.read_table(dataset / "shards.parquet").to_pylist()
    rows[0]["path"] = "../" * 16 + "dev/zero"
    seal(dataset, rows, manifest_of(dataset), "shards.parquet")
    status, text = said(command, dataset, capsys)
    assert status == (1 if command == "verify" else 2)
    assert "shards.parquet: row 0 names '../../" in text and "dev/zero', which is not inside the data set" in text

    manifest = manifest_of(dataset)
    manifest["files"]["../" * 16 + "dev/zero"] = "0" * 64
    seal(dataset, None, manifest, "manifest.json")
    status, text = said(command, dataset, capsys)
    assert status == (1 if command == "verify" else 2)
    assert "manifest.json has a value that is not possible: a name in files is '../../" in text


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"\xff", b"null"], ids=str)
def test_a_manifest_that_is_no_object_or_nested_without_end_is_one_line(dataset, capsys, command, content):
    (dataset / "manifest.json").write_bytes(content)
    status, text = said(command, dataset, capsys)
    assert status == (1 if command == "verify" else 2)
    assert "manifest.json is not JSON" in text or "manifest.json does not hold a JSON object, but" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_member_is_named(dataset, capsys, command):
    content = bytearray((dataset / SHARD).read_bytes())
    row = pq.read_table(dataset / "shards.parquet").to_pylist()[0]
    place = row["member_offsets"][0] + row["member_bytes"][0] - 8
    content[place : place + 8] = bytes(8)
    (dataset / SHARD).write_bytes(content)
    rows = pq.read_table(dataset / "shards.parquet").to_pylist()
    seal(dataset, rows, manifest_of(dataset), SHARD)
    status, text = said(command, dataset, capsys)
    assert status == (1 if command == "verify" else 2)
    assert "member 0" in text and "cannot be read" in text and SHARD in text


# ---- rejects


def with_rejects(dataset: Path, content: bytes) -> None:
    name = "rejects/rejects.jsonl.gz"
    (dataset / name).write_bytes(content)
    seal(dataset, None, manifest_of(dataset), name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"a" * 10_000, mtime=0), "rejects/rejects.jsonl.gz: line 1 has more than 5,000 bytes"),
        (gzip.compress(b"{}\n", mtime=0), "rejects/rejects.jsonl.gz: line 1 has lost a part: it has no source"),
        (
            gzip.compress(b"[" * 4000 + b"\n", mtime=0),
            "rejects/rejects.jsonl.gz: line 1 is not JSON (it is nested in more than",
        ),
        (gzip.compress(b"\xff\n", mtime=0), "rejects/rejects.jsonl.gz: line 1 is not JSON"),
        (gzip.compress(b"{}", mtime=0)[:-5], "rejects/rejects.jsonl.gz: not a complete gzip file"),
        (b"no gzip file", "rejects/rejects.jsonl.gz: not a complete gzip file (Not a gzipped file"),
    ],
    ids=["long", "empty", "deep", "not-utf8", "cut", "other"],
)
def test_rejects_are_read_line_by_line_up_to_a_longest_one(dataset, capsys, monkeypatch, content, message):
    monkeypatch.setattr(data_set_files, "MAX_REJECT_BYTES", 5000)
    with_rejects(dataset, content)
    for command in ("verify", "report"):
        status, text = said(command, dataset, capsys)
        assert status == (1 if command == "verify" else 2) and f"{dataset}/{message}" in text


def test_a_vocabulary_without_words_is_named_with_its_whole_path(dataset, capsys):
    (dataset / "vocab.txt").write_bytes(b"")
    seal(dataset, None, manifest_of(dataset), "vocab.txt")
    status, text = said("report", dataset, capsys)
    assert status == 2 and f"{dataset}/vocab.txt: 0 words" in text


# ---- sources


def test_explain_reads_only_a_regular_file_as_a_source(dataset, tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "list").write_text("/dev/zero\n")
    (tmp_path / "folder").mkdir()
    index = 0
    for path in (
        "/dev/zero",
        str(tmp_path / "pipe.txt"),
        str(tmp_path / "folder"),
        f"@{tmp_path}/list",
        "/*/*",
        "/",
        "",
    ):
        manifest = manifest_of(dataset)
        for source in manifest["inputs"]:
            source["path"] = path
        seal(dataset, None, manifest, "manifest.json")
        found = Explainer(str(dataset)).explain(index)
        assert found["agrees"] is None
        assert "is no longer at " in found["not_recomputed"] and "is no longer at " in found["a"]["not_read"]


def test_a_page_of_documents_with_values_that_are_not_possible_is_refused(dataset, capsys):
    name = "documents/train/00000.parquet"
    table = pq.read_table(dataset / name)
    for column, value in (("num_tokens", 2**31 - 1), ("num_tokens", -5), ("position", -1), ("source", "elsewhere.txt")):
        copy = shutil.copytree(dataset, dataset.parent / f"{column}{value}")
        rows = table.to_pylist()
        rows[3][column] = value
        pq.write_table(type(table).from_pylist(rows, schema=table.schema), copy / name)
        manifest = manifest_of(copy)
        manifest["documents"][name] = hashlib.sha256((copy / name).read_bytes()).hexdigest()
        seal(copy, None, manifest, "manifest.json")
        status, text = said("explain", copy, capsys)
        expected = f"documents/ names the input {value!r}" if column == "source" else f"{name} has values of {column} "
        assert status == 2 and expected in text

"""Whole jobs on S3, Google's store and HDFS, without and with faults: the shards of a local job, or an error."""

import asyncio
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertloom import storage, stores
from jobs import cli
from pipeline.inputs.discovery import find_sources
from tests.bertloom.other_stores import flags_of, google_store, hdfs
from tests.jobs.corpus import as_txt, documents
from tests.model.object_store import Store, object_store

TEXT = as_txt(documents(40))
FLAGS = ["--max-seq-length", "32", "--dupe-factor", "1", "--validation-fraction", "0", "--split-mb", "0.002"]
Place = tuple[Store, str, list[str]]
"""The store, the URL of a folder there, and flags for Beam."""


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Iterator[dict[str, Place]]:
    with object_store() as s3, google_store("bucket") as gs, hdfs(tmp_path_factory.mktemp("hdfs")) as node:
        s3.client().create_bucket(Bucket="bucket")
        yield {"s3": (s3, "s3://bucket", []), "gs": (gs, "gs://bucket", []), "hdfs": (node, "hdfs://", flags_of(node))}


@pytest.fixture(params=["s3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gs", "hdfs"))])
def place(request, places, monkeypatch) -> Iterator[Place]:
    """The store without faults; what is waited for is short."""
    storage.connect({})
    monkeypatch.setattr("bertloom.locks.SETTLE_SECONDS", 0)
    monkeypatch.setattr(stores, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 3)
    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=lambda _: asyncio.sleep(0)))
    found = places[request.param]
    found[0].reset()
    yield found
    found[0].reset()
    storage.connect({})


def argv(place: Place, vocab: str, name: str) -> list[str]:
    _, url, beam = place
    folder = f"{url}/{name}"
    files = ["--input", f"{folder}/in/", "--vocab", vocab, "--work-dir", f"{folder}/tokens", "--out", f"{folder}/set"]
    return ["preprocess", *files, *FLAGS, "--", *beam]


def digest(printed: str) -> str:
    found = re.search(r"digest of all shards (\w+)", printed)
    assert found, printed
    return found[1]


@pytest.fixture(scope="module")
def local_digest(vocab, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("local")
    (folder / "in").mkdir()
    (folder / "in/a.txt").write_bytes(TEXT)
    command = ["preprocess", "--input", f"{folder}/in", "--vocab", str(vocab), "--out", f"{folder}/set", *FLAGS]
    with redirect_stdout(io.StringIO()) as printed:
        assert cli.main(command) == 0
    return digest(printed.getvalue())


def begin(place: Place, vocab, name: str) -> list[str]:
    """Write the text and the vocabulary into the store. Return the command."""
    store, url, beam = place
    if beam:
        address = store.endpoint.removeprefix("http://").partition(":")
        storage.connect({"hdfs": {"protocol": "webhdfs", "host": address[0], "port": int(address[2]), "user": "me"}})
    storage.make_folder(f"{url}/{name}/in")
    storage.write_whole(f"{url}/{name}/in/a.txt", [TEXT])
    storage.write_whole(f"{url}/{name}/vocab.txt", [vocab.read_bytes()])
    return argv(place, f"{url}/{name}/vocab.txt", name)


def test_a_job_in_a_store_gives_the_shards_of_a_local_one_with_and_without_faults(place, vocab, local_digest, capsys):
    store, url, _ = place
    assert cli.main(begin(place, vocab, "plain")) == 0
    assert digest(capsys.readouterr().out) == local_digest
    parts = storage.names_in(f"{url}/plain/tokens/parts")
    assert len([name for name in parts if name.endswith(".part")]) > 3
    command = begin(place, vocab, "faults")
    for kind, path, method in (
        ("503", "", "GET"),
        ("503", "", "PUT"),
        ("503", "", "POST"),
        ("cut", "a.txt", "GET"),
        ("short", ".part", "GET"),
        ("slow", ".part", "GET"),
        ("lost", ".part", "PUT"),
        ("lost", "", "POST"),
    ):
        store.fail(kind, path, 1, method)
    assert cli.main(command) == 0
    assert digest(capsys.readouterr().out) == local_digest
    assert storage.names_in(f"{url}/faults/set") == storage.names_in(f"{url}/plain/set")


def test_a_job_whose_credentials_expire_says_so_and_its_next_start_does_the_rest(place, vocab, local_digest, capsys):
    store, url, beam = place
    command = begin(place, vocab, "expiry")
    for method in ("GET", "PUT", "POST", "HEAD"):
        store.fail("expired", "train", 99, method)
    assert cli.main(command) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{url}/expiry/set/train/seq32/copy0" in said and "have expired" in said
    assert "start the same command again, which does the rest" in said and "another --out" not in said
    store.reset()
    assert cli.main(command) == 0
    printed = capsys.readouterr()
    assert digest(printed.out) == local_digest and "continuing with an unfinished run" in printed.err


def test_no_rows_of_a_table_are_lost_when_a_store_does_not_answer(place, vocab, tmp_path, capsys):
    store, url, _ = place
    command = begin(place, vocab, "table")
    storage.remove(f"{url}/table/in/a.txt")
    texts = [text for text in TEXT.decode().split("\n\n") if text.strip()]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=5)
    storage.write_whole(f"{url}/table/in/a.parquet", [(tmp_path / "a.parquet").read_bytes()])
    sources = find_sources([f"{url}/table/in/"])
    assert [source.format for source in sources] == ["parquet"]
    store.fail("cut", "a.parquet", 999)
    assert cli.main(command) == 2
    assert re.search(rf"{url}/table/in/a.parquet: 5 tries failed", capsys.readouterr().err)
    store.reset()
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert re.search(r"documents +40 in", printed) and "damaged" not in printed


@pytest.mark.parametrize(
    "command",
    [
        ["preprocess", "--input", "{url}/in/*.txt", "--vocab", "{vocab}", "--out", "{tmp}/set"],
        ["preprocess", "--input", "{text}", "--vocab", "{url}/vocab.txt", "--out", "{tmp}/set"],
        ["preprocess", "--input", "{text}", "--vocab", "{vocab}", "--out", "{url}/set"],
        ["preprocess", "--input", "{text}", "--vocab", "{vocab}", "--out", "{tmp}/set", "--work-dir", "{url}/tokens"],
        [
            "preprocess",
            "--input",
            "{text}",
            "--validation-input",
            "{url}/v",
            "--vocab",
            "{vocab}",
            "--out",
            "{tmp}/set",
        ],
        ["preview", "{url}/in"],
        ["build-vocab", "--input", "@{url}/list", "--vocab-size", "400", "--out", "{tmp}/vocab.txt"],
        ["inspect", "{url}/set"],
        ["verify", "{url}/set"],
        ["report", "{url}/set"],
        ["explain", "{url}/set", "0"],
        ["pretrain", "tiny", "--data", "{url}/set", "--out", "{tmp}/run"],
    ],
    ids=lambda command: " ".join(word for word in command if word[0] != "{"),
)
@pytest.mark.parametrize("bucket", ["s3://no-such-bucket", "gs://no-such-bucket"])
def test_every_command_names_a_bucket_that_does_not_exist(
    places, vocab, tmp_path, capsys, monkeypatch, command, bucket
):
    monkeypatch.setattr("bertloom.locks.SETTLE_SECONDS", 0)
    (tmp_path / "a.txt").write_bytes(TEXT)
    words = {"url": bucket, "tmp": tmp_path, "text": tmp_path / "a.txt", "vocab": vocab}
    assert cli.main([word.format(**words) for word in command]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"the bucket {bucket} does not exist: create it, or correct its name or the address of the store" in said

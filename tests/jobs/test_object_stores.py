"""Preprocessing from and to s3://, against a real S3 server on loopback: what a local job gives, and nothing left behind."""

import os
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from bertloom import storage
from bertloom.locks import output_lock
from jobs import cli
from pipeline.execution import Launcher, pipeline_options
from pipeline.inputs.discovery import find_sources
from pipeline.places import Places
from pipeline.remote.engine import Engine
from pipeline.stages.line_repeats import CountLines
from pipeline.text.cleaning import CleanConfig
from tests.jobs.corpus import as_txt, digests, documents, write
from tests.model.object_store import Store, object_store

TEXTS = documents(40)
FLAGS = ["--max-seq-length", "32", "--dupe-factor", "1", "--validation-fraction", "0"]


@pytest.fixture(scope="module")
def server():
    with object_store() as store:
        store.client().create_bucket(Bucket="texts")
        store.client().put_object(Bucket="texts", Key="in/a.txt", Body=as_txt(TEXTS))
        yield store


@pytest.fixture
def bucket(server: Store, tmp_path) -> Iterator[str]:
    """A bucket of this test's own, and stores as a new process finds them."""
    storage.connect({})
    name = tmp_path.name.replace("_", "-")[:50].rstrip("-")
    server.client().create_bucket(Bucket=name)
    yield name
    storage.connect({})


def keys(store: Store, bucket: str) -> list[str]:
    return [row["Key"] for row in store.client().list_objects_v2(Bucket=bucket).get("Contents", [])]


def download(store: Store, bucket: str, folder) -> None:
    for key in keys(store, bucket):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.client().get_object(Bucket=bucket, Key=key)["Body"].read())


def argv(vocab, source, out, *more: str) -> list[str]:
    return ["preprocess", "--input", str(source), "--vocab", str(vocab), "--out", str(out), *FLAGS, *more]


def test_a_job_from_s3_to_s3_gives_the_shards_of_a_local_one_and_leaves_nothing_else(
    server, bucket, vocab, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("AWS_ENDPOINT_URL")  # the flag alone leads there, also in the workers
    flags = ["--num-workers", "2", "--", f"--s3_endpoint_url={server.endpoint}"]
    command = argv(vocab, "s3://texts/in/", f"s3://{bucket}/set", *flags)
    assert cli.main(command) == 0
    download(server, bucket, tmp_path / "fetched")
    write(tmp_path / "in/a.txt", TEXTS)
    assert cli.main(argv(vocab, tmp_path / "in", tmp_path / "local")) == 0
    local, fetched = digests(tmp_path / "local"), digests(tmp_path / "fetched/set")
    assert list(local) == list(fetched)
    name_the_input = {"manifest.json", "report.json", "report.html"}
    assert {name for name in local if local[name] != fetched[name]} <= name_the_input
    capsys.readouterr()
    assert cli.main(command) == 0
    assert f"s3://{bucket}/set is already complete: nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize("flags, watched", [([], True), (["--runner=FlinkRunner"], False)], ids=str)
def test_only_workers_of_this_machine_are_watched(monkeypatch, tmp_path, flags, watched):
    calls: list[str] = []
    monkeypatch.setattr("pipeline.execution.watch_workers", lambda *words: calls.extend(words) or nullcontext())
    monkeypatch.setattr("pipeline.execution.run", lambda *_: None)
    monkeypatch.setattr("pipeline.execution.run_on_engine", lambda *_: None)
    words = {"command": "preprocess", "how_to_continue": "Start", "log": str(tmp_path / "log")}
    engine = None if watched else Engine(None, "FlinkRunner", "", "")
    run = Launcher(options=pipeline_options(2, flags), splits="", **words, engine=engine)
    run(CountLines(CleanConfig(), 2, Places("", "")))
    assert calls == (["preprocess", "Start", ""] if watched else [])


@pytest.mark.parametrize("command", ["inspect", "verify", "report", "explain"])
def test_commands_that_read_accept_s3_urls(bucket, capsys, command):
    assert cli.main([command, f"s3://{bucket}/set", *(["0"] if command == "explain" else [])]) in (1, 2)
    said = capsys.readouterr()
    assert f"s3://{bucket}/set " in said.err
    assert ("does not exist" if command == "verify" else "manifest.json") in said.err


def test_a_vocabulary_is_built_from_a_text_on_s3(bucket, tmp_path):
    flags = ["--input", "s3://texts/in/a.txt", "--vocab-size", "400", "--out", f"{tmp_path}/vocab.txt"]
    assert cli.main(["build-vocab", *flags]) == 0


def test_test_sets_may_be_on_s3(server, bucket, tmp_path, capsys):
    text = " ".join(TEXTS[0][0].split())
    for name in ("qnli/dev.tsv", "squad/dev.tsv"):
        server.client().put_object(Bucket=bucket, Key=f"sets/{name}", Body=f"q\ttext\nShort\t{text}\n".encode())
    (tmp_path / "a.txt").write_bytes(as_txt(TEXTS[:1]))
    assert cli.main(["preview", f"{tmp_path}/a.txt", "--exclude", f"s3://{bucket}/sets/*/dev.tsv"]) == 0
    said = capsys.readouterr().out
    assert all(
        f"1 document that shares a run of 13 words with {name}\n" in said for name in ("qnli/dev.tsv", "squad/dev.tsv")
    )
    assert cli.main(["preview", f"{tmp_path}/a.txt", "--exclude", f"s3://{bucket}/none.tsv"]) == 2
    assert f"--exclude s3://{bucket}/none.tsv" in capsys.readouterr().err


KEYS = ["a.jsonl", "._a.jsonl", ".ipynb_checkpoints/a.jsonl", "my data/a b.jsonl", "br/part[1].jsonl", "br/part1.jsonl"]


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("", ["a.jsonl", "br/part1.jsonl", "br/part[1].jsonl", "my data/a b.jsonl"]),
        ("br", ["part1.jsonl", "part[1].jsonl"]),
        ("br/part[1].jsonl", ["part[1].jsonl"]),
        ("br/*.jsonl", ["part1.jsonl", "part[1].jsonl"]),
        ("*/*.jsonl", ["br/part1.jsonl", "br/part[1].jsonl", "my data/a b.jsonl"]),
        ("m*", ["my data/a b.jsonl"]),
        (".ipynb_checkpoints/", ["a.jsonl"]),
    ],
)
def test_names_in_s3_are_found_as_on_a_disk(server, bucket, tmp_path, pattern, names):
    for key in KEYS:
        server.client().put_object(Bucket=bucket, Key=f"in/{key}", Body=b"{}")
        (tmp_path / "in" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / key).write_bytes(b"{}")
    for root in (f"s3://{bucket}/in", f"{tmp_path}/in"):
        assert [source.name for source in find_sources([f"{root}/{pattern}"])] == names


def test_an_empty_file_can_be_written(server, bucket):
    storage.write_whole(f"s3://{bucket}/empty", [])
    assert storage.read(f"s3://{bucket}/empty") == b"" and storage.size(f"s3://{bucket}/empty") == 0


def test_a_failed_upload_leaves_nothing_half_written(server, bucket):
    def chunks():
        yield b"half"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        storage.write_whole(f"s3://{bucket}/file", chunks())
    assert keys(server, bucket) == []


def test_a_folder_is_removed_with_its_content_and_a_missing_one_is_no_error(server, bucket):
    for key in ("set/.work/a", "set/.work/b/c", "set/.workers"):
        server.client().put_object(Bucket=bucket, Key=key, Body=b"")
    storage.remove(f"s3://{bucket}/set/.work")
    storage.remove(f"s3://{bucket}/set/.work")
    assert keys(server, bucket) == ["set/.workers"]


# ---- the lock


@pytest.fixture
def out(bucket, monkeypatch) -> str:
    monkeypatch.setattr("bertloom.locks.SETTLE_SECONDS", 0)
    return f"s3://{bucket}/set"


def test_the_error_for_a_held_lock_names_its_holder_and_the_file_to_remove(out):
    says = rf"process {os.getpid()} on .*; if that job is dead, remove {out}/.lock"
    with output_lock(out):
        with pytest.raises(ValueError, match=says), output_lock(out):
            pass
        assert storage.exists(f"{out}/.lock")
    assert not storage.exists(f"{out}/.lock")


def test_only_one_of_two_jobs_that_find_no_lock_gets_it(out, monkeypatch):
    theirs, write_whole = b"process 7 on elsewhere since now\nkey 12\n", storage.write_whole

    def both_write(path, chunks):
        write_whole(path, chunks)
        write_whole(path, [theirs])

    monkeypatch.setattr(storage, "write_whole", both_write)
    with pytest.raises(ValueError, match="set is being written by process 7 on elsewhere since now"), output_lock(out):
        pass
    assert storage.read(f"{out}/.lock") == theirs

import errno
import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from bertloom import storage, store_files, stores
from pipeline.storage_flags import storage_options


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


def test_a_written_file_is_read_whole_and_by_range(folder):
    path = storage.join(folder, "sub", "file")
    storage.make_folder(storage.join(folder, "sub"))
    assert storage.write_whole(path, [b"abc", b"", b"defg"]) == (7, hashlib.sha256(b"abcdefg").hexdigest())
    assert storage.exists(path) and storage.size(path) == 7 and storage.read(path) == b"abcdefg"
    with storage.open_read(path) as file:
        assert storage.read_at(file, 2, 3) == b"cde"
        with pytest.raises(ValueError, match="ends 2 bytes early: expected 4 bytes at 5"):
            storage.read_at(file, 5, 4)
    assert storage.names_in(storage.join(folder, "sub")) == {"file"}
    assert storage.write_whole(path, []) == (0, hashlib.sha256().hexdigest()) and storage.size(path) == 0
    storage.remove(path)
    storage.remove(path)
    assert not storage.exists(path) and storage.size(path) is None
    assert storage.names_in(storage.join(folder, "nothing")) == set()


@pytest.mark.parametrize("earlier", [None, b"earlier"])
def test_a_write_that_fails_leaves_what_was_there(folder, earlier):
    path = storage.join(folder, "file")
    storage.make_folder(folder)
    if earlier:
        storage.write_whole(path, [earlier])

    def chunks():
        yield b"half"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        storage.write_whole(path, chunks())
    assert storage.names_in(folder) == ({"file"} if earlier else set())
    assert not earlier or storage.read(path) == earlier


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_is_named_with_what_to_do(tmp_path, number):
    def chunks():
        yield b"abc"
        raise OSError(number, os.strerror(number))

    expected = f"{tmp_path}/file: {os.strerror(number).lower()}, after 3 bytes.*Make room, then start the same command"
    with pytest.raises(OSError, match=expected):
        storage.write_whole(f"{tmp_path}/file", chunks())
    with pytest.raises(OSError, match="memory://full/file .written to .* first.: .*, after 3 bytes"):
        storage.write_whole("memory://full/file", chunks())


def test_a_failed_upload_leaves_nothing_where_a_store_has_folders(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(store_files, "RENAMES", ("memory",))
    monkeypatch.setattr(stores, "FIRST_WAIT_SECONDS", 0)
    storage.make_folder("memory://folders/a")
    for content in (b"first", b"second"):
        storage.write_whole("memory://folders/a/file", [content])
        assert storage.read("memory://folders/a/file") == content and storage.names_in("memory://folders/a") == {"file"}

    def broken(self, path1, path2, **more):
        raise OSError("the store is away")

    monkeypatch.setattr(MemoryFileSystem, "mv", broken)
    with pytest.raises(stores.StoreError, match="5 tries failed, the last with OSError: the store is away"):
        storage.write_whole("memory://folders/a/other", [b"x"])
    assert storage.names_in("memory://folders/a") == {"file"}


def test_only_old_temporary_files_are_swept(tmp_path):
    for name in (".tmp-1-2-old", ".tmp-1-2-new", "file"):
        (tmp_path / name).write_bytes(b"x")
    os.utime(tmp_path / ".tmp-1-2-old", (time.time() - 100,) * 2)
    storage.sweep_temporary(str(tmp_path), 50)
    assert sorted(storage.names_in(str(tmp_path))) == [".tmp-1-2-new", "file"]
    storage.sweep_temporary(str(tmp_path))
    assert storage.names_in(str(tmp_path)) == {"file"}


NAMES = ["a.txt", "b.jsonl", "sub/c.txt", "sub/deep/d.txt", "subs/e.txt"]


@pytest.mark.parametrize(
    "pattern, found",
    [
        ("a.txt", ["a.txt"]),
        ("none", []),
        ("*.txt", ["a.txt"]),
        ("**", NAMES),
        ("sub/**", ["sub/c.txt", "sub/deep/d.txt"]),
        ("**/*.txt", ["a.txt", "sub/c.txt", "sub/deep/d.txt", "subs/e.txt"]),
        ("su**/*.txt", ["sub/c.txt", "subs/e.txt"]),
        ("[ab].*", ["a.txt", "b.jsonl"]),
        ("su?/?.txt", ["sub/c.txt"]),
    ],
)
def test_a_glob_of_a_store_means_what_it_means_on_a_local_disk(tmp_path, pattern, found):
    root = f"memory://{tmp_path.name}"
    for name in NAMES:
        storage.write_whole(f"{root}/{name}", [b"abc"])
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"abc")
    listed, folders = storage.match(f"{root}/{pattern}")
    assert sorted(listed) == [f"{root}/{name}" for name in found] and folders == []
    assert all(size == 3 and abs(modified - time.time()) < 100 for size, modified in listed.values())
    local = [name for name in NAMES if storage.matches(f"{tmp_path}/{pattern}", f"{tmp_path}/{name}")]
    assert local == found
    assert found == sorted(p.relative_to(tmp_path).as_posix() for p in _globbed(tmp_path, pattern))


def _globbed(folder: Path, pattern: str) -> list[Path]:
    import glob

    return [Path(name) for name in glob.glob(f"{folder}/{pattern}", recursive=True) if os.path.isfile(name)]


@pytest.mark.parametrize(
    "url, missing, message",
    [
        ("s3://bucket/file", "s3fs", "pip install -e '.[s3]'"),
        ("gs://bucket/file", "gcsfs", "pip install -e '.[gcs]'"),
        ("https://host/file", "aiohttp", "pip install -e '.[http]'"),
        ("nope://file", "-", "Protocol not known: nope; expected s3://…, gs://…, https://… or a local path"),
    ],
)
def test_what_cannot_be_reached_says_what_to_install(url, missing, message):
    code = f"import sys; sys.modules[{missing!r}] = None; from bertloom import storage; storage.read({url!r})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = ran.stderr.splitlines()[-1]
    assert last.startswith(f"ValueError: {url}") and message in last


def test_one_client_serves_a_whole_process():
    assert storage.file_system("memory://a/b")[0] is storage.file_system("memory://c/d")[0]


def test_one_client_serves_all_threads_of_a_process():
    here = storage.file_system("s3://bucket/a")[0]
    with ThreadPoolExecutor(4) as pool:
        assert all(found is here for found in pool.map(lambda _: storage.file_system("s3://other/b")[0], range(8)))
    assert {process for process, _, _ in stores.clients} == {os.getpid()}


def test_the_flags_of_beam_become_options_of_a_store(monkeypatch):
    assert storage_options(PipelineOptions([])) == {}
    flags = ["--s3_endpoint_url=http://store", "--s3_access_key_id=me", "--s3_disable_ssl", "--s3_region_name=here"]
    expected = {"endpoint_url": "http://store", "key": "me", "use_ssl": False, "client_kwargs": {"region_name": "here"}}
    assert storage_options(PipelineOptions(flags)) == {"s3": expected}
    options = storage_options(PipelineOptions(["--hdfs_host=node", "--hdfs_port=9870", "--hdfs_user=me"]))
    monkeypatch.setattr(stores, "_options", {})
    storage.connect(options)
    system, within = storage.file_system("hdfs://folder/file")
    assert (system.url, within) == ("http://node:9870/webhdfs/v1", "/folder/file")
    storage.connect(storage_options(PipelineOptions(["--hdfs_host=node", "--hdfs_full_urls"])))
    assert storage.file_system("hdfs://any/folder/file")[1] == "/folder/file"


def test_a_file_below_a_folder_has_a_plain_relative_name_and_is_a_regular_file(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "00000.tar").write_bytes(b"a shard")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "link.tar").symlink_to(tmp_path / "train" / "00000.tar")
    folder = str(tmp_path)
    assert storage.file_below(folder, "train/00000.tar") == f"{folder}/train/00000.tar"
    assert storage.file_below(folder, "link.tar") == f"{folder}/link.tar"
    assert storage.file_below("s3://bucket/set", "train/00000.tar") == "s3://bucket/set/train/00000.tar"
    for name in (
        "",
        "/etc/passwd",
        "../up",
        "train/../../up",
        "a//b",
        "./a",
        "a/",
        "a\\b",
        "a?b",
        "s3://b/c",
        "a\n",
        "a\0",
    ):
        with pytest.raises(ValueError, match=r"is not the name of a file inside"):
            storage.file_below(folder, name)
    for name in ("pipe", "zero", "train"):
        with pytest.raises(ValueError, match=rf"{name} is not a regular file"):
            storage.file_below(folder, name)
    with pytest.raises(FileNotFoundError):
        storage.file_below(folder, "train/00001.tar")

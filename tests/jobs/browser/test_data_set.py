"""A data set as the pages of `bertloom browse` read it: by number, within a bound of memory, and checked."""

import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pyarrow as pa
import pytest

from bertloom import storage
from bertloom.members import read_shard
from bertloom.store_errors import StoreError
from jobs.browser import data_set as module
from jobs.browser.data_set import BrowsedDataSet, DamagedFile
from jobs.browser.lru import LruCache
from jobs.verify import verify
from tests.model.object_store import object_store, serve

SHARD = "train/seq32/copy1/00000.tar"


def opened(path: Path | str) -> BrowsedDataSet:
    return BrowsedDataSet(str(path), None, 1.0)


def all_rows(path: Path) -> list[dict[str, object]]:
    """Every example of a data set, in the order of shards.parquet."""
    shards = opened(path).shards["path"].to_pylist()
    return [row for shard in shards for row in read_shard(str(path / shard)).to_pylist()]


def copied(path: Path, to: Path) -> Path:
    return Path(shutil.copytree(path, to / "copy"))


def test_an_example_is_found_by_its_number(left_out):
    data_set, rows = opened(left_out), all_rows(left_out)
    assert data_set.num_examples == len(rows) > 12_000
    edges = {*data_set.member_firsts[:-1].tolist(), *(data_set.member_firsts[1:] - 1).tolist()}
    for index in {*edges, *range(0, len(rows), 97)}:
        assert data_set.example(index) == rows[index]
    for index in (-1, len(rows)):
        with pytest.raises(ValueError, match=f"has no example {index}: expected 0 to {len(rows) - 1}"):
            data_set.locate(index)


def test_a_document_is_found_by_its_id(left_out):
    data_set = opened(left_out)
    for split, numbers in data_set.pages.items():
        for number in numbers:
            for row in data_set.documents(split, number).to_pylist():
                assert data_set.bucket_of(row["id"]) == (split, number)
                assert data_set.document(row["id"]) == row
                assert data_set.bucket_of(row["id"] ^ 1) is data_set.document(row["id"] ^ 1) is None
    assert data_set.document(0) is None and data_set.document((1 << 64) - 1) is None


def test_columns_that_are_read_alone_are_those_of_the_member(left_out):
    data_set = opened(left_out)
    for number in range(len(data_set.member_firsts) - 1):
        place = data_set.member_place(number)
        names = ["document_a", "masked_lm_positions"]
        assert data_set.columns(*place, names).equals(data_set.member(*place).select(names))


def test_values_that_are_kept_stay_within_their_bound():
    made = []
    cache = LruCache[bytes](100, len)

    def get(key: str, size: int) -> bytes:
        return cache.get(key, lambda: made.append(key) or bytes(size))

    for key in ("a", "b", "a", "c", "a", "b"):
        assert len(get(key, 40)) == 40 and cache.size <= 100
    assert made == ["a", "b", "c", "b"]  # c took the place of b, and b that of c
    assert len(get("large", 101)) == 101 and cache.size == 80
    get("large", 101)
    assert made[4:] == ["large", "large"]


def test_values_without_a_size_are_kept_by_their_number():
    made = []
    cache = LruCache[str](2)
    for key in ("a", "b", "a", "c", "a", "b"):
        assert cache.get(key, lambda key=key: made.append(key) or key) == key
    assert made == ["a", "b", "c", "b"] and cache.size == 2


def test_members_are_read_again_only_when_others_took_their_place(left_out, monkeypatch):
    largest = max(max(row["member_bytes"]) for row in opened(left_out).rows)
    monkeypatch.setattr(module, "MEMBER_BYTES", 3 * largest)
    data_set, reads, real = opened(left_out), [], storage.read_range
    monkeypatch.setattr(storage, "read_range", lambda path, *place: reads.append((path, *place)) or real(path, *place))
    for _ in range(3):
        data_set.example(5)
        data_set.example(1500)
    assert len(reads) == 2
    for first in data_set.member_firsts[:-1].tolist():
        data_set.example(first)
    del reads[:]
    data_set.example(5)
    assert len(reads) == 1


def test_several_threads_read_at_once(left_out, monkeypatch):
    monkeypatch.setattr(module, "MEMBER_BYTES", 300_000)
    data_set, rows, wrong = opened(left_out), all_rows(left_out), []

    def read(step: int) -> None:
        for index in range(step, len(rows), 601):
            if data_set.example(index) != rows[index] or data_set.document(rows[index]["document_a"]) is None:
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(step,)) for step in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_second_member(path: Path) -> None:
    content = bytearray(path.read_bytes())
    end = content.rindex(b"ARROW1")
    content[end - 200 : end] = bytes(200)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, break_second_member, Path.unlink])
def test_a_damaged_shard_gives_the_line_of_verify(left_out, tmp_path, damage):
    copy = copied(left_out, tmp_path)
    damage(copy / SHARD)
    (line, *_) = [fault for fault in verify(str(copy))[0] if fault.startswith(SHARD)]
    data_set = opened(copy)
    number = data_set.shards["path"].to_pylist().index(SHARD)
    for read in (data_set.member, lambda shard, member: data_set.columns(shard, member, ["input_ids"])):
        with pytest.raises(DamagedFile) as error:
            read(number, 1)
        assert line in str(error.value) and "`bertloom verify" in str(error.value)
    if damage is break_second_member:
        assert "member 1 at byte" in str(error.value)
        data_set.member(number, 0)
    data_set.member(0, 0)


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_damaged_page_of_documents_gives_the_line_of_verify(left_out, tmp_path, damage):
    copy = copied(left_out, tmp_path)
    name = "documents/train/00001.parquet"
    damage(copy / name)
    (line, *_) = [fault for fault in verify(str(copy))[0] if fault.startswith(name)]
    with pytest.raises(DamagedFile) as error:
        opened(copy).documents("train", 1)
    assert line in str(error.value)


@pytest.fixture
def store(left_out):
    with object_store() as store:
        store.upload(left_out, "bucket")
        yield store


def test_a_data_set_in_a_store_is_read_through_the_cache(left_out, store, tmp_path):
    local, indices = opened(left_out), [0, 1500, 2000, 12_000]
    for _ in range(2):
        data_set = BrowsedDataSet("s3://bucket/set", tmp_path / "cache", 1.0)
        assert [data_set.example(index) for index in indices] == [local.example(index) for index in indices]
        assert data_set.columns(0, 1, ["document_a"]).equals(local.columns(0, 1, ["document_a"]))
        document = data_set.example(1500)["document_a"]
        assert data_set.document(document) == local.document(document)
    assert len(store.fetched()) == 3  # each of three shards once


def test_a_shard_that_a_store_damaged_gives_the_line_of_verify(store, tmp_path, monkeypatch):
    monkeypatch.setattr("model.loading.folder.FIRST_WAIT_SECONDS", 0)
    content = store.client().get_object(Bucket="bucket", Key=f"set/{SHARD}")["Body"].read()
    store.client().put_object(Bucket="bucket", Key=f"set/{SHARD}", Body=content[:-1] + b"x")
    data_set = BrowsedDataSet("s3://bucket/set", tmp_path / "cache", 1.0)
    number = data_set.shards["path"].to_pylist().index(SHARD)
    with pytest.raises(DamagedFile, match=f"{SHARD}: its sha256 differs from the one in shards.parquet"):
        data_set.member(number, 0)


def test_a_store_that_does_not_answer_is_no_damage(store, tmp_path, monkeypatch):
    monkeypatch.setattr("model.loading.folder.TRIES", 1)
    data_set = BrowsedDataSet("s3://bucket/set", tmp_path / "cache", 1.0)
    store.fail("lost", SHARD, 1000)
    number = data_set.shards["path"].to_pylist().index(SHARD)
    with pytest.raises((ValueError, StoreError)) as error:
        data_set.member(number, 0)
    assert not isinstance(error.value, DamagedFile) and SHARD in str(error.value)
    store.reset()
    assert data_set.member(number, 0).num_rows == 1024


def test_a_data_set_is_read_over_http(left_out, tmp_path):
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with serve(partial(Handler, directory=str(left_out))) as address:
        data_set = BrowsedDataSet(address, tmp_path / "cache", 1.0)
        assert data_set.example(12_000) == opened(left_out).example(12_000)
        assert data_set.documents("train", 1).num_rows > 10


def test_the_pages_of_a_data_set_import_neither_torch_nor_beam(left_out):
    code = (
        "import sys; from pathlib import Path; from tests.jobs.browser.page_reader import Reader\n"
        "reader = Reader(Path(sys.argv[1]))\n"
        "for section in ('examples', 'examples?word=the&split=train', 'examples/5'): reader.get(f'd0/{section}')\n"
        "print({'torch', 'apache_beam'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(left_out)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_member_holds_its_memory_only_while_it_is_used(left_out):
    data_set = opened(left_out)
    before = pa.total_allocated_bytes()
    for number in range(len(data_set.member_firsts) - 1):
        data_set.columns(*data_set.member_place(number), ["input_ids"])
    assert pa.total_allocated_bytes() == before

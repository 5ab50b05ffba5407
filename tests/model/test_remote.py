"""Data sets behind a URL, against a real S3 server on loopback and a proxy that fails as networks do."""

import functools
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from bertloom.store_errors import StoreError
from model.loading import cache, folder, members
from model.loading.data import DataSet, Examples
from tests.model import synthetic
from tests.model.object_store import Store, object_store, serve
from tests.model.seen_from_outside import num_mapped, query

ROOMY_GB = 0.1
SMALL_GB = 0.00012  # of 0.00032
"""Room for less than half the data set."""
NUM_SHARDS = 12


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """12 shards of 200 rows in two members each."""
    directory = tmp_path_factory.mktemp("data") / "set"
    return synthetic.write_data_set(directory, rows=(2400,), num_shards=NUM_SHARDS, num_validation=50, per_member=100)


@pytest.fixture(scope="module")
def server(local):
    with object_store() as store:
        store.upload(local, "bucket")
        yield store


@pytest.fixture
def store(server, monkeypatch) -> Store:
    """The server without faults; what is waited for is short, and s3fs does not try again by itself."""
    server.reset()
    monkeypatch.setattr(folder, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    return server


URL = "s3://bucket/set"


def open_remote(directory: Path, gigabytes: float = ROOMY_GB, url: str = URL) -> Examples:
    return DataSet(url, directory, gigabytes).examples("train")


def assert_same_rows(examples: Examples, local: Path, shuffle: str = "global", stop: int = 2600) -> None:
    twin = DataSet(local).examples("train")
    ahead = examples.items_ahead(examples.order(1, shuffle))
    for start in range(0, stop, 50):
        copies, rows = ahead.items(start, start + 50)
        ours, theirs = examples.gather(copies, rows), twin.gather(copies, rows)
        assert ours.input_ids.equal(theirs.input_ids) and ours.masked_ids.equal(theirs.masked_ids)
        assert ours.masked_positions.equal(theirs.masked_positions)
        assert ours.next_sentence_label.equal(theirs.next_sentence_label)


def files(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.arrow"))


def sizes(directory: Path) -> int:
    return sum(path.stat().st_size for path in files(directory))


def says(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def test_rows_come_through_the_cache_each_shard_once_and_then_never_again(store, local, tmp_path):
    assert_same_rows(open_remote(tmp_path), local)
    assert len(store.fetched()) == len({path for path, _ in store.fetched()}) == NUM_SHARDS
    shards = pq.read_table(local / "shards.parquet").to_pylist()
    assert len(files(tmp_path)) == 2 * NUM_SHARDS
    first = pa.ipc.open_file((tmp_path / "shards" / shards[0]["sha256"] / "000001.arrow").read_bytes()).read_all()
    content = (local / shards[0]["path"]).read_bytes()[shards[0]["member_offsets"][1] :]
    assert first.equals(pa.ipc.open_file(content[: shards[0]["member_bytes"][1]]).read_all())
    store.reset()
    assert_same_rows(open_remote(tmp_path), local, "window:3")
    assert store.fetched() == []
    fsspec.filesystem("memory").put(str(local), "/elsewhere", recursive=True)
    assert_same_rows(open_remote(tmp_path, url="memory://elsewhere"), local)  # the same shards, wherever they lie
    assert len(files(tmp_path)) == 2 * NUM_SHARDS


@pytest.mark.parametrize("kind", ["500", "cut", "slow", "flip"])
def test_what_fails_for_a_while_is_tried_again(store, local, tmp_path, monkeypatch, caplog, kind):
    if kind == "slow":
        monkeypatch.setattr(folder, "READ_SECONDS", 0.3)
    for number in (1, 5):
        store.fail(kind, f"0000{number}.tar", 2)
    store.fail(kind, "manifest.json", 1)
    store.fail(kind, "shards.parquet", 1)
    assert_same_rows(open_remote(tmp_path), local, stop=300)
    assert "manifest.json: try 1 of 5 failed" in caplog.text and "shards.parquet: try 1 of 5 failed" in caplog.text
    for number in (1, 5):
        url = f"s3://bucket/set/train/seq32/copy0/0000{number}.tar"
        reason = {
            "500": "OSError",
            "cut": "ClientPayloadError",
            "slow": "TimeoutError: it took longer than 0.3",
            "flip": "Damaged: its sha256 is ",
        }[kind]
        assert re.search(rf"{re.escape(url)}: try 1 of 5 failed \({reason}.*\); again in 0.01 s", caplog.text)
        assert re.search(rf"{re.escape(url)}: try 2 of 5 failed \({reason}.*\); again in 0.02 s", caplog.text)
        assert f"{url}: try 3" not in caplog.text


@pytest.mark.parametrize("kind", ["500", "cut", "flip"])
def test_what_goes_on_failing_ends_in_an_error_that_says_what_failed_and_how_often(store, tmp_path, monkeypatch, kind):
    waits = []
    monkeypatch.setattr(folder.time, "sleep", waits.append)
    examples = open_remote(tmp_path)
    store.fail(kind, "00003.tar", 99)
    reason = {"500": "OSError: ", "cut": "ClientPayloadError: ", "flip": "Damaged: its sha256 is "}[kind]
    with says(f"{URL}/train/seq32/copy0/00003.tar could not be read, 5 tries failed, the last with {reason}"):
        examples.gather(np.array([0]), np.array([601]))
    assert waits == [0.01, 0.02, 0.04, 0.08]
    assert len(store.fetched()) == 5
    store.reset()
    assert examples.gather(np.array([0]), np.array([601])).lengths  # and is not held against it for ever


def test_a_failure_in_what_is_fetched_ahead_is_told_by_who_reads_it(store, tmp_path):
    examples = open_remote(tmp_path)
    store.fail("500", "00003.tar", 5)
    rows = np.array([1, 601])
    examples.expect(np.zeros(2, dtype=np.int64), rows)
    assert examples.gather(np.array([0]), rows[:1]).lengths
    with says("00003.tar could not be read, 5 tries failed"):
        examples.gather(np.array([0]), rows[1:])
    assert len(store.fetched()) == 6


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_what_is_to_be_fetched_ahead_ends_with_its_reader(store, tmp_path, monkeypatch, how):
    monkeypatch.setattr(folder, "FIRST_WAIT_SECONDS", 0.5)
    before = set(threading.enumerate())
    examples = open_remote(tmp_path)
    store.fail("500", ".tar", 999)
    rows = np.arange(0, 2400, 200)
    examples.expect(np.zeros_like(rows), rows)
    while not store.fetched():
        time.sleep(0.01)
    threads = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("members")]
    assert len(threads) == 8
    if how == "closed":
        examples.close()
    else:
        del examples
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert len(store.fetched()) < 3 * 8  # of 12 times 5: those under way are not tried for long, the others not at all


def test_what_may_not_be_read_or_is_missing_is_said_at_once(store, local, tmp_path):
    with says("s3://bucket/other has no manifest.json: it is not a data set"):
        DataSet("s3://bucket/other")
    store.fail("403", "manifest.json", 9)
    with pytest.raises(
        StoreError, match=f"{URL}/manifest.json: s3://bucket refuses access .asked for.: give these cred"
    ):
        DataSet(URL)
    assert len(store.fetched("set/manifest.json")) == 1
    store.reset()
    url = store.upload(local, "lacking")
    examples = open_remote(tmp_path, url=url)
    store.client().put_object(Bucket="lacking", Key="set/train/seq32/copy0/00002.tar", Body=b"short")
    with says(f"shard {url}/train/seq32/copy0/00002.tar has 5 bytes, shards.parquet says "):
        examples.check_shards()
    store.client().delete_object(Bucket="lacking", Key="set/train/seq32/copy0/00002.tar")
    with says(f"shard {url}/train/seq32/copy0/00002.tar is missing: copy the data set again"):
        open_remote(tmp_path, url=url).check_shards()
    with says(f"shard {url}/train/seq32/copy0/00002.tar is missing: copy the data set again"):
        examples.gather(np.array([0]), np.array([401]))


def test_urls_that_cannot_be_are_refused():
    with says("nope://bucket/set: Protocol not known: nope; expected s3://…, gs://…, https://… or a local path"):
        DataSet("nope://bucket/set")
    code = "import sys; sys.modules['s3fs'] = None; from model.loading.folder import open_folder; open_folder('s3://b')"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install -e '.[s3]'" in ran.stderr.splitlines()[-1]


def test_a_cache_smaller_than_the_data_stays_within_its_bound_and_fetches_members_alone(
    store, local, tmp_path, monkeypatch
):
    monkeypatch.setattr(members, "TIDY_SECONDS", 0)
    examples = open_remote(tmp_path, SMALL_GB)
    most = []
    touch = examples.data_set.cache().put

    def put(*arguments) -> None:
        touch(*arguments)
        most.append(sizes(tmp_path))

    examples.data_set.cache().put = put
    assert_same_rows(examples, local, "window:3", stop=3 * 2400)
    assert 0.7 * SMALL_GB < max(most) / 1e9 <= SMALL_GB
    whole = [path for path, part in store.fetched() if part.startswith("bytes=0-")]
    assert len(whole) == len(set(whole)) == NUM_SHARDS
    members_alone = [path for path, part in store.fetched() if not part.startswith("bytes=0-")]
    assert NUM_SHARDS < len(members_alone) <= 3 * 2 * NUM_SHARDS  # of 72 members that three epochs read
    assert list((tmp_path / "tmp").iterdir()) == []
    assert query(tmp_path, "SELECT bytes FROM total") == sizes(tmp_path)
    assert query(tmp_path, "SELECT COUNT(*) FROM members") == len(files(tmp_path))


@pytest.mark.parametrize("kind", ["500", "cut", "flip"])
def test_a_member_fetched_alone_is_checked_and_tried_again_too(store, local, tmp_path, caplog, kind):
    examples = open_remote(tmp_path)
    examples.gather(np.array([0]), np.array([601]))
    shutil.rmtree(tmp_path / "shards" / examples.shards.sha256[3])
    store.reset()
    store.fail(kind, "00003.tar", 1)
    examples = open_remote(tmp_path)
    twin = DataSet(local).examples("train")
    rows = np.zeros(1, dtype=np.int64), np.array([701])
    assert examples.gather(*rows).input_ids.equal(twin.gather(*rows).input_ids)
    assert f"member 1 of {URL}/train/seq32/copy0/00003.tar: try 1 of 5 failed" in caplog.text
    begin, size = examples.shards.member_offsets[7], examples.shards.member_bytes[7]
    assert store.fetched() == [("/bucket/set/train/seq32/copy0/00003.tar", f"bytes={begin}-{begin + size - 1}")] * 2


def test_in_global_order_too_small_a_cache_is_said_with_numbers_and_still_works(store, local, tmp_path):
    examples = open_remote(tmp_path, SMALL_GB)
    assert_same_rows(examples, local, "global", stop=500)
    assert sizes(tmp_path) <= SMALL_GB * 1e9
    note = examples.note_on_cache("global")
    assert re.search(r"a copy of length 32 has 0.0003\d+ GB, the cache has room for 0.00012: in global order", note)
    assert re.search(r"6\d% of the examples will fetch 1\d KB each; take --cache-gb 0.0003\d+, or", note)
    assert examples.note_on_cache("window:3") is None
    assert open_remote(tmp_path).note_on_cache("global") is None
    assert DataSet(local).examples("train").note_on_cache("global") is None


def test_a_cache_too_small_for_a_few_shards_is_refused(store, tmp_path):
    with says("cache_gb=1e-05 is too small for s3://bucket/set: the cache must hold 4 of the largest shards. Give at"):
        open_remote(tmp_path, 0.00001)


def test_what_is_damaged_in_the_cache_is_fetched_again(store, local, tmp_path, caplog):
    assert_same_rows(open_remote(tmp_path), local, stop=2400)
    damaged = files(tmp_path)
    flipped = bytearray(damaged[0].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    damaged[0].write_bytes(flipped)
    damaged[1].write_bytes(damaged[1].read_bytes()[:-1])
    damaged[2].write_bytes(b"")
    damaged[3].unlink()
    store.reset()
    assert_same_rows(open_remote(tmp_path), local, stop=2400)
    assert len(store.fetched()) == 4
    assert [f"{path} is damaged and is fetched again" in caplog.text for path in damaged[:4]] == [True] * 3 + [False]
    (tmp_path / "index.sqlite").write_bytes(b"this is no database, whatever it may have been" * 100)
    for name in ("index.sqlite-wal", "index.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with says(f"{tmp_path}/index.sqlite cannot be used (file is not a database): remove {tmp_path}"):
        open_remote(tmp_path)


def test_what_killed_writers_left_behind_is_removed_and_not_believed(store, local, tmp_path):
    examples = open_remote(tmp_path)
    examples.gather(np.array([0]), np.array([0]))
    here = examples.data_set.cache()
    key = examples.shards.sha256[0], 1
    # killed after the entry was made and before the file was there
    here.file(*key).unlink()
    query(
        tmp_path,
        "UPDATE total SET bytes = bytes + 10000 - (SELECT bytes FROM members WHERE (shard, member) = (?, ?))",
        *key,
    )
    query(
        tmp_path,
        "UPDATE members SET bytes = 10000, used = ? WHERE (shard, member) = (?, ?)",
        time.time() + cache.IN_WRITING_SECONDS,
        *key,
    )
    old = tmp_path / "tmp" / "old"
    old.write_bytes(b"half")
    os.utime(old, (1, 1))
    (tmp_path / "tmp" / "new").write_bytes(b"half")
    assert_same_rows(open_remote(tmp_path), local)
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["new"]
    assert query(tmp_path, "SELECT bytes FROM total") == sizes(tmp_path)


def test_a_mapped_member_that_another_process_evicts_can_be_read_on_and_is_let_go_of(
    store, local, tmp_path, monkeypatch
):
    monkeypatch.setattr(members, "TIDY_SECONDS", 0)
    examples, twin = open_remote(tmp_path), DataSet(local).examples("train")
    rows = np.zeros(2, dtype=np.int64), np.array([1, 101])
    expected = twin.gather(*rows)
    assert examples.gather(*rows).input_ids.equal(expected.input_ids)
    shutil.rmtree(tmp_path / "shards" / examples.shards.sha256[0])
    assert examples.gather(*rows).input_ids.equal(expected.input_ids)
    assert num_mapped(tmp_path / "shards") == 2
    examples.gather(np.array([0]), np.array([601]))
    assert num_mapped(tmp_path / "shards") == 1
    assert examples.gather(*rows).input_ids.equal(expected.input_ids)
    assert len(store.fetched()) == 4  # two shards, then two members alone


def test_the_least_recently_used_make_room(store, local, tmp_path, monkeypatch):
    monkeypatch.setattr(members, "TIDY_SECONDS", 0)
    examples = open_remote(tmp_path, SMALL_GB)

    def read(shard: int) -> None:
        examples.gather(np.zeros(2, dtype=np.int64), shard * 200 + np.array([1, 101]))

    for shard in (0, 1, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7):
        read(shard)
    there = [(tmp_path / "shards" / examples.shards.sha256[shard] / "000000.arrow").exists() for shard in range(8)]
    assert there[0] and there[7] and not there[1] and not there[2]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_over_http_also_from_a_server_that_knows_no_ranges(local, tmp_path, knows_ranges):
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            if not knows_ranges or "Range" not in self.headers:
                return super().do_GET()
            begin, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            content = (local / self.path.lstrip("/")).read_bytes()[begin : end + 1]
            self.send_response(206)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    handler: type[BaseHTTPRequestHandler] = functools.partial(Handler, directory=str(local))
    with serve(handler) as url:
        examples = open_remote(tmp_path, SMALL_GB, url)
        examples.check_shards()  # which cannot know more
        assert_same_rows(examples, local, "window:3", stop=5000)
        with says(f"{url}/train has no manifest.json"):
            DataSet(f"{url}/train")


def test_nothing_unchecked_is_kept(store, local, tmp_path, monkeypatch):
    """Every file of the cache is held to a checksum that goes back to shards.parquet."""
    assert_same_rows(open_remote(tmp_path, SMALL_GB), local, "window:3", stop=4800)
    content = {hashlib.sha256((local / path).read_bytes()).hexdigest(): local / path for path in relative(local)}
    for path in files(tmp_path):
        shard = content[path.parent.name].read_bytes()
        assert path.read_bytes() in shard


def relative(local: Path) -> list[str]:
    return pq.read_table(local / "shards.parquet")["path"].to_pylist()


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.WARNING)

"""Stores that throttle, cut connections or refuse: what is read and written is whole, or an error says what to do."""

import asyncio
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from bertloom import storage, store_files, stores
from bertloom.store_errors import StoreError
from tests.bertloom.other_stores import google_store, hdfs
from tests.model.object_store import Store, object_store

CONTENT = bytes(range(256)) * 2000
"""512,000 bytes: more than the least that is read at once."""


@pytest.fixture(scope="module")
def s3() -> Iterator[Store]:
    with object_store() as store:
        store.client().create_bucket(Bucket="bucket")
        yield store


@pytest.fixture(scope="module")
def gs() -> Iterator[Store]:
    with google_store("bucket") as store:
        yield store


@pytest.fixture(scope="module")
def webhdfs(tmp_path_factory) -> Iterator[Store]:
    with hdfs(tmp_path_factory.mktemp("hdfs")) as store:
        yield store


@pytest.fixture(params=["s3", "gs", "webhdfs"])
def store(request, monkeypatch) -> Iterator[tuple[Store, str]]:
    """(the store without faults, the URL of a folder there); what is waited for is short."""
    found: Store = request.getfixturevalue(request.param)
    found.reset()
    monkeypatch.setattr(stores, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 2)
    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=lambda _: asyncio.sleep(0)))
    address = found.endpoint.removeprefix("http://")
    yield found, f"webhdfs://{address}/folder" if request.param == "webhdfs" else f"{request.param}://bucket/folder"
    found.reset()


def test_what_is_written_is_read_whole_by_range_and_line_by_line(store):
    _, url = store
    storage.make_folder(url)
    assert storage.write_whole(f"{url}/file", [CONTENT[:1000], CONTENT[1000:]])[0] == len(CONTENT)
    assert storage.read(f"{url}/file") == CONTENT and storage.size(f"{url}/file") == len(CONTENT)
    assert storage.read_range(f"{url}/file", 300_000, 10) == CONTENT[300_000:300_010]
    spans = [(500_000, 12_000), (0, 5), (3, 10), (499_990, 20)]
    assert storage.read_ranges(f"{url}/file", spans) == [CONTENT[begin : begin + size] for begin, size in spans]
    with pytest.raises(ValueError, match="ends 1 bytes early: expected 10 bytes at 511991"):
        storage.read_ranges(f"{url}/file", [(len(CONTENT) - 9, 10)])
    with storage.open_read(f"{url}/file") as file:
        assert list(file) == CONTENT.splitlines(keepends=True) or b"".join(file) == b""
        assert file.seek(-10, 2) == len(CONTENT) - 10 and file.read() == CONTENT[-10:] and file.read() == b""
        assert file.seek(5) == 5 and file.peek(1)[:1] == b"\x05" and file.read(2) == b"\x05\x06" and file.tell() == 7
    assert storage.names_in(url) == {"file"} and storage.read_if_there(f"{url}/other") is None
    with pytest.raises(FileNotFoundError, match=f"{url}/other"):
        storage.read(f"{url}/other")
    storage.write_whole(f"{url}/file", [])
    assert storage.read(f"{url}/file") == b"" and storage.size(f"{url}/file") == 0
    storage.remove(url)
    assert storage.names_in(url) == set() and storage.size(f"{url}/file") is None


@pytest.mark.parametrize("kind", ["503", "cut", "short"])
def test_a_read_is_tried_again_until_it_is_whole(store, kind):
    server, url = store
    storage.write_whole(f"{url}/file", [CONTENT])
    for read in READS:
        server.fail(kind, "file", 2)
        assert read(f"{url}/file") == CONTENT
        assert all(fault[2] == 0 for fault in server.faults)
    server.fail(kind, "file", 999)
    with pytest.raises(StoreError, match=f"^{url}/file: 5 tries failed, the last with .*check the network and the sto"):
        storage.read(f"{url}/file")


def _opened(path: str) -> bytes:
    with storage.open_read(path, len(CONTENT)) as file:
        return b"".join(iter(lambda: file.read(100_000), b""))


READS: list[Callable[[str], bytes]] = [
    storage.read,
    _opened,
    lambda path: storage.read_range(path, 0, len(CONTENT)),
    lambda path: b"".join(storage.read_ranges(path, [(0, 1000), (1000, len(CONTENT) - 1000)])),
]


@pytest.mark.parametrize("kind", ["503", "lost"])
def test_a_write_is_tried_again_and_never_seen_in_part(store, kind):
    server, url = store
    for method in ("PUT", "POST"):
        server.fail(kind, "folder" if method == "PUT" else "", 1, method)
    storage.write_whole(f"{url}/file", [CONTENT])
    assert storage.read(f"{url}/file") == CONTENT and storage.names_in(url) == {"file"}
    storage.write_whole(f"{url}/file", [b"other"])
    for method in ("PUT", "POST"):
        server.fail(kind, "", 999, method)
    with pytest.raises(StoreError, match=f"^{url}/file: "):
        storage.write_whole(f"{url}/file", [CONTENT])
    server.reset()
    assert storage.read(f"{url}/file") == b"other" and storage.names_in(url) == {"file"}


@pytest.mark.parametrize("kind", ["503", "lost"])
def test_a_large_file_is_sent_in_parts_and_seen_only_when_all_are_there(s3, monkeypatch, kind):
    monkeypatch.setattr(store_files, "UPLOAD_BYTES", 5 << 20)
    s3.reset()
    content = bytes(12 << 20)

    def chunks() -> Iterator[bytes]:
        for begin in range(0, len(content), 1 << 20):
            assert storage.size("s3://bucket/large/file") is None
            yield content[begin : begin + (1 << 20)]

    s3.fail(kind, "partNumber", 1, "PUT")
    s3.fail(kind, "uploads", 1, "POST")
    storage.write_whole("s3://bucket/large/file", chunks())
    assert storage.read("s3://bucket/large/file") == content
    assert sum(method == "PUT" for method, _, _ in s3.requests) == 3 + 1
    s3.fail(kind, "uploadId", 999, "POST")  # all parts are there, and the upload is never completed
    with pytest.raises(StoreError, match="^s3://bucket/large/other: "):
        storage.write_whole("s3://bucket/large/other", [content])
    s3.reset()
    assert storage.names_in("s3://bucket/large") == {"file"}
    assert "Uploads" not in s3.client().list_multipart_uploads(Bucket="bucket")
    storage.remove("s3://bucket/large")


def test_a_file_whose_content_cannot_be_made_is_not_written(store):
    _, url = store

    def chunks() -> Iterator[bytes]:
        yield CONTENT
        raise ValueError("no more")

    with pytest.raises(ValueError, match="^no more$"):
        storage.write_whole(f"{url}/broken", chunks())
    assert "broken" not in storage.names_in(url)


@pytest.mark.parametrize(
    "kind, message",
    [("expired", "have expired .*: renew them .*start the same command again, which does the rest"),
     ("403", "refuses access .*: give these credentials the permission to list, read and, for outputs, write")],
)  # fmt: skip
def test_a_refusal_is_not_tried_again_and_says_what_to_do(store, kind, message):
    server, url = store
    storage.write_whole(f"{url}/file", [CONTENT])
    for call, method in (
        (storage.read, "GET"),
        (storage.size, "GET" if not url.startswith("s3") else "HEAD"),
        (storage.names_in, "GET"),
        (lambda path: storage.write_whole(path, [CONTENT]), "POST" if url.startswith("gs") else "PUT"),
    ):
        server.fail(kind, "", 999, method)
        if method == "HEAD":
            server.fail(kind, "", 999, "GET")
        with pytest.raises(StoreError, match=message) as raised:
            call(f"{url}/file")
        place = "HDFS" if url.startswith("webhdfs") else url.removesuffix("/folder")
        assert re.match(f"{url}/file: .*{place}", str(raised.value))
        server.reset()


def test_a_file_that_changes_while_it_is_read_is_refused(store):
    _, url = store
    storage.write_whole(f"{url}/file", [CONTENT])
    with storage.open_read(f"{url}/file") as file:
        assert file.read(10) == CONTENT[:10]
        storage.write_whole(f"{url}/file", [CONTENT[:300_000]])
        with pytest.raises(StoreError, match="has changed while it was read|5 tries failed"):
            file.read()


def test_a_file_that_is_replaced_by_one_of_the_same_size_while_it_is_read_is_refused(s3):
    path = "s3://bucket/replaced"
    storage.write_whole(path, [CONTENT])
    with storage.open_read(path, len(CONTENT)) as file:
        assert file.read(10) == CONTENT[:10]
        storage.write_whole(path, [CONTENT[::-1]])
        with pytest.raises(
            StoreError, match=f"^{path} has changed while it was read, though not its size. Start again"
        ):
            file.read()
    assert storage.read(path) == CONTENT[::-1]


def test_googles_store_names_the_content_of_a_file_by_its_generation():
    async def call(*_: object, **__: object) -> tuple[dict[str, str], bytes]:  # the emulator names none
        return {"Content-Range": "bytes 0-4/9", "X-Goog-Generation": "17", "ETag": "x"}, b"01234"

    system = SimpleNamespace(url=str, _call=call)
    assert asyncio.run(stores._fetch_gs(system, "bucket/file", 0, 5)) == stores.Answer(b"01234", 9, "17")


@pytest.mark.parametrize("url", ["s3://no-such-bucket/a", "gs://no-such-bucket/a"])
def test_a_bucket_that_does_not_exist_is_named(s3, gs, url):
    message = f"the bucket {url.removesuffix('/a')} does not exist: create it, or correct its name"
    for call in (storage.read, storage.names_in, storage.exists, storage.info, storage.find, storage.match):
        with pytest.raises(StoreError, match=message):
            call(url)
    with pytest.raises(StoreError, match=message):
        storage.write_whole(url, [b"x"])


def test_missing_and_wrong_credentials_say_what_to_set(s3, monkeypatch):
    s3.reset()
    s3.fail("wrong", "", 9)
    with pytest.raises(StoreError, match="s3://bucket does not accept the credentials .*: check AWS_ACCESS_KEY_ID"):
        storage.read("s3://bucket/file")
    s3.reset()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    stores.clients.clear()
    s3_class = type(stores.file_system("s3://bucket/file")[0])
    s3_class.clear_instance_cache()
    stores.clients.clear()
    with pytest.raises(StoreError, match="no credentials for s3://bucket .*: set AWS_ACCESS_KEY_ID and AWS_SECRET"):
        storage.read("s3://bucket/file")
    stores.clients.clear()
    s3_class.clear_instance_cache()

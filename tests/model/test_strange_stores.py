"""Data sets behind servers of strangers: nothing outside the cache is touched, and no answer is kept without bound."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from model.loading import folder
from model.loading.data import DataSet
from tests.model import synthetic
from tests.model.object_store import KEYS, forget_clients, serve
from tests.model.synthetic import SHARDS_SCHEMA, write_manifest

ENOUGH = 50_000_000
"""More bytes than a client may take of an answer that has no end."""


@pytest.fixture(scope="module")
def genuine(tmp_path_factory) -> Path:
    """A shard of 400 rows in four members."""
    directory = tmp_path_factory.mktemp("data") / "set"
    return synthetic.write_data_set(directory, rows=(400,), num_shards=1, num_validation=0, per_member=100)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch) -> None:
    monkeypatch.setattr(folder, "FIRST_WAIT_SECONDS", 0.01)


def forged(genuine: Path, directory: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """A copy with other rows of shards.parquet, and right checksums."""
    shutil.copytree(genuine, directory)
    rows = pq.read_table(directory / "shards.parquet").to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=SHARDS_SCHEMA), directory / "shards.parquet")
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["shards_parquet"]["sha256"] = hashlib.sha256((directory / "shards.parquet").read_bytes()).hexdigest()
    write_manifest(directory, manifest)
    return directory


class Server(BaseHTTPRequestHandler):
    """Serves a folder. What it does with files whose path ends with `victim` is up to `lie`."""

    protocol_version = "HTTP/1.1"
    directory: Path
    victim = "nothing"
    lie = "none"
    sent = 0

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        cls, path = type(self), self.path.partition("?")[0]
        if "list-type" in self.path:
            return self.answer(self.listing())
        file = self.directory / path.lstrip("/").removeprefix("bucket/set/")
        if not file.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        content, is_victim = file.read_bytes(), path.endswith(self.victim)
        if is_victim and self.lie == "silent":
            time.sleep(2)
        if is_victim and self.lie == "endless":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while cls.sent < 2 * ENOUGH:
                self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                cls.sent += 0x10000
            self.close_connection = True
            return None
        if is_victim and self.lie == "less":
            content = content[:-7]
        if is_victim and self.lie == "more":
            content += bytes(1000)
        return self.answer(content)

    def listing(self) -> bytes:
        cls = type(self)
        cls.sent += 1
        files = [path for path in self.directory.rglob("*") if path.is_file()] if cls.lie != "endless list" else []
        entries = "".join(
            f"<Contents><Key>set/{path.relative_to(self.directory)}</Key><LastModified>2026-01-01T00:00:00.000Z"
            f"</LastModified><ETag>a</ETag><Size>{path.stat().st_size + (cls.lie == 'sizes')}</Size>"
            f"<StorageClass>STANDARD</StorageClass></Contents>"
            for path in files
        )
        more = f"<NextContinuationToken>{cls.sent}</NextContinuationToken>" if cls.lie == "endless list" else ""
        return (
            f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><Prefix>set/</Prefix>'
            f"<KeyCount>{len(files)}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>{str(bool(more)).lower()}</IsTruncated>"
            f"{more}{entries}</ListBucketResult>"
        ).encode()

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(content)

    do_HEAD = do_GET


def server_of(directory: Path) -> type[Server]:
    return type("OneServer", (Server,), {"directory": directory})


@pytest.fixture(params=["http", "s3"])
def lying(request, genuine, monkeypatch):
    """(class of the server, URL of the data set there)."""

    server = server_of(genuine)
    with serve(server) as url:
        if request.param == "http":
            yield server, url
            return
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": url}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
        forget_clients()
        yield server, "s3://bucket/set"
        forget_clients()


def read_all(url: str, cache: Path) -> None:
    examples = DataSet(url, cache, 0.1).examples("train")
    rows = np.arange(400)
    examples.gather(np.zeros_like(rows), rows)


def test_a_server_that_tells_the_truth_is_read(lying, tmp_path):
    read_all(lying[1], tmp_path)


@pytest.mark.parametrize("victim", [".tar", "manifest.json", "shards.parquet"])
def test_an_answer_without_end_is_cut_off(lying, tmp_path, monkeypatch, victim):
    server, url = lying
    monkeypatch.setattr(folder, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(folder, "TRIES", 2)
    server.victim, server.lie = victim, "endless"
    with pytest.raises(ValueError, match=r"could not be read, 2 tries failed|has more than 1,048,576 bytes"):
        read_all(url, tmp_path)
    assert server.sent < ENOUGH


def test_a_server_that_sends_nothing_is_given_up(lying, tmp_path, monkeypatch):
    server, url = lying
    monkeypatch.setattr(folder, "READ_SECONDS", 0.2)
    monkeypatch.setattr(folder, "TRIES", 2)
    server.victim, server.lie = ".tar", "silent"
    with pytest.raises(
        ValueError, match=r"could not be read, 2 tries failed, the last with TimeoutError: it took longer"
    ):
        read_all(url, tmp_path)


def test_less_than_a_shard_is_named_and_more_is_not_read(lying, tmp_path):
    server, url = lying
    server.victim, server.lie = ".tar", "less"
    with pytest.raises(
        ValueError, match=r"00000.tar could not be read, 5 tries failed, the last with Damaged: received"
    ):
        read_all(url, tmp_path)
    server.lie = "more"
    read_all(url, tmp_path)


@pytest.mark.parametrize("lying", ["s3"], indirect=True)
def test_a_listing_with_other_sizes_or_without_end_is_refused(lying, tmp_path, monkeypatch):
    server, url = lying
    examples = DataSet(url, tmp_path, 0.1).examples("train")
    server.lie = "sizes"
    with pytest.raises(
        ValueError, match=r"shard s3://bucket/set/train/seq32/copy0/00000.tar has \d+ bytes, shards.parq"
    ):
        examples.check_shards()
    monkeypatch.setattr(folder, "READ_SECONDS", 0.3)
    monkeypatch.setattr(folder, "TRIES", 2)
    server.lie = "endless list"
    forget_clients()
    with pytest.raises(ValueError, match="the list of s3://bucket/set could not be read, 2 tries failed"):
        examples.check_shards()


# ---- the cache


@pytest.mark.parametrize("place", ["../../victim", "absolute"])
def test_a_sha256_that_is_a_path_touches_nothing_outside_the_cache(genuine, tmp_path, place):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "000000.arrow").write_text("precious")
    (victim / "lock").write_text("of somebody else")
    sha256 = str(victim) if place == "absolute" else place
    evil = forged(genuine, tmp_path / "evil", lambda rows: rows[0].update(sha256=sha256))
    message = "shards.parquet: row 0 has the sha256 '.*, expected 64 hexadecimal"
    with serve(server_of(evil)) as url, pytest.raises(ValueError, match=message):
        read_all(url, tmp_path / "cache")
    assert {path.name: path.read_text() for path in victim.iterdir()} == {
        "000000.arrow": "precious",
        "lock": "of somebody else",
    }


def test_other_places_of_members_do_not_spoil_the_cache_for_the_genuine_data_set(genuine, tmp_path):
    def move_a_border(rows: list[dict[str, Any]]) -> None:
        sizes, offsets = rows[0]["member_bytes"], rows[0]["member_offsets"]
        sizes[0], sizes[1], offsets[1] = sizes[0] + 512, sizes[1] - 512, offsets[1] + 512

    def one_more(rows: list[dict[str, Any]]) -> None:  # cuts the last member in two
        sizes, offsets, counts = (rows[0][f"member_{name}"] for name in ("bytes", "offsets", "examples"))
        begin, size = offsets[3], -(-sizes[3] // 512) * 512
        sizes[3:], offsets[3:], counts[3:] = [512, size - 1024], [begin, begin + 1024], [50, 50]

    cache = tmp_path / "cache"
    for name, change in (("border", move_a_border), ("more", one_more)):
        evil = forged(genuine, tmp_path / name, change)
        with serve(server_of(evil)) as url, pytest.raises(ValueError, match="tar header"):
            read_all(url, cache)
    with serve(server_of(genuine)) as url:
        read_all(url, cache)
    for name in ("border", "more"):  # what is there is the genuine shard, which these cannot use
        with serve(server_of(tmp_path / name)) as url, pytest.raises(ValueError, match="member|bytes, expected"):
            read_all(url, cache)
    with serve(server_of(genuine)) as url:
        read_all(url, cache)

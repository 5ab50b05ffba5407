"""The cache by itself."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model.loading.cache import MemberCache, default_directory
from tests.model.seen_from_outside import query


def total(cache: MemberCache) -> int:
    return query(cache.directory, "SELECT bytes FROM total")


def on_disk(directory: Path) -> dict[str, int]:
    return {f"{path.parent.name}/{path.name}": path.stat().st_size for path in directory.rglob("*.arrow")}


def put(cache: MemberCache, shard: str, members: dict[int, bytes], wanted: list[int]) -> None:
    with cache.only_one(shard):
        cache.put(shard, members, wanted)


def test_the_least_recently_used_make_room_and_first_what_is_not_wanted(tmp_path):
    cache = MemberCache(tmp_path, 1000)
    put(cache, "a", {0: bytes(300), 1: bytes(300), 2: bytes(300)}, [1])
    time.sleep(0.01)
    put(cache, "b", {0: bytes(200)}, [0])
    assert set(on_disk(tmp_path)) == {"a/000001.arrow", "a/000002.arrow", "b/000000.arrow"}
    cache.touch([("a", 2)])
    put(cache, "c", {0: bytes(400)}, [0])
    assert set(on_disk(tmp_path)) == {"a/000002.arrow", "b/000000.arrow", "c/000000.arrow"}
    assert total(cache) == sum(on_disk(tmp_path).values()) == 900
    cache.drop("c", 0)
    assert total(cache) == sum(on_disk(tmp_path).values()) == 500


def test_what_is_put_again_counts_once_and_a_smaller_bound_holds_from_the_next_put_on(tmp_path):
    cache = MemberCache(tmp_path, 1000)
    for _ in range(3):
        put(cache, "a", {0: bytes(400), 1: bytes(400)}, [0, 1])
    assert total(cache) == 800
    smaller = MemberCache(tmp_path, 500)
    assert total(smaller) == 800
    put(smaller, "b", {0: bytes(100)}, [0])
    assert total(cache) == sum(on_disk(tmp_path).values()) == 500


def test_checksums_of_members_stay_when_the_members_are_evicted(tmp_path):
    cache = MemberCache(tmp_path, 10)
    assert cache.checksums("a") is None
    with cache.only_one("a"):
        cache.put_shard("a", {0: b"zero", 1: b"one"}, [0])
    put(cache, "b", {0: bytes(10)}, [0])
    assert set(on_disk(tmp_path)) == {"b/000000.arrow"}
    assert MemberCache(tmp_path, 10).checksums("a") == [hashlib.sha256(word).digest() for word in (b"zero", b"one")]


def test_many_threads_of_several_users_fill_it_at_once_and_the_count_is_right(tmp_path):
    caches = [MemberCache(tmp_path, 20_000) for _ in range(3)]

    def fill(number: int) -> None:
        cache = caches[number % 3]
        for member in range(60):
            put(cache, f"{number // 2}", {member: bytes(700 + member)}, [member])
            cache.checksums("a")
            cache.touch([(f"{number // 2}", member)])

    with ThreadPoolExecutor(9) as pool:
        list(pool.map(fill, range(9)))
    assert 15_000 < sum(on_disk(tmp_path).values()) == total(caches[0]) <= 20_000
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_disk_without_room_is_said(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        ValueError, match=r"cannot be written \(No space left on device; .* GB are free\): give a smaller"
    ):
        put(MemberCache(tmp_path, 1000), "a", {0: b"zero"}, [0])


def test_it_lies_where_caches_lie(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "bertloom"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_directory() == Path("/home/someone/.cache/bertloom")

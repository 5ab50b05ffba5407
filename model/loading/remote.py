"""Members of remote shards, fetched into the cache before they are needed, and checked.

The first time a shard is fetched whole, because shards.parquet has a checksum of the whole shard; then it is cut into
members, and the cache keeps their checksums for good. A member that was evicted is fetched alone, by byte range, and checked
against its own checksum. So nothing unchecked is read, and with a cache smaller than the data set an epoch fetches each
member about once, not a whole shard for each of its members.
"""

import hashlib
import logging
import tarfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np

from bertloom.json_files import Damaged
from bertloom.manifest import DAMAGED
from model.loading.cache import MemberCache
from model.loading.folder import RemoteFolder, retry
from model.loading.members import ShardTable

NUM_THREADS = 8
"""Concurrent transfers of one process."""
LEAST_SHARDS = 4
"""The cache must have room for this many of the largest shards."""
TRIES_OF_DISK = 3

logger = logging.getLogger("bertloom")


class RemoteMembers:
    """Members as files of a cache: a `model.loading.members.Files`.

    Only one thread at a time may use it; several may call `open` if none ever calls `expect`.
    """

    def __init__(self, folder: RemoteFolder, shards: ShardTable, cache: MemberCache, num_sharing: int = 1) -> None:
        """num_sharing: number of data sets that read at the same time and share the cache."""
        largest = int(shards.bytes.max(initial=0))
        least = LEAST_SHARDS * num_sharing * largest
        if cache.max_bytes < least:
            raise ValueError(
                f"cache_gb={cache.max_bytes / 1e9:g} is too small for {folder}: the cache must hold "
                f"{LEAST_SHARDS * num_sharing} of the largest shards. Give at least {least / 1e9:.3g}"
            )
        self.folder = folder
        self.shards = shards
        self.cache = cache
        self._ahead = cache.max_bytes // (2 * num_sharing)
        self.sizes = shards.member_bytes
        self.file_of_member = np.arange(len(self.sizes))
        self.offsets = np.zeros_like(self.sizes)
        self._firsts = np.searchsorted(shards.shard_of_member, np.arange(len(shards.paths)))
        self._pool = ThreadPoolExecutor(NUM_THREADS, "members")
        self._coming: dict[int, Future[None]] = {}
        self._is_closed = False

    def name(self, number: int) -> str:
        """Return the URL of a member's shard."""
        return f"{self.folder}/{self.shards.paths[self.shards.shard_of_member[number]]}"

    def check(self) -> None:
        """Raise ValueError if a shard is missing or its size differs from shards.parquet, if the store lists sizes."""
        sizes = self.folder.sizes(len(self.shards.paths))
        if sizes is None:
            return
        for path, expected in zip(self.shards.paths, self.shards.bytes.tolist()):
            if path not in sizes:
                raise ValueError(f"shard {self.folder}/{path} is missing: copy the data set again, all of it")
            if sizes[path] != expected:
                raise ValueError(
                    f"shard {self.folder}/{path} has {sizes[path]} bytes, shards.parquet says {expected}: copy it again"
                )

    def expect(self, members: np.ndarray) -> None:
        """Start to fetch the members that are not cached, in this order, up to half the size of the cache. Data sets
        share the cache."""
        missing: dict[int, list[int]] = {}
        room = self._ahead
        for member in members.tolist():
            shard, ordinal = self._place(member)
            if self.cache.file(self.shards.sha256[shard], ordinal).exists():
                continue
            if shard not in missing:
                is_known = self.cache.checksums(self.shards.sha256[shard]) is not None
                room -= 0 if is_known else int(self.shards.bytes[shard])
            room -= int(self.sizes[member])
            if room < 0:
                break
            missing.setdefault(shard, []).append(ordinal)
        # Transfers that have not begun are requested again in the new order; failures are raised when the member is needed.
        self._coming = {
            shard: future
            for shard, future in self._coming.items()
            if not future.cancel() and (future.running() or future.exception())
        }
        for shard, ordinals in missing.items():
            if shard not in self._coming:
                self._coming[shard] = self._pool.submit(self._bring, shard, ordinals)

    def close(self) -> None:
        """Cancel queued transfers and let running ones fail at their next try. Otherwise a program that ends would wait for
        the threads to work through the whole queue."""
        self._is_closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def open(self, number: int) -> BinaryIO:
        """Open a member's file, checked, after fetching it if necessary."""
        shard, ordinal = self._place(number)
        key = self.shards.sha256[shard], ordinal
        if (future := self._coming.pop(shard, None)) and not future.cancel():
            future.result()
        for _ in range(TRIES_OF_DISK):
            try:
                file = open(self.cache.file(*key), "rb")  # noqa: SIM115 (it is handed on)
            except FileNotFoundError:
                self._bring(shard, [ordinal])
                continue
            checksums = self.cache.checksums(key[0])
            if checksums and hashlib.file_digest(file, "sha256").digest() in checksums[ordinal : ordinal + 1]:
                return file
            file.close()
            logger.warning("%s is damaged and is fetched again", self.cache.file(*key))
            self.cache.drop(*key)
        raise ValueError(
            f"{self.cache.file(*key)} changes after it is written: the disk damages it, or the cache is too small for all "
            f"processes that share it; give another --cache-dir or a larger --cache-gb"
        )

    def tidy(self, used: np.ndarray, idle: np.ndarray) -> np.ndarray:
        """Record used members in the cache, and return those of the idle ones that were evicted."""
        self.cache.touch([self._key(number) for number in used.tolist()])
        return idle[[not self.cache.file(*self._key(number)).exists() for number in idle.tolist()]]

    def _place(self, member: int) -> tuple[int, int]:
        """Return a member's shard and its number within the shard."""
        shard = int(self.shards.shard_of_member[member])
        return shard, member - int(self._firsts[shard])

    def _key(self, member: int) -> tuple[str, int]:
        shard, ordinal = self._place(member)
        return self.shards.sha256[shard], ordinal

    def _bring(self, shard: int, ordinals: Sequence[int]) -> None:
        """Fetch those members of a shard into the cache that no other thread or process has fetched meanwhile."""
        sha256, path = self.shards.sha256[shard], self.shards.paths[shard]
        url = f"{self.folder}/{path}"
        first = self._firsts[shard]
        try:
            with self.cache.only_one(sha256):
                ordinals = [ordinal for ordinal in ordinals if not self.cache.file(sha256, ordinal).exists()]
                checksums = self.cache.checksums(sha256)
                if checksums is None and ordinals:
                    content = retry(url, lambda: self._read(path, 0, int(self.shards.bytes[shard]), sha256))
                    self.cache.put_shard(sha256, self._cut(shard, content), ordinals)
                    return
                for ordinal in ordinals:
                    assert checksums
                    if ordinal >= len(checksums):
                        raise ValueError(
                            f"{url} has {len(checksums)} members, but shards.parquet lists more: {DAMAGED}"
                        )
                    begin, size = (int(column[first + ordinal]) for column in (self.shards.member_offsets, self.sizes))
                    content = retry(
                        f"member {ordinal} of {url}",
                        lambda: self._read(path, begin, size, checksums[ordinal].hex()),  # noqa: B023 (called at once)
                    )
                    self.cache.put(sha256, {ordinal: content}, [ordinal])
        except FileNotFoundError:
            raise ValueError(f"shard {url} is missing: copy the data set again, all of it") from None

    def _cut(self, shard: int, content: bytes) -> dict[int, memoryview]:
        """Return the members of a shard.

        Every data set that lists the shard will read what is cut here, so the tar headers must agree with the places.
        """
        first, view = self._firsts[shard], memoryview(content)
        members = {}
        for i in range(int((self.shards.shard_of_member == shard).sum())):
            begin, size = (int(column[first + i]) for column in (self.shards.member_offsets, self.sizes))
            name = f"{PurePosixPath(self.shards.paths[shard]).stem}-{i:06d}.arrow"
            try:
                header = tarfile.TarInfo.frombuf(content[begin - tarfile.BLOCKSIZE : begin], "ascii", "strict")
            except (tarfile.TarError, ValueError) as error:
                raise ValueError(
                    f"{self.name(int(first))}: member {i} has no tar header ({error}); {DAMAGED}"
                ) from None
            if (header.name, header.size, header.type) != (name, size, tarfile.REGTYPE):
                raise ValueError(
                    f"{self.name(int(first))}: its tar header has {header.name} of {header.size} bytes where shards.parquet "
                    f"has member {name} of {size}; {DAMAGED}"
                )
            members[i] = view[begin : begin + size]
        return members

    def _read(self, path: str, start: int, size: int, sha256: str) -> bytes:
        if self._is_closed:
            raise ValueError(f"{self.folder}/{path} is no longer wanted")  # ends the tries; nobody sees it
        content = self.folder.read_once(path, start, size)
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise Damaged(f"its sha256 is {found[:12]}…, expected {sha256[:12]}…")
        return content

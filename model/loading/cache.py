"""A folder of bounded size with members of remote shards, shared by all processes of a machine.

    CACHE/index.sqlite                   what is there, how large, when last used; and the sha256 of every member seen
    CACHE/shards/SHA256/000007.arrow     a member: an Arrow file that anyone can open

Files appear under their final name by a rename, so that a process sees all of one or none. `remote.py` fills it.
"""

import hashlib
import os
import shutil
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from bertloom.locks import file_lock

DEFAULT_CACHE_GB = 50.0
IN_WRITING_SECONDS = 3600
"""What is being written counts as used so far in the future: it is evicted last, and if its writer was killed, in time."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS members (shard TEXT, member INTEGER, bytes INTEGER, used REAL, PRIMARY KEY (shard, member));
CREATE INDEX IF NOT EXISTS by_use ON members (used);
CREATE TABLE IF NOT EXISTS checksums (shard TEXT PRIMARY KEY, sha256 BLOB);
CREATE TABLE IF NOT EXISTS total (one INTEGER PRIMARY KEY, bytes INTEGER);
"""


def default_directory() -> Path:
    """Where the cache lies if nobody says: ~/.cache/bertloom, or in the folder that XDG_CACHE_HOME names."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bertloom"


class MemberCache:
    """Keeps members, the least recently used of which make room for new ones. All methods may be called by any thread."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """directory: on a local disk; made if it does not exist. max_bytes: of the members, not of the index."""
        self.directory = directory
        self.max_bytes = max_bytes
        (directory / "shards").mkdir(parents=True, exist_ok=True)
        (directory / "tmp").mkdir(exist_ok=True)
        for path in (directory / "tmp").iterdir():  # what killed writers left behind
            if path.stat().st_mtime < time.time() - IN_WRITING_SECONDS:
                path.unlink(missing_ok=True)
        self._thread_lock = threading.Lock()
        self._index = sqlite3.connect(
            directory / "index.sqlite", timeout=60, isolation_level=None, check_same_thread=False
        )
        weakref.finalize(self, self._index.close)
        try:
            with file_lock(directory / "lock"):  # the change to WAL does not wait for others by itself
                self._index.execute("PRAGMA journal_mode = WAL")
            self._index.execute("PRAGMA synchronous = NORMAL")
            with self._transaction():
                for statement in SCHEMA.split(";"):
                    self._index.execute(statement)
                self._index.execute("INSERT OR REPLACE INTO total SELECT 0, COALESCE(SUM(bytes), 0) FROM members")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{directory}/index.sqlite cannot be used ({error}): remove {directory}") from None

    def file(self, shard: str, member: int) -> Path:
        """Where a member lies if it is there. shard: its sha256."""
        return self.directory / "shards" / shard / f"{member:06d}.arrow"

    def only_one(self, shard: str) -> AbstractContextManager[None]:
        """Lets one thread of all processes at a time bring members of a shard."""
        folder = self.directory / "shards" / shard
        folder.mkdir(exist_ok=True)
        return file_lock(folder / "lock")

    def checksums(self, shard: str) -> list[bytes] | None:
        """sha256 of each member of a shard that was seen whole and sound; None if it never was."""
        with self._thread_lock:
            row = self._index.execute("SELECT sha256 FROM checksums WHERE shard = ?", (shard,)).fetchone()
        return row and [row[0][start : start + 32] for start in range(0, len(row[0]), 32)]

    def put(self, shard: str, members: Mapping[int, bytes | memoryview], wanted: Iterable[int]) -> None:
        """Keeps these members. Those that are not wanted soon make room first."""
        sizes = {(shard, member): len(content) for member, content in members.items()}
        now = time.time()
        self._account(sizes, dict.fromkeys(sizes, now + IN_WRITING_SECONDS))
        for member, content in members.items():
            temporary = self.directory / "tmp" / f"{shard}-{member}-{os.getpid()}-{threading.get_ident()}"
            try:
                temporary.write_bytes(content)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                free = shutil.disk_usage(self.directory).free
                raise ValueError(
                    f"{temporary} cannot be written ({error.strerror}; {free / 1e9:.1f} GB are free): give a smaller "
                    f"--cache-gb or another --cache-dir"
                ) from None
            os.replace(temporary, self.file(shard, member))
        soon = {(shard, member) for member in wanted}
        self._account(sizes, {key: now if key in soon else now - 365 * 86400 for key in sizes})

    def put_shard(self, shard: str, members: Mapping[int, bytes | memoryview], wanted: Iterable[int]) -> None:
        """Keeps all members of a shard that was checked, 0, 1, …, and their checksums."""
        checksums = b"".join(hashlib.sha256(members[member]).digest() for member in range(len(members)))
        with self._transaction():
            self._index.execute("INSERT OR REPLACE INTO checksums VALUES (?, ?)", (shard, checksums))
        self.put(shard, members, wanted)

    def touch(self, keys: Iterable[tuple[str, int]]) -> None:
        """Notes that these members, (shard, member) each, are in use."""
        now = time.time()
        with self._transaction():
            self._index.executemany(
                "UPDATE members SET used = ? WHERE shard = ? AND member = ?", [(now, *key) for key in keys]
            )

    def drop(self, shard: str, member: int) -> None:
        """Forgets a member that was found damaged."""
        with self._transaction():
            self._remove([(shard, member)])

    def _account(self, sizes: Mapping[tuple[str, int], int], used: Mapping[tuple[str, int], float]) -> None:
        """Enters members into the index, after others have made room for them."""
        with self._transaction():
            self._forget(sizes)
            free = self.max_bytes - self._index.execute("SELECT bytes FROM total").fetchone()[0] - sum(sizes.values())
            doomed = []
            # Closed before the transaction ends: a query left open would bind this connection to what was then.
            with closing(self._index.execute("SELECT shard, member, bytes FROM members ORDER BY used")) as oldest:
                while free < 0 and (row := oldest.fetchone()):
                    doomed.append(row[:2])
                    free += row[2]
            self._remove(doomed)
            rows = [(*key, size, used[key]) for key, size in sizes.items()]
            self._index.executemany("INSERT INTO members VALUES (?, ?, ?, ?)", rows)
            self._index.execute("UPDATE total SET bytes = bytes + ?", (sum(sizes.values()),))

    def _remove(self, keys: Iterable[tuple[str, int]]) -> None:
        for key in keys:
            self.file(*key).unlink(missing_ok=True)
        self._forget(keys)

    def _forget(self, keys: Iterable[tuple[str, int]]) -> None:
        for key in keys:
            where = "WHERE shard = ? AND member = ?"
            self._index.execute(
                f"UPDATE total SET bytes = bytes - (SELECT COALESCE(SUM(bytes), 0) FROM members {where})", key
            )
            self._index.execute(f"DELETE FROM members {where}", key)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that is done to the index inside is done at once, for every process."""
        with self._thread_lock:
            self._index.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._index.execute("ROLLBACK")
                raise
            self._index.execute("COMMIT")

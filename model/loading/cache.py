"""A folder of bounded size with members of remote shards, shared by all processes of a machine.

    CACHE/index.sqlite                   members with size and time of last use; the sha256 of every member ever seen
    CACHE/shards/SHA256/000007.arrow     a member, a plain Arrow file

Files get their names by a rename, so a process sees a whole file or none. `remote.py` fills the cache.
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
"""A member that is being written counts as used this long in the future, so it is evicted last; if its writer was killed,
it is evicted later."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS members (shard TEXT, member INTEGER, bytes INTEGER, used REAL, PRIMARY KEY (shard, member));
CREATE INDEX IF NOT EXISTS by_use ON members (used);
CREATE TABLE IF NOT EXISTS checksums (shard TEXT PRIMARY KEY, sha256 BLOB);
CREATE TABLE IF NOT EXISTS total (one INTEGER PRIMARY KEY, bytes INTEGER);
"""


def default_directory() -> Path:
    """Return the default folder of the cache: ~/.cache/bertloom, or below XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bertloom"


class MemberCache:
    """Members in a folder of bounded size. New members replace the least recently used ones. Thread-safe."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """directory: on a local disk; made if it does not exist. max_bytes: of the members, without the index."""
        self.directory = directory
        self.max_bytes = max_bytes
        (directory / "shards").mkdir(parents=True, exist_ok=True)
        (directory / "tmp").mkdir(exist_ok=True)
        for path in (directory / "tmp").iterdir():  # left by killed writers
            if path.stat().st_mtime < time.time() - IN_WRITING_SECONDS:
                path.unlink(missing_ok=True)
        self._thread_lock = threading.Lock()
        self._index = sqlite3.connect(
            directory / "index.sqlite", timeout=60, isolation_level=None, check_same_thread=False
        )
        weakref.finalize(self, self._index.close)
        try:
            with file_lock(directory / "lock"):  # SQLite does not wait for other processes when it changes to WAL
                self._index.execute("PRAGMA journal_mode = WAL")
            self._index.execute("PRAGMA synchronous = NORMAL")
            with self._transaction():
                for statement in SCHEMA.split(";"):
                    self._index.execute(statement)
                self._index.execute("INSERT OR REPLACE INTO total SELECT 0, COALESCE(SUM(bytes), 0) FROM members")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{directory}/index.sqlite cannot be used ({error}): remove {directory}") from None

    def file(self, shard: str, member: int) -> Path:
        """Return the path of a member, whether it exists or not. shard: its sha256."""
        return self.directory / "shards" / shard / f"{member:06d}.arrow"

    def only_one(self, shard: str) -> AbstractContextManager[None]:
        """Return a lock with which one thread of all processes at a time fetches members of a shard."""
        folder = self.directory / "shards" / shard
        folder.mkdir(exist_ok=True)
        return file_lock(folder / "lock")

    def checksums(self, shard: str) -> list[bytes] | None:
        """Return the sha256 of each member of a shard that was read whole and checked once, else None."""
        with self._thread_lock:
            row = self._index.execute("SELECT sha256 FROM checksums WHERE shard = ?", (shard,)).fetchone()
        return row and [row[0][start : start + 32] for start in range(0, len(row[0]), 32)]

    def put(self, shard: str, members: Mapping[int, bytes | memoryview], wanted: Iterable[int]) -> None:
        """Store members. Those that are not wanted soon are evicted first."""
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
        """Store all members 0, 1, … of a checked shard, and their checksums."""
        checksums = b"".join(hashlib.sha256(members[member]).digest() for member in range(len(members)))
        with self._transaction():
            self._index.execute("INSERT OR REPLACE INTO checksums VALUES (?, ?)", (shard, checksums))
        self.put(shard, members, wanted)

    def touch(self, keys: Iterable[tuple[str, int]]) -> None:
        """Record that these members, (shard, member) each, are in use."""
        now = time.time()
        with self._transaction():
            self._index.executemany(
                "UPDATE members SET used = ? WHERE shard = ? AND member = ?", [(now, *key) for key in keys]
            )

    def drop(self, shard: str, member: int) -> None:
        """Remove a damaged member."""
        with self._transaction():
            self._remove([(shard, member)])

    def _account(self, sizes: Mapping[tuple[str, int], int], used: Mapping[tuple[str, int], float]) -> None:
        """Add members to the index after evicting others to make room."""
        with self._transaction():
            self._forget(sizes)
            free = self.max_bytes - self._index.execute("SELECT bytes FROM total").fetchone()[0] - sum(sizes.values())
            doomed = []
            # Closed before the transaction ends: an open query would keep this connection on an old snapshot.
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
        """Run a block as one transaction of the index, for all processes."""
        with self._thread_lock:
            self._index.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._index.execute("ROLLBACK")
                raise
            self._index.execute("COMMIT")

"""What is on a machine's disk and in a process, seen from outside: the index of a cache, and the files mapped."""

import sqlite3
from contextlib import closing
from pathlib import Path


def query(directory: Path, statement: str, *values: object) -> int:
    """The first value that a cache's index gives for a statement, which takes effect."""
    with closing(sqlite3.connect(directory / "index.sqlite", isolation_level=None)) as index:
        row = index.execute(statement, values).fetchone()
    return row and row[0]


def num_mapped(directory: Path) -> int:
    """The number of a folder's files that this process has mapped into memory, removed ones too."""
    maps = Path("/proc/self/maps").read_text("utf-8").splitlines()
    return len({line.split(maxsplit=5)[5] for line in maps if str(directory) in line and ".sqlite" not in line})

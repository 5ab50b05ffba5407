"""The log of finished work: files that the workers write and the command reads while a job runs, for its progress.

Not every runner reports counters before the end, and none knows how much work is left. So on every runner each worker
process has a file in a folder of the job. A line of it is a finished piece of work, such as a part or a bucket:

    ["tokenize", "5f0c2a...-00000.part", 8000000, 1234, 7912345, true]

The line has the name of the piece, so a piece that a runner does twice counts once. A local file grows. An object is written
again at most every STORE_SECONDS. The job does not depend on these files: a worker that cannot write its file goes on.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from bertloom import storage
from bertloom.store_errors import StoreError

BYTES = "byte"
STAGES: Mapping[str, str] = {
    "choose sample": BYTES,
    "list lines": BYTES,
    "count lines": "range",
    "count words": BYTES,
    "tokenize": BYTES,
    "read known": "file",
    "match known": "range",
    "sketch": "part",
    "pair": "range",
    "verify": "range",
    "read sketches": "file",
    "pair known": "range",
    "verify known": "range",
    "plan": "",
    "weave": "shard",
    "manifest": "",
}
"""Name of a stage -> the unit of its work, in the order in which the stages run. BYTES are those of the input files. A stage
without a unit is done by one worker in one piece."""

STORE_SECONDS = 10.0
"""Between two times that a process writes its file, or reads those of others, in a store."""
MAX_BYTES = 1 << 18
"""Of a file, about. A process that has more to write begins another one, because an object is written again as a whole."""

_one_at_a_time = threading.Lock()


class _File:
    """The file of this process in one folder."""

    def __init__(self, folder: str):
        self.folder = folder
        self.lock = threading.Lock()
        self.is_local = storage.is_local(folder)
        self.due = 0.0
        self.begun: set[bytes] = set()
        self._new()

    def _new(self) -> None:
        self.path = storage.join(self.folder, f"{uuid.uuid4().hex}.jsonl")
        self.content, self.written = bytearray(), 0

    def begin(self, *row: Any) -> None:
        """Add a line that a worker would repeat for each piece of its work."""
        line = json.dumps(row).encode()
        if line not in self.begun:
            self.begun.add(line)
            self.add(*row)

    def add(self, *row: Any) -> None:
        line = json.dumps(row).encode() + b"\n"
        with self.lock:
            self.content += line
            if time.monotonic() >= self.due:
                self._write()

    def _write(self) -> None:
        with suppress(OSError, ValueError, StoreError):
            if self.is_local:
                with open(self.path, "ab", buffering=0) as file:
                    file.write(self.content[self.written :])
            else:
                storage.write_whole(self.path, [bytes(self.content)])
            self.written = len(self.content)
        if not self.is_local:
            self.due = time.monotonic() + STORE_SECONDS
        if MAX_BYTES < self.written == len(self.content):
            self._new()


@lru_cache(maxsize=4)
def _file(folder: str, process: int) -> _File:
    """Return the file of this process. A forked process needs another one."""
    return _File(folder)


def _own_file(folder: str) -> _File:
    with _one_at_a_time:
        return _file(folder, os.getpid())


def log_begin(folder: str, stage: str, total: int = 0) -> None:
    """Log that a stage begins. total: of its work, if that was not known before the job."""
    assert stage in STAGES
    _own_file(folder).begin(stage, total)


def log_piece(
    folder: str,
    stage: str,
    name: str,
    amount: int = 1,
    *,
    documents: int = 0,
    text_bytes: int = 0,
    is_new: bool = True,
) -> None:
    """Log a finished piece of work.

    Args:
        name: differs from those of all other pieces of the stage, and is the same if the piece is done again.
        amount: in what STAGES counts.
        is_new: False if an earlier start of the job did the work.
    """
    assert stage in STAGES
    _own_file(folder).add(stage, name, amount, documents, text_bytes, is_new)


@dataclass
class StageWork:
    """The work of a stage until now."""

    total: int = 0
    """0 if it is the size of the input."""
    amount: int = 0
    documents: int = 0
    text_bytes: int = 0
    new_amount: int = 0
    """Of `amount`, what this start of the job did."""
    new_text_bytes: int = 0
    names: set[int] = field(default_factory=set)
    """Hashes of the names of the pieces."""

    def add(self, row: list[Any]) -> None:
        """Add a line of the log, without the stage."""
        if len(row) == 1:
            self.total = max(self.total, row[0])
            return
        name, amount, documents, text_bytes, is_new = row
        if hash(name) in self.names:
            return
        self.names.add(hash(name))
        self.amount += amount
        self.documents += documents
        self.text_bytes += text_bytes
        if is_new:
            self.new_amount += amount
            self.new_text_bytes += text_bytes


class WorkLog:
    """All files of a folder, read as they grow. Each byte is read once, however many pieces of work there are."""

    def __init__(self, folder: str):
        """Make the folder, and remove what an earlier start left there."""
        self.folder = folder
        self.stages: dict[str, StageWork] = {}
        self._read: dict[str, int] = {}  # path -> bytes read
        storage.remove(folder)
        storage.make_folder(folder)

    def read(self) -> None:
        """Add what was written since the last call. A file that cannot be read is left for the next call."""
        with suppress(OSError, StoreError):
            for path, size in self._sizes().items():
                if size > self._read.get(path, 0):
                    with suppress(OSError, StoreError):
                        self._read_new(path, size)

    def _sizes(self) -> dict[str, int]:
        if not storage.is_local(self.folder):
            return {path: size for path, (size, _) in storage.find(self.folder).items()}
        with os.scandir(self.folder) as entries:
            return {entry.path: entry.stat().st_size for entry in entries}

    def _read_new(self, path: str, size: int) -> None:
        start = self._read.get(path, 0)
        content = storage.read_range(path, start, size - start)
        end = content.rfind(b"\n") + 1  # the last line may be half written
        for line in content[:end].splitlines():
            stage, *row = json.loads(line)
            if stage in STAGES:  # else another version of bertloom still writes here
                self.stages.setdefault(stage, StageWork()).add(row)
        self._read[path] = start + end

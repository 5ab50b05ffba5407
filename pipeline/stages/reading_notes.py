"""Notes in which workers record what they read, so that a job can name the file that ended a worker.

A worker keeps a note, and a lock on it, while it reads a split. The kernel releases the lock when the worker dies, so a note
without a lock names what a dead worker was reading. Only a local folder can hold notes.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bertloom import storage
from bertloom.whole_files import flushed_by_hand, named_errors, write_text
from pipeline.inputs.sources import Split

SECONDS_TO_DIE = 1.0  # until the kernel has freed the locks of a worker whose connection is already closed
_DEATHS = "deaths.json"
_ENDING = ".note"


Note = Callable[[Split, int], None]
"""Called with the split that is read from now on, and the number of the part that is written."""


def no_note(split: Split, part: int) -> None:
    """Note nothing."""


@contextmanager
def reading(folder: str) -> Iterator[Note]:
    """Keep a note of what this process reads, if the folder is a local one. Yields the function that writes it."""
    if not folder or not storage.is_local(folder):
        yield no_note
        return
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{os.getpid()}-{threading.get_ident()}{_ENDING}")
    file = open(path, "w", encoding="utf-8")  # noqa: SIM115  closed by the next line
    with flushed_by_hand(file):

        def note(split: Split, part: int) -> None:
            with named_errors(path):
                file.seek(0)
                file.truncate()
                file.write(json.dumps([split.source.name, split.start, part]))
                file.flush()

        fcntl.flock(file, fcntl.LOCK_SH)
        try:
            yield note
        finally:
            with suppress(FileNotFoundError):
                os.remove(path)


def clear_notes(folder: str) -> None:
    """Remove the notes of an earlier start. The recorded deaths of workers stay."""
    for path in Path(folder).glob(f"*{_ENDING}"):
        path.unlink(missing_ok=True)


def record_deaths(folder: str) -> dict[str, int]:
    """Return file name -> number of workers that died at the same place of this file, for the files that dead workers read.

    Deaths in earlier starts of the job count, too.
    """
    until = time.monotonic() + SECONDS_TO_DIE
    while not (found := _notes_of_the_dead(folder)) and time.monotonic() < until:
        time.sleep(0.05)
    path = Path(folder) / _DEATHS
    deaths = json.loads(path.read_text("utf-8")) if path.exists() else []
    deaths += found
    if found:
        write_text(path, json.dumps(deaths))
    return {place[0]: deaths.count(place) for place in found}


def _notes_of_the_dead(folder: str) -> list[list[Any]]:
    found = []
    for path in sorted(Path(folder).glob(f"*{_ENDING}")):
        with suppress(FileNotFoundError, BlockingIOError, ValueError), open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append(list(json.load(file)))
    return found

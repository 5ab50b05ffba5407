"""Locks between processes. On a local disk the lock is the kernel's: it is free as soon as its holder ends or is killed.

Object stores and HDFS have no such lock. There a file names the holder, and a person removes it after a job was killed.
"""

import fcntl
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from bertloom import storage
from bertloom.whole_files import flushed_by_hand, named_errors

SETTLE_SECONDS = 1.0
"""How long a job waits before it reads back its lock in a store: another job may have found no lock at the same time."""


@contextmanager
def file_lock(path: str | Path, taken: Callable[[str], str] | None = None) -> Iterator[None]:
    """Hold the lock of a local file and write the holder's name into it. The file stays.

    taken: gives the error's text from the name of another holder. Without it, wait until the lock is free.

    Raises:
        ValueError: another process has the lock.
    """
    file = _locked(path, taken)
    with flushed_by_hand(file):
        with named_errors(path):
            file.truncate(0)
            file.write(f"{_holder()}\n")
            file.flush()
        yield


@contextmanager
def shared_lock(path: str | Path, if_alone: Callable[[], object]) -> Iterator[None]:
    """Hold the lock of a local file together with other processes. The file stays.

    if_alone: called first, while no other process has the lock or can get it; not called if another has it.
    """
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if_alone()
        except BlockingIOError:
            pass
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def output_lock(folder: str) -> Iterator[None]:
    """Hold `folder`/.lock while a job writes there; the file is removed at the end.

    Raises:
        ValueError: another job has the lock. The text names it.
    """
    path = storage.join(folder, ".lock")
    if storage.is_local(path):
        with file_lock(
            path, lambda holder: f"{folder} is being written by {holder}: wait for it, or choose another --out"
        ):
            try:
                yield
            finally:
                with suppress(FileNotFoundError):  # the whole folder is gone
                    os.remove(path)
        return
    ours = f"{_holder()}\nkey {secrets.token_hex(8)}\n".encode()
    try:
        _write_lock(path, folder, ours)
        yield
    finally:
        if storage.read_if_there(path) == ours:
            storage.remove(path)


def _write_lock(path: str, folder: str, ours: bytes) -> None:
    """Write a lock to a store. Of jobs that find none at the same time, the last one to write has it."""
    found = storage.read_if_there(path)
    if found is None:
        storage.write_whole(path, [ours])
        time.sleep(SETTLE_SECONDS)
        found = storage.read(path)
    if found != ours:
        holder = found.decode(errors="replace").partition("\n")[0]
        raise ValueError(f"{folder} is being written by {holder}; if that job is dead, remove {path}")


def _holder() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def _locked(path: str | Path, taken: Callable[[str], str] | None) -> TextIO:
    while True:
        file = open(path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115  open as long as the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if taken else 0))
        except BlockingIOError:
            with file:
                file.seek(0)
                holder = file.read().strip() or "another process"
            assert taken
            raise ValueError(taken(holder)) from None
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()  # its last holder removed the file after we opened it: a lock without a name excludes nobody

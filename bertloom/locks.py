"""One job at a time for each output: a lock that names its holder."""

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from bertloom import storage

SETTLE_SECONDS = 1.0  # in which others that found no lock, either, have written theirs


@contextmanager
def output_lock(folder: str) -> Iterator[None]:
    """Holds `folder`/.lock; ValueError, with the holder's name, where another job does.

    On a local disk the system itself lets go of the lock when its holder dies. Object stores and HDFS have no such lock:
    there the file has to be removed by hand after a job was killed, and the error says so.
    """
    path = storage.join(folder, ".lock")
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    values = {"host": socket.gethostname(), "pid": os.getpid(), "since": since, "key": secrets.token_hex(8)}
    holder = json.dumps(values)
    if not storage.is_local(path):
        try:
            _write_lock(path, folder, holder.encode())
            yield
        finally:
            if storage.exists(path) and storage.read(path) == holder.encode():
                storage.remove(path)
        return
    with _locked(path, folder) as file:
        file.truncate(0)
        file.write(holder)
        file.flush()
        try:
            yield
        finally:
            with suppress(FileNotFoundError):  # somebody threw the whole folder away
                os.remove(path)


def _write_lock(path: str, folder: str, holder: bytes) -> None:
    """Of jobs that find no lock at the same time, and all write theirs, the last one has it."""
    if not storage.exists(path):
        storage.write_whole(path, [holder])
        time.sleep(SETTLE_SECONDS)
    there = storage.read(path)
    if there != holder:
        raise ValueError(f"{folder} is being written by {_tell(there.decode())}; if that job is dead, remove {path}")


def _locked(path: str, folder: str) -> TextIO:
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  open as long as the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                raise ValueError(
                    f"{folder} is being written by {_tell(file.read())}: wait for it, or choose another --out"
                ) from None
        try:
            if os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except FileNotFoundError:
            pass
        file.close()  # its last holder removed it while we opened it: a lock on a file without a name holds nobody back


def _tell(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError):
        return "another job"

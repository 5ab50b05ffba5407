"""One job at a time for each output: a lock that names its holder."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline import storage


@contextmanager
def output_lock(folder: str) -> Iterator[None]:
    """Holds `folder`/.lock; ValueError, with the holder's name, where another job does.

    On a local disk the system itself lets go of the lock when its holder dies. An object store has no such lock: there
    the file has to be removed by hand after a job was killed, and the error says so.
    """
    path = storage.join(folder, ".lock")
    holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
    if not storage.is_local(path):
        if storage.exists(path):
            raise ValueError(f"{folder} is being written by {_tell(storage.read(path).decode())}; if that job is dead, remove {path}")
        storage.write_whole(path, [holder.encode()])
        try:
            yield
        finally:
            storage.remove(path)
        return
    file = open(path, "a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(f"{folder} is being written by {_tell(file.read())}: wait for it, or choose another --out") from None
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield
        os.remove(path)


def _tell(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError):
        return "another job"

"""The check that each worker process of another runner makes before its first work, also one that joins a running job.

It reads a token that the launcher has written into the folders of the job, and writes an answer there. So a worker whose
machine does not share these folders, or that runs other software, ends the job with an error that names the machine.
"""

import hashlib
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bertloom import storage
from bertloom.store_errors import StoreError
from pipeline.places import Places
from pipeline.remote.messages import reason_of
from pipeline.text.versions import version_of

MAX_INPUTS = 8
"""Number of input files that a worker looks for: one of each folder."""
_TOKEN = "token"


@dataclass(frozen=True)
class WorkerCheck:
    """What a worker process checks. Calling it again in the same process costs nothing."""

    folders: tuple[str, ...]
    """Folders with the token, each inside a folder of the job."""
    token: bytes
    inputs: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    """Of the launcher."""

    def __call__(self) -> None:
        """Raise ConnectionError if this process cannot work for the job."""
        _check(self)

    def has_answers(self) -> bool:
        """Return whether a worker has written an answer."""
        return bool(storage.names_in(self.folders[0]) - {_TOKEN})


@contextmanager
def worker_check(places: Places, inputs: Sequence[str]) -> Iterator[WorkerCheck]:
    """Yield the check of a job's workers. Its files exist for the length of the block. inputs: paths of the input files."""
    name = f".worker-check-{hashlib.sha256(places.dataset.encode()).hexdigest()[:12]}"
    folders = tuple(storage.join(folder, name) for folder in dict.fromkeys([places.scratch, places.work]))
    token = secrets.token_hex(16).encode()
    one_of_each = {path.rpartition("/")[0]: path for path in inputs}
    try:
        for folder in folders:
            storage.remove(folder)  # of a start that was killed
            storage.make_folder(folder)
            storage.write_whole(storage.join(folder, _TOKEN), [token])
        yield WorkerCheck(folders, token, tuple(one_of_each.values())[:MAX_INPUTS], versions())
    finally:
        for folder in folders:
            storage.remove(folder)


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """Return (name, version) of the software that a worker must have in common with the launcher."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for package in ("bertloom", "pipeline"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return (
        ("Python", f"{sys.version_info[0]}.{sys.version_info[1]}"),
        ("apache-beam", version_of("apache-beam")),
        ("bertloom", f"{version_of('bertloom')}, code {digest.hexdigest()[:8]}"),
    )


@cache
def _check(check: WorkerCheck) -> None:
    worker = f"the worker on {socket.gethostname()} (process {os.getpid()})"
    for (name, expected), (_, found) in zip(check.versions, versions(), strict=True):
        if found != expected:
            raise ConnectionError(
                f"{worker} has {name} {found} in {sys.executable}; expected {name} {expected}, as where the job was "
                f"started. Install the same there"
            )
    for folder in check.folders:
        place = folder.rpartition("/")[0]
        token = _read(storage.join(folder, _TOKEN), worker, place)
        if token != check.token:
            raise ConnectionError(
                f"{worker} finds files of another job, or of an earlier start, in {place}. {_share(place)}"
            )
        try:
            storage.write_whole(storage.join(folder, f"{socket.gethostname()}-{os.getpid()}"), [b""])
        except (OSError, ValueError, StoreError) as error:
            raise ConnectionError(
                f"{worker} cannot write in {place}: {reason_of(error)}. Give the user {os.getuid()} there the right to"
            ) from None
    for path in check.inputs:
        _read(path, worker, path)


def _read(path: str, worker: str, place: str) -> bytes:
    try:
        return storage.read_range(path, 0, 64)
    except (OSError, ValueError, StoreError) as error:
        raise ConnectionError(f"{worker} does not see {place}: {reason_of(error)}. {_share(place)}") from None


def _share(place: str) -> str:
    if storage.is_local(place):
        if not os.path.isabs(place):
            return f"This path is relative to the folder in which the worker runs, {os.getcwd()}: give an absolute one"
        return (
            "All machines must have it under this path: mount a shared file system there, or use an object store, such as "
            "s3://BUCKET"
        )
    return "The worker needs the credentials and the endpoint of this store in its environment"

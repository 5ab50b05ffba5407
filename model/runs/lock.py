"""The lock of a run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bertloom.locks import file_lock


@contextmanager
def run_lock(out: Path) -> Iterator[None]:
    """Hold a run folder, created if necessary, so that no other process trains there.

    Raises:
        ValueError: another process trains there, or the folder belongs to something else.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: expected a folder as --out")
    if out.is_dir() and (names := {path.name for path in out.iterdir()}) and not is_run(out):
        raise ValueError(f"{out} is not a run folder (it contains {min(names)}): give a new or empty folder as --out")
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(
        out / ".lock", lambda holder: f"{holder} is training in {out}: wait until it ends, or give another --out"
    ):
        yield


def is_run(out: Path) -> bool:
    """Return whether a folder has our lock, which is written first of all, or checkpoints, as a copy may.

    A full disk may have cut what the lock says, or have left it empty.
    """
    lock = out / ".lock"
    is_ours = lock.is_file() and "process ".startswith(lock.read_text(errors="replace")[: len("process ")])
    return is_ours or any((out / "checkpoints").glob("step-*"))

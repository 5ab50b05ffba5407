"""The run folder while it is trained in: one trainer at a time, signals that end it cleanly; files and folders whole."""

import fcntl
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def only_trainer(out: Path) -> Iterator[None]:
    """Makes the run folder ours while it lasts. The lock is the kernel's: a kill frees it.

    Raises:
        ValueError: another process trains there, or it is a folder of something else.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: --out must be a folder")
    if out.is_dir() and (names := {path.name for path in out.iterdir()}) and not is_run(out):
        raise ValueError(f"{out} holds other things ({min(names)}, …) and no run: give a new or empty folder as --out")
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (out / ".lock").read_text().strip()
            raise ValueError(f"another process ({holder}) is training in {out}: wait for it, or end it first") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        yield


def is_run(out: Path) -> bool:
    """Whether a folder was trained in: it has our lock, which is written first of all, or checkpoints, as a copy may."""
    lock = out / ".lock"
    ours = lock.is_file() and re.fullmatch(r"(process \d+ on .*\n)?", lock.read_text(errors="replace"))
    return bool(ours) or any((out / "checkpoints").glob("step-*"))


@contextmanager
def stop_signals() -> Iterator[list[signal.Signals]]:
    """A list that SIGTERM and SIGINT are noted in; a second SIGINT acts as if this were not here.

    A second SIGTERM does not: under torchrun one comes from it and one from who ended the job, systemd or Slurm.
    Only the main thread may handle signals: in any other the list stays empty.
    """
    received: list[signal.Signals] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, frame: Any) -> None:
        received.append(signal.Signals(number))
        if number == signal.SIGINT:
            signal.signal(number, previous[signal.SIGINT])

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, note)
    except ValueError:  # not the main thread
        pass
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def write_text(path: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder to write into, which becomes `out` in the end; if that is not reached, nothing is left of it.

    Raises:
        ValueError: there is something already.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: --out must be a new or empty folder")
    if out.is_dir() and (names := sorted(path.name for path in out.iterdir())):
        raise ValueError(f"{out} holds {', '.join(names[:3])} already: give a new or empty folder as --out")
    temporary = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

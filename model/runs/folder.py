"""The run folder while it is trained in: one trainer at a time, signals that end it cleanly."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertloom.locks import file_lock


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
    with file_lock(
        out / ".lock",
        lambda holder: f"another process ({holder}) is training in {out}: wait for it, or end it first",
    ):
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

"""Signals that end training cleanly."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_signals() -> Iterator[list[signal.Signals]]:
    """Collect SIGTERM and SIGINT in a list instead of ending the process. A second SIGINT acts as usual.

    A second SIGTERM is collected, too: under torchrun, one comes from torchrun and one from whatever ended the job, such
    as systemd or Slurm. Only the main thread can handle signals; in other threads the list stays empty.
    """
    received: list[signal.Signals] = []
    previous: dict[signal.Signals, Any] = {}

    def collect(number: int, frame: Any) -> None:
        received.append(signal.Signals(number))
        if number == signal.SIGINT:
            signal.signal(number, previous[signal.SIGINT])

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, collect)
    except ValueError:  # not the main thread
        pass
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

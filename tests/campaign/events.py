"""The events of a job (to open, write, sync, rename, remove a file), counted by the library of events.c in shared memory.

`Control` is that memory. Set `at` and `action` before a job, and the library does something at that event.
"""

import ctypes
import mmap
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOTHING, FAIL, CUT, KILL, WAIT, JUMP = range(6)
"""What is done at an event: the call fails; it writes half, or fails; SIGKILL; a pause; a jump of the clock."""
NUMBERS = ("count", "at", "action", "error", "is_lasting", "is_waiting", "may_continue")
NUMBERS += ("clock_seconds", "jump_seconds")
TEXTS = ("folder", "log", "what")


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in NUMBERS] + [(name, ctypes.c_char * 1024) for name in TEXTS]


def missing() -> str:
    """Return why events cannot be counted on this machine; an empty text if they can."""
    return "" if shutil.which("gcc") else "the library that counts writes is built with gcc, which is not installed"


def build(folder: Path) -> Path:
    """Build the library in a folder."""
    source, library = Path(__file__).with_name("events.c"), folder / "events.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


class Control:
    """The memory that the library and this process share."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(ctypes.sizeof(_Memory)))
        with path.open("r+b") as file:
            self.memory = _Memory.from_buffer(mmap.mmap(file.fileno(), 0))

    def set(self, **values: Any) -> None:
        """Forget everything, and set these values. Texts and paths become bytes."""
        ctypes.memset(ctypes.addressof(self.memory), 0, ctypes.sizeof(_Memory))
        for name, value in values.items():
            setattr(self.memory, name, str(value).encode() if name in TEXTS else value)

    @property
    def count(self) -> int:
        """Number of events so far."""
        return int(self.memory.count)

    @property
    def what(self) -> str:
        """The event at which something was done; empty if there was none."""
        return self.memory.what.decode(errors="replace")

    def act(self, action: Callable[[], object], has_ended: Callable[[], bool]) -> None:
        """Call a function while the job pauses at its event, unless the job ends before it."""
        while not self.memory.is_waiting:
            if has_ended():
                return
            time.sleep(0.001)
        try:
            action()
        finally:
            self.memory.may_continue = 1

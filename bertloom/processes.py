"""Other processes: how to start those that run our modules, and the loss of one."""

import sys
from collections.abc import Sequence
from pathlib import Path

PROCESS_LOST = 70
"""Exit status of a command that lost a worker process or another rank; EX_SOFTWARE in sysexits.h."""

ENTRY = Path(__file__).parent.parent / "bertloom_entry.py"


class LostProcess(RuntimeError):
    """A process that this one works with has ended. The text says what to do."""


def command_of(module: str, *words: str, options: Sequence[str] = ()) -> list[str]:
    """Return the command line that runs one of our modules with these words, and Python with these options.

    No file of the user's in the current folder or on PYTHONPATH can hide the module: see bertloom_entry.py.
    """
    return [sys.executable, "-P", *options, str(ENTRY), module, *words]  # -P: the folder of ENTRY is not on the path

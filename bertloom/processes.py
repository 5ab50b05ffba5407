"""Other processes of this machine that run our modules."""

import sys
from collections.abc import Sequence
from pathlib import Path

ENTRY = Path(__file__).parent.parent / "bertloom_entry.py"


def command_of(module: str, *words: str, options: Sequence[str] = ()) -> list[str]:
    """Return the command line that runs one of our modules with these words, and Python with these options.

    No file of the user's in the current folder or on PYTHONPATH can hide the module: see bertloom_entry.py.
    """
    return [sys.executable, "-P", *options, str(ENTRY), module, *words]  # -P: the folder of ENTRY is not on the path

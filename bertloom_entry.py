"""The entry of the command, and of the processes that it starts: they run bertloom, whatever else is on the path.

`bertloom`, `jobs`, `model` and `pipeline` are names that people give to their own files. Such a file on PYTHONPATH or in
the current folder would hide the package. The name of this module is rare, and it loads the packages from its own folder.
"""

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import FrameType

FOLDER = os.path.dirname(os.path.abspath(__file__))
NAMES = ("bertloom", "bertloom_entry", "jobs", "model", "pipeline")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _BesideThis:
    """A finder for `sys.meta_path`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [FOLDER]) if name in NAMES else None


def main() -> int:
    """Run the command `bertloom` with the words of this process. If a signal ends it, its threads end with it."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in a shell's background job
            signal.signal(number, end_at_once)
    atexit.register(ignore_signals)  # the first one registered is the last one called
    sys.meta_path.insert(0, _BesideThis())
    from jobs.cli import main

    try:
        status = main()
    except KeyboardInterrupt:  # between two lines of `main`
        end_at_once(signal.SIGINT, None)
        raise
    if status in [128 + number for number in SIGNALS]:
        os._exit(status)
    return status


def end_at_once(number: int, _: FrameType | None) -> None:
    """Handle a signal before or after a command: print a line and end the process, which has nothing to clean up then.

    An exception would be printed with the traceback of the import or exit function that the signal interrupted.
    """
    os.write(2, f"bertloom: {'interrupted' if number == signal.SIGINT else 'terminated'}\n".encode())
    os._exit(128 + number)


def ignore_signals() -> None:
    """Let Python free its memory undisturbed: the work is done, and a signal would end the process without a line."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    import runpy  # slow to import

    sys.meta_path.insert(0, _BesideThis())
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

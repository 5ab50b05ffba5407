"""Commands in forks of one process that has imported everything, with the library of events.c: a case takes about a second.

`python -m tests.campaign.forks` is that process. It reads a request in each line and answers with a line.
"""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaign.events import WAIT, Control, build

ROOT = Path(__file__).parent.parent.parent
LONGEST_SECONDS = 120
"""A command that takes longer hangs: it takes one or two seconds."""
HANGS = -1000
"""Exit status of a command that was stopped after this time."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    """Exit status; negative: the signal that ended it."""
    output: str
    event: str
    """The event at which something was done; empty if the job never came to it."""


class Forks:
    """The process that runs commands, and the control of their events."""

    def __init__(self, folder: Path) -> None:
        """folder: for the library and the shared memory."""
        folder.mkdir(parents=True, exist_ok=True)
        self.control = Control(folder / "control")
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LD_PRELOAD": str(build(folder)),
            "CAMPAIGN_CONTROL": str(folder / "control"),
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        }
        command = [sys.executable, "-m", "tests.campaign.forks"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self,
        argv: Sequence[str],
        folder: Path,
        meanwhile: Callable[[], object] | None = None,
        max_file_bytes: int | None = None,
        **control: Any,
    ) -> Ended:
        """Run a command.

        Args:
            folder: whose events are counted.
            meanwhile: called while the job pauses at the event `at`.
            max_file_bytes: no file may grow beyond this size.
            control: what is set in the control.
        """
        assert self.process.stdin and self.process.stdout
        if meanwhile:
            control |= {"action": WAIT}
        self.control.set(folder=folder, **control)
        self.process.stdin.write(json.dumps([list(argv), max_file_bytes]) + "\n")
        self.process.stdin.flush()
        try:
            if meanwhile:
                self.control.act(meanwhile, lambda: bool(select.select([self.process.stdout], [], [], 0)[0]))
        finally:  # else the next command would get this answer
            answer = self.process.stdout.readline()
        status, output = json.loads(answer)
        return Ended(status, output, self.control.what)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve() -> None:
    """Answer requests."""
    from pipeline.local.beam_import import import_beam
    from tests.forked import preload

    import_beam(connectors=False)
    import pipeline.output
    import pipeline.preprocess  # noqa: F401

    preload()
    for line in sys.stdin:
        argv, max_file_bytes = json.loads(line)
        reading, writing = os.pipe()  # a file could not grow beyond max_file_bytes
        output = bytearray()
        if (child := os.fork()) == 0:
            run(argv, max_file_bytes, writing)
        os.close(writing)
        reader = threading.Thread(target=read_all, args=(reading, output), daemon=True)
        reader.start()
        status = wait(child)
        reader.join(LONGEST_SECONDS)
        print(json.dumps([status, output.decode(errors="replace")]), flush=True)


def read_all(pipe: int, output: bytearray) -> None:
    """Append what comes from a pipe, until nobody can write to it, and close it."""
    with os.fdopen(pipe, "rb", buffering=0) as file:
        while data := file.read(65536):
            output += data


def run(argv: Sequence[str], max_file_bytes: int | None, output: int) -> None:
    """Be the command, and end as it ends. output: a file descriptor."""
    from jobs import cli

    os.setsid()
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, resource.RLIM_INFINITY))
    status = 99
    try:
        status = cli.main(argv)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(status)


def wait(child: int) -> int:
    """Return the exit status of a child; HANGS if it had to be stopped. Its worker processes end with it."""
    until = time.monotonic() + LONGEST_SECONDS
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended or time.monotonic() > until:
            break
        time.sleep(0.002)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not ended:
        os.waitpid(child, 0)
        return HANGS
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    serve()

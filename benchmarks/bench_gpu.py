"""Measure training on one GPU in a few minutes, and check its results against slower ways and the CPU.

    benchmarks/on_gpu.sh
    benchmarks/on_gpu.sh --minutes 4 --only "base 128" attention
    benchmarks/on_gpu.sh --rehearse

The cases are listed in `benchmarks/gpu/cases.py`, the most important first. Each becomes a line of one table as soon as it
is measured, so a run that is cut off keeps the lines so far. A case is left out if the time is not enough for it, and
stopped if it takes much longer than expected. The cases run in a process of their own: if one ends it, another process
continues with the next case.

It needs torch, transformers, tokenizers, safetensors, pyarrow, numpy, fsspec and psutil, and neither Beam nor data. The
table is benchmarks/results/on_gpu.md.

--rehearse runs every case with tiny models, to find errors. Without a GPU it uses the CUDA device of the tests, which needs
g++; the numbers then mean nothing. Its table goes to a temporary file.
"""

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from setting import ROOT, header

from benchmarks.gpu.answers import Answer, Machine
from benchmarks.gpu.cases import REAL, REHEARSAL, Case, all_cases
from benchmarks.gpu.table import HEAD, Table

NEEDED = ("torch", "transformers", "tokenizers", "pyarrow", "numpy", "fsspec", "psutil", "safetensors")
START_SECONDS = 120
"""Longest time in which a worker imports torch and transformers, and makes the data set."""
LIMIT = 3
"""A case is stopped after this many times the expected seconds, but not before PATIENCE seconds."""
PATIENCE = 45
LEGEND = (
    "Medians of updates after two for warm-up, and their range; padding does not count. MFU is the speed of the real "
    "tokens' matrix products as a share of the maker's peak; the next column is its share of the speed of a large product."
)
CLOSING_SECONDS = 3
"""Time for the last lines."""
REHEARSAL_SECONDS = 300
"""Longest time of a case in a rehearsal."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    start = time.monotonic()
    if missing := [name for name in NEEDED if not find_spec(name)]:
        raise SystemExit(f"missing packages: {' '.join(missing)}; PYTHON=… chooses another Python, or install them")
    cases = chosen_cases(all_cases(REHEARSAL if arguments.rehearse else REAL), arguments.only)
    with tempfile.TemporaryDirectory() as data, Workers(worker_command(Path(data), arguments.rehearse)) as workers:
        machine = workers.machine()
        if not machine.device:
            print("skipped: torch finds no CUDA device")
            return 0
        if not machine.is_real and not arguments.rehearse:
            print("skipped: this CUDA device is the one of the tests: use --rehearse")
            return 0
        what = f"{machine.device}. {machine.software}. {LEGEND}"
        path = arguments.out or report_path(arguments.rehearse)
        table = Table(path, [*header("On a GPU", what, "torch", "transformers"), *HEAD])
        patience = REHEARSAL_SECONDS if arguments.rehearse else PATIENCE
        measure_all(cases, workers, table, start + 60 * arguments.minutes - CLOSING_SECONDS, patience)
    table.close(time.monotonic() - start)
    return 1 if table.num_failures else 0


def measure_all(cases: Sequence[Case], workers: "Workers", table: Table, end: float, patience: float) -> None:
    """Add a line for each case to the table.

    Args:
        end: the `time.monotonic()` at which the last case is over.
        patience: least number of seconds after which a case is stopped, if there is so much time.
    """
    for case in cases:
        left = end - time.monotonic()
        if left < case.seconds:
            table.leave_out(case, f"not run: {left:.0f} s are left, and it takes about {case.seconds:.0f}")
        else:
            table.add(case, workers.measure(case, min(max(LIMIT * case.seconds, patience), left)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="time for all cases together")
    parser.add_argument("--only", nargs="+", help="run only cases with one of these texts in their names")
    parser.add_argument("--out", type=Path, help="file of the table; default: benchmarks/results/on_gpu.md")
    parser.add_argument(
        "--rehearse", action="store_true", help="tiny models; without a GPU, on the device of the tests"
    )
    return parser.parse_args(argv)


def chosen_cases(cases: list[Case], texts: Sequence[str] | None) -> list[Case]:
    """Return the cases with one of these texts in their names; all without texts."""
    found = [case for case in cases if texts is None or any(text in case.name for text in texts)]
    if not found:
        raise SystemExit(
            f"--only {' '.join(texts or ())}: no name of a case contains one of these; see benchmarks/gpu/cases.py"
        )
    return found


def report_path(is_rehearsal: bool) -> Path:
    """Return the file of the table: that of the results, or a new one in the folder for temporary files."""
    if is_rehearsal:
        return Path(tempfile.mkdtemp(prefix="on_gpu_")) / "rehearsal.md"
    return ROOT / "benchmarks" / "results" / "on_gpu.md"


def worker_command(data: Path, is_rehearsal: bool) -> list[str]:
    """Return the command that starts a worker. data: an empty folder, for the data set."""
    worker = [str(ROOT / "benchmarks" / "gpu" / "worker.py"), "--data", str(data)]
    if is_rehearsal:
        worker = ["-m", "benchmarks.gpu.rehearsal", *worker, "--rehearse"]
    return [sys.executable, *worker]


class Workers:
    """The processes that measure, one at a time. The last one ends with the block."""

    def __init__(self, command: Sequence[str]) -> None:
        """
        Args:
            command: starts a worker, `gpu/worker.py`.
        """
        self.command = command
        self.process: subprocess.Popen[str] | None = None

    def machine(self) -> Machine:
        """Start the first worker and return its machine.

        Raises:
            SystemExit: it has not started; it has printed the reason.
        """
        line = self.start(START_SECONDS)
        if not line:
            raise SystemExit("the process that measures has not started: its message is above")
        return Machine(**json.loads(line))

    def start(self, seconds: float) -> str:
        """Start a worker and return its first line; nothing if it ended or the time is over."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        # A session of its own, so that the processes that it starts end with it.
        self.process = subprocess.Popen(self.command, cwd=ROOT, start_new_session=True, **pipes)
        return self.line(seconds)

    def measure(self, case: Case, seconds: float) -> Answer:
        """Return the answer to a case, or the reason why there is none after this time."""
        begin = time.monotonic()
        if self.process is None and not self.start(seconds):
            self.end()
            return Answer(result="failed: a new process has not started", is_failure=True)
        assert self.process and self.process.stdin
        with suppress(BrokenPipeError):  # it has just ended, and `line` finds out
            self.process.stdin.write(f"{case.name}\n")
        line = self.line(begin + seconds - time.monotonic())
        if line:
            answer = Answer(**json.loads(line))
            if answer.is_fatal:
                self.end()
            return answer
        taken = time.monotonic() - begin
        if taken >= seconds:
            self.end(grace=0)
            return Answer(result=f"stopped after {taken:.0f} s", is_failure=True)
        status = self.end()
        return Answer(result=f"failed: its process ended with status {status}", is_failure=True)

    def line(self, seconds: float) -> str:
        """Return the next line of the worker; nothing if it ended or the time is over."""
        assert self.process and self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], max(seconds, 0))
        return self.process.stdout.readline() if ready else ""

    def end(self, grace: float = 2) -> int | None:
        """End the worker after some seconds of grace, and return the status with which it had ended by itself."""
        process, self.process = self.process, None
        if process is None:
            return None
        status = None
        try:
            status = process.wait(timeout=grace)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                assert pipe
                pipe.close()
        return status

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(grace=0)


if __name__ == "__main__":
    sys.exit(main())

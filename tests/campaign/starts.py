"""How the campaign starts a job that it will kill: as its command, or in forks of a process that has imported everything.

A command starts as users start it, and the campaign kills it while it imports, too. A fork saves these imports, which take
longer than a small job.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import torch.distributed as dist

from tests.forked import DEVNULL, Forked
from tests.jobs.restartable_job import ROOT, environment_of

PRELOAD = """
from pipeline.local.beam_import import import_beam
import_beam(connectors=False)
import pipeline.output, pipeline.preprocess
"""
CODE = """
import os, sys, warnings
warnings.simplefilter("ignore", ResourceWarning)  # as Python does for users: a signal may come just after a file is opened
said = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(said, 1)
os.dup2(said, 2)
from bertloom_entry import main
sys.exit(main())
"""
ENTRY = [sys.executable, "-c", "import sys\nfrom bertloom_entry import main\nsys.exit(main())"]
"""What the installed command `bertloom` does."""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
COMMAND, FORK = "command", "fork"
SECONDS_BETWEEN_LOOKS = 0.02
LAUNCHER_SECONDS = 30
"""After one rank has ended, others have this time to end by themselves. torchrun gives them as much."""


class Running:
    """A job that runs, with all of its processes: those that were started here, and those with its mark."""

    def __init__(self, how: str, folder: Path, argv: Sequence[str], num_ranks: int = 1) -> None:
        """Start `bertloom` with these words. Its temporary files and its messages go into `folder`."""
        self.mark, self.said_file = str(folder), folder / "said"
        self.num_ranks = num_ranks
        self.in_torchrun = how == COMMAND and num_ranks > 1
        (folder / "temporary").mkdir(parents=True, exist_ok=True)
        self.said_file.write_bytes(b"")
        environment = {"MARK": self.mark, "TMPDIR": str(folder / "temporary")}
        if how == COMMAND:
            self.started = [self._command(argv, num_ranks, environment)]
        elif num_ranks == 1:
            self.started = [self._fork(argv, environment)]
        else:
            common = {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1"} | environment
            self.store = dist.TCPStore(
                "127.0.0.1", 0, is_master=True, wait_for_workers=False
            )  # lives as long as they do
            common |= {"MASTER_PORT": str(self.store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
            common |= {"TORCHELASTIC_RESTART_COUNT": "0"}
            ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_ranks))
            self.started = [self._fork(argv, common | rank) for rank in ranks]

    def _command(self, argv: Sequence[str], num_ranks: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        launcher = TORCHRUN if num_ranks > 1 else []
        with self.said_file.open("ab") as said:
            return subprocess.Popen(
                [*launcher, *ENTRY, *argv],
                cwd=ROOT,
                env=environment_of(**environment),
                stdout=said,
                stderr=said,
                process_group=0,
            )

    def _fork(self, argv: Sequence[str], environment: dict[str, str]) -> Forked:
        streams = {"stdout": DEVNULL, "stderr": DEVNULL}
        return Forked(CODE, str(self.said_file), *argv, env=environment, first=PRELOAD, **streams)

    @property
    def parent(self) -> subprocess.Popen[bytes] | Forked:
        """The first process: of forked ranks, rank 0."""
        return self.started[0]

    def has_ended(self) -> bool:
        """Whether all processes that were started here have ended."""
        return all(process.poll() is not None for process in self.started)

    def processes(self) -> list[int]:
        """Return the ids of all processes that run, the parent first."""
        own = [process.pid for process in self.started if process.poll() is None]
        return list(dict.fromkeys([*own, *marked(self.mark)]))

    def workers(self) -> list[int]:
        """Return the ids of the processes that run, without the parent."""
        return [number for number in self.processes() if number != self.parent.pid]

    def wait(self, seconds: float) -> list[int | None]:
        """Return the statuses of what was started here, None for what has not ended after this time."""
        until = time.monotonic() + seconds
        while not self.has_ended() and time.monotonic() < until:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            if len(self.started) > 1 and any(process.poll() is not None for process in self.started):
                until = min(until, time.monotonic() + LAUNCHER_SECONDS)
        if any(process.poll() is not None for process in self.started):  # as torchrun does, for ranks that still join
            self.send([process.pid for process in self.started if process.poll() is None], signal.SIGKILL)
            for process in self.started:
                process.wait()
        return [process.poll() for process in self.started]

    def wait_for_all(self, seconds: float) -> list[str]:
        """Wait until no process is left, and return the command lines of those left after this time."""
        until = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        found = []
        for number in left:
            with suppress(psutil.NoSuchProcess):
                found.append(" ".join(psutil.Process(number).cmdline()))
        return found

    def said(self) -> str:
        """Return what all processes have written."""
        return self.said_file.read_text(errors="replace")

    def send(self, numbers: Sequence[int], signal_number: int) -> None:
        """Send a signal to processes. Some of them may have ended."""
        for number in numbers:
            with suppress(ProcessLookupError):
                os.kill(number, signal_number)


def marked(mark: str) -> list[int]:
    """Return the ids of the processes with this mark in their environment that still run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found

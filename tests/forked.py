"""Python processes that start without waiting for imports: forks of a process that has imported torch and the jobs.

`Forked` is used like `subprocess.Popen`. A server forks a watcher for each process, and the watcher forks the process,
waits for it and reports its exit status through a pipe.
"""

import atexit
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, TimeoutExpired
from typing import NoReturn

ROOT = Path(__file__).parent.parent


@functools.cache
def server(first: str = "") -> socket.socket:
    """The connection to a server, which ends with it. It runs the code `first` before it imports torch."""
    here, there = socket.socketpair()
    command = [sys.executable, "-W", "error", "-c", f"{first}\nfrom tests.forked import serve; serve()"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FORK_SERVER": str(there.fileno())}
    process = subprocess.Popen(command, pass_fds=[there.fileno()], env=environment, cwd=ROOT)
    there.close()

    def end() -> None:
        here.close()
        process.wait()

    atexit.register(end)
    return here


def preload() -> None:
    """Import what `pretrain` and `finetune` import only when they run, once for all forks."""
    for name in (
        "jobs.pretrain",
        "jobs.finetune",
        "jobs.support.pretraining",
        "jobs.support.finetune_run",
        "jobs.support.finetuning",
        "model.runs.loop",
        "model.tasks.embed",
        "model.runs.recorder",
        "model.hub.initial_weights",
        "model.optimizer",
        "sklearn.metrics",
        "torch._dynamo",  # by the first step of an optimizer
    ):
        importlib.import_module(name)


def serve() -> None:
    """Answer requests; run the code of each process that is asked for."""
    preload()
    connection = socket.socket(fileno=int(os.environ.pop("FORK_SERVER")))
    while True:
        message, files, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        if not message:
            os._exit(0)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # watchers need no wait
        if os.fork() == 0:
            connection.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            report = files[2]
            if (process := os.fork()) == 0:
                os.close(report)
                os.dup2(files[0], 1)
                os.dup2(files[1], 2)
                request = json.loads(message)
                os.environ.clear()
                os.environ.update(request["environment"])
                sys.argv = ["-c", *request["arguments"]]
                run(request["code"])
            for file in (0, 1, 2, *files[:2]):
                os.close(file)
            os.write(report, b"%d\n" % process)
            os.write(report, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
            os._exit(0)
        for file in files:
            os.close(file)


def run(code: str) -> NoReturn:
    """Run code as `python -c` does, but end without freeing all that was imported, which takes two seconds."""
    status: object = 0
    try:
        exec(code, {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    for file in (sys.stdout, sys.stderr):
        with suppress(OSError):
            file.flush()
    os._exit(status & 0xFF)


class Forked:
    """`python -W error -c CODE ARGUMENTS`. Output is text; stdout and stderr are PIPE, DEVNULL or inherited.

    It is a fork of a process that has run the code `first`, and then imported torch.
    """

    def __init__(
        self,
        code: str,
        *arguments: str,
        stdout: int = PIPE,
        stderr: int = PIPE,
        env: dict[str, str] | None = None,
        first: str = "",
    ) -> None:
        self.args = ["-c", code, *arguments]
        self.returncode: int | None = None
        self.output: dict[int, bytearray] = {}
        read_status, write_status = os.pipe()
        writers = []
        for kind in (stdout, stderr):
            if kind == PIPE:
                reading, writing = os.pipe()
                self.output[reading] = bytearray()
            else:
                writing = os.dup(writers[0]) if kind == STDOUT else os.open(os.devnull, os.O_WRONLY)
            writers.append(writing)
        self.has_output = stdout == PIPE, stderr == PIPE
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | (env or {})
        request = {"code": code, "arguments": arguments, "environment": environment}
        socket.send_fds(server(first), [json.dumps(request).encode()], [*writers, write_status])
        for file in (*writers, write_status):
            os.close(file)
        self.status = open(read_status)  # noqa: SIM115 (closed when the process has ended)
        self.pid = int(self.status.readline())

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self.status], [], [], 0)[0]:
            self.returncode = int(self.status.readline())
            self.status.close()
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        if self.returncode is None and not select.select([self.status], [], [], timeout)[0]:
            raise TimeoutExpired(self.args, timeout)
        self.poll()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 600) -> tuple[str | None, str | None]:
        """Everything that it writes until it ends."""
        until, open_ = time.monotonic() + timeout, list(self.output)
        while open_:
            ready, _, _ = select.select(open_, [], [], max(0, until - time.monotonic()))
            if not ready:
                raise TimeoutExpired(self.args, timeout)
            for file in ready:
                self.output[file] += (new := os.read(file, 1 << 16))
                if not new:
                    open_.remove(file)
                    os.close(file)
        self.wait(max(0, until - time.monotonic()))
        texts = iter([content.decode() for content in self.output.values()])
        first, second = (next(texts) if piped else None for piped in self.has_output)
        return first, second


__all__ = ["DEVNULL", "PIPE", "STDOUT", "Forked", "TimeoutExpired", "preload", "serve"]

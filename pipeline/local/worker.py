"""Beam's worker processes on this machine: forks of a server process that imports what all of them need, once.

These imports take as long as a small job. A job may start the server before its own imports, so this file imports little.
The server and the workers end when the job ends, in any way: each notices that its connection to the job is closed.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress

from bertloom.processes import command_of
from pipeline.local.beam_import import import_beam

_DONE = b"done"
_asking = threading.Lock()
_running: tuple[subprocess.Popen[bytes], socket.socket] | None = None  # the server, and a connection to it


def start() -> None:
    """Start the server of this process, unless it runs."""
    global _running
    if _running:
        return
    ours, theirs = socket.socketpair()
    command = command_of("pipeline.local.worker", options=("-W", "ignore::DeprecationWarning"))
    quiet = subprocess.DEVNULL  # a worker writes to the standard error of its job instead
    with theirs:  # a process group of its own, because the job handles Ctrl-C
        process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=quiet, stderr=quiet, process_group=0)
    _running = process, ours
    atexit.register(end)


def end() -> None:
    """Kill the server and its workers, if it runs. The next call of `start` starts another one."""
    global _running
    if _running:
        (process, connection), _running = _running, None
        with suppress(OSError):  # all of them have already ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        connection.close()


def work(environment: dict[str, str], started: Callable[[], object]) -> None:
    """Run a worker to its end, in this folder, with these environment variables and this standard error.

    started: called once the worker's process exists, which is after the imports of the server.

    Raises:
        RuntimeError: the worker died, or the server has ended. An interrupted job may ask for a worker after `end` was
            called, and nothing would stop a worker that started then.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, _asking:
            if not (running := _running):
                raise RuntimeError("the server of the workers has ended")
            connection = running[1]
            socket.send_fds(connection, [b"1"], [theirs.fileno(), 2])
            connection.recv(1)  # macOS may lose a descriptor that is closed before it is received
        started()
        ours.sendall(json.dumps([os.getcwd(), environment]).encode() + b"\n")
        if ours.makefile("rb").read() != _DONE:  # until the connection ends, with the worker
            raise RuntimeError("its connection was closed")


def main() -> None:
    """Run the server: every message brings the connection and the standard error of a new worker."""
    signal.signal(signal.SIGCHLD, _reap)
    import_beam(connectors=False)
    from apache_beam.runners.worker import sdk_worker_main  # noqa: F401

    import pipeline.preprocess  # noqa: F401

    gc.freeze()  # memory that the garbage collector does not write to stays shared
    with socket.socket(fileno=0) as job:
        while True:
            message, handles, _, _ = socket.recv_fds(job, 1, 2)
            if not message:
                return
            job.send(message)
            if os.fork() == 0:
                _work(*handles)
            for handle in handles:
                os.close(handle)


def _reap(*_: object) -> None:
    with suppress(ChildProcessError):  # there is no child at all
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _work(connection: int, stderr: int) -> None:
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # it was the job's connection to the server
        os.dup2(stderr, 1)
        os.dup2(stderr, 2)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        job = socket.socket(fileno=connection)
        folder, environment = json.loads(job.makefile().readline())
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        threading.Thread(target=_end_with, args=(job,), daemon=True).start()
        from apache_beam.runners.worker import sdk_worker_main

        sdk_worker_main.main([])
        job.sendall(_DONE)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _end_with(job: socket.socket) -> None:
    try:
        job.recv(1)  # the job sends nothing more, so this returns when it ends
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()

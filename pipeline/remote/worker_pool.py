"""A pool of workers for another runner (--environment_type=EXTERNAL): it starts a process when the engine asks for a worker.

Beam's own worker_pool_main starts the first `python` on PATH, which may lack Beam, and its workers outlive a pool that is
killed. Here a worker runs this Python, and ends when the pool ends, in any way.
"""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from bertloom.processes import command_of

_STOP_SECONDS = 10
_THREADS = 16
"""Requests at the same time: each only starts or stops a process."""


@contextmanager
def worker_pool(host: str, port: int, say: Callable[[str], object]) -> Iterator[str]:
    """Serve requests for workers at an address for the length of a block. port: 0 for a free one.

    Yields the address. Afterwards no worker runs.

    Raises:
        OSError: the pool cannot listen there.
    """
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=[("grpc.so_reuseport", 0)])
    pool = _Pool(say)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    try:
        socket.create_server((host, port)).close()  # its error says more than gRPC's
        bound = server.add_insecure_port(f"{host}:{port}")
    except (OSError, RuntimeError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while attempting")[0]
        raise OSError(f"--host {host} --port {port}: cannot listen there ({reason}). Choose another --port") from error
    server.start()
    try:
        yield f"{host}:{bound}"
    finally:
        server.stop(None)
        pool.end()


class _Pool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    def __init__(self, say: Callable[[str], object]):
        self.say = say
        self.lock = threading.Lock()
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.stopped: set[int] = set()
        self.threads: list[threading.Thread] = []
        self.has_ended = False

    def StartWorker(self, request: Any, context: Any) -> Any:
        """Start a worker process that connects to the engine."""
        command = command_of("pipeline.remote.worker", request.control_endpoint.url, request.worker_id)
        with self.lock:
            if self.has_ended:
                return beam_fn_api_pb2.StartWorkerResponse(error="the worker pool is ending")
            try:
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr, process_group=0)
            except OSError as error:
                return beam_fn_api_pb2.StartWorkerResponse(error=f"the worker pool cannot start a process: {error}")
            self.workers[request.worker_id] = process
            self.say(f"worker {request.worker_id} started, for {request.control_endpoint.url}")
            thread = threading.Thread(target=self._wait, args=(request.worker_id, process), daemon=True)
            self.threads = [thread, *filter(threading.Thread.is_alive, self.threads)]
            thread.start()
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:
        """End a worker process."""
        with self.lock:
            if process := self.workers.get(request.worker_id):
                self.stopped.add(process.pid)
        if process:
            _end(process)
        return beam_fn_api_pb2.StopWorkerResponse()

    def _wait(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        with process:  # closes its pipe
            status = process.wait()
        with self.lock:
            if self.workers.get(name) is process:  # else the engine has asked for another one of this name
                del self.workers[name]
            was_stopped = self.has_ended or process.pid in self.stopped
            self.stopped.discard(process.pid)
        self.say(f"worker {name} ended" + ("" if was_stopped else f" with status {status}"))

    def end(self) -> None:
        """End all workers, and start no more."""
        with self.lock:
            self.has_ended = True
            workers = list(self.workers.values())
        for process in workers:
            process.terminate()
        for process in workers:
            _end(process)
        for thread in self.threads:
            thread.join()


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

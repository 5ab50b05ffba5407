"""Beam on this machine: the runner's options, its worker processes, and what happens when one dies.

The runner is selected as FnApiRunner, because plain DirectRunner first tries to download another engine. It never retries,
and when a worker is killed it may wait forever. So a thread waits for each worker and raises an exception when the worker
dies; the hook for such exceptions ends the job and tells the user how to continue.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from google.protobuf import json_format, text_format

from bertloom.processes import PROCESS_LOST
from pipeline.local import worker as local_worker
from pipeline.stages.reading_notes import clear_notes, record_deaths

LOCAL = "FnApiRunner"
SECONDS_TO_REPORT = 60  # of a worker process, from its start to its connection
_NO_PROXY = "no_grpc_proxy"
_THREAD = "bertloom worker"
_FORKED = "bertloom:environment:forked:v1"


def is_local(options: PipelineOptions) -> bool:
    """Return whether the pipeline runs on this machine."""
    return bool(options.view_as(StandardOptions).runner == LOCAL)


def local_runner(options: PipelineOptions) -> FnApiRunner | None:
    """Return the local runner with our own worker processes, or None for another runner, which Beam makes itself."""
    num_workers = options.view_as(DirectOptions).direct_num_workers
    if not is_local(options) or num_workers == 1:
        return None
    check_loopback(num_workers)
    local_worker.start()
    # By default Beam passes no options to worker processes, and they could not find a store that a flag names.
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    provision = ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    return FnApiRunner(_ForkedEnvironment.from_command_string(""), provision_info=provision)


def check_loopback(num_workers: int) -> None:
    """Raise an error if processes on this machine cannot connect to each other."""
    try:
        with socket.create_server(("localhost", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=10).close()
    except OSError as error:
        raise ConnectionError(
            f"--num-workers {num_workers}: a process cannot connect to another one through localhost ({error}). "
            "Start this machine's loopback interface (ip link set lo up), or use --num-workers 1"
        ) from error


def connect_locally_without_proxy() -> None:
    """Make gRPC ignore the environment's proxies for connections within this machine, here and in child processes.

    Only gRPC reads no_grpc_proxy. If it is not set, gRPC reads no_proxy, so its names are kept.
    """
    names = (os.environ.get(_NO_PROXY) or os.environ.get("no_proxy", "")).split(",")
    os.environ[_NO_PROXY] = ",".join(filter(None, dict.fromkeys([*names, "localhost", "127.0.0.1", "::1"])))


class _ForkedEnvironment(SubprocessSDKEnvironment):
    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
        return _FORKED, b""


@WorkerHandler.register_environment(_FORKED, None)
class _ForkedWorkerHandler(GrpcWorkerHandler):
    """Beam's handler of a worker process, which local_worker starts."""

    def __init__(self, _: Any, *beam_arguments: Any):
        super().__init__(*beam_arguments)

    def start_worker(self) -> None:
        environment = dict(
            os.environ,
            WORKER_ID=self.worker_id,
            CONTROL_API_SERVICE_DESCRIPTOR=text_format.MessageToString(self.control_api_service_descriptor()),
            LOGGING_API_SERVICE_DESCRIPTOR=text_format.MessageToString(self.logging_api_service_descriptor()),
            PIPELINE_OPTIONS=json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
        )
        self.thread = threading.Thread(name=_THREAD, target=self._work, args=(environment,))
        self.thread.start()

    def _work(self, environment: dict[str, str]) -> None:
        ended = threading.Event()

        def check_report() -> None:
            if not ended.wait(SECONDS_TO_REPORT) and self.control_conn._input is None:
                raise TimeoutError(f"did not connect within {SECONDS_TO_REPORT} seconds")

        try:
            local_worker.work(environment, threading.Thread(name=_THREAD, target=check_report, daemon=True).start)
        finally:
            ended.set()

    def stop_worker(self) -> None:
        self.thread.join()


@contextmanager
def watch_workers(command: str, how_to_continue: str, notes: str = "") -> Iterator[None]:
    """End this process as soon as a worker process dies, with status PROCESS_LOST, or 2 if a file causes it again.

    SIGINT and SIGTERM end the workers, too, and raise KeyboardInterrupt.

    Args:
        how_to_continue: the beginning of the sentence that ends with "the same command again to continue".
        notes: folder of the workers' notes of what they read, if they keep any.
    """
    clear_notes(notes)
    before = threading.excepthook
    lost, interrupted, is_over = threading.Event(), threading.Event(), threading.Event()
    ending = threading.Lock()  # held by the hook while it ends this process, and when the watch is over
    stderr = os.dup(2)  # the terminal, also while the workers' messages go to a file

    def end(error: BaseException | None) -> NoReturn:
        lost.set()
        deaths = record_deaths(notes) if notes else {}
        local_worker.end()  # otherwise the other workers would write for a moment longer
        message = f"a worker process {_what_happened(error)}. "
        if deaths:
            message += f"It was reading {', '.join(deaths)}. "
        message += f"{how_to_continue} the same command again to continue"
        if again := [name for name, number in deaths.items() if number > 1]:
            message = _leave_out(again[0], deaths[again[0]])
        os.write(stderr, f"\nbertloom {command}: error: {message}\n".encode(errors="replace"))
        os._exit(2 if again else PROCESS_LOST)

    def hook(arguments: threading.ExceptHookArgs) -> None:
        with ending:
            if interrupted.is_set() or is_over.is_set():
                return
            if arguments.thread is not None and arguments.thread.name == _THREAD:
                end(arguments.exc_value)
        # An error in another of Beam's threads may be a consequence of a dead worker, or of a signal that killed it.
        if not lost.wait(0.5) and not interrupted.is_set():
            before(arguments)

    threading.excepthook = hook
    try:
        with _end_workers_on_signals(interrupted):
            yield
    except Exception as error:
        if interrupted.is_set():
            raise KeyboardInterrupt from None
        if not isinstance(error, (ValueError, OSError)) and lost.wait(0.5):
            threading.Event().wait()  # an error that the dead worker caused: the hook ends the process
        raise
    finally:
        threading.excepthook = before
        with ending:
            is_over.set()
        os.close(stderr)


@contextmanager
def _end_workers_on_signals(interrupted: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the workers, which Beam would wait for, and then raise KeyboardInterrupt.

    A signal that is ignored (as in a shell's background job) or that ends the process at once is not changed.
    """
    if threading.current_thread() is not threading.main_thread():  # only it may set signal handlers
        yield
        return
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in found.items() if callable(handler)}

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        interrupted.set()
        local_worker.end()
        handlers[signal.Signals(number)](number, frame)
        raise KeyboardInterrupt

    for number in handlers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave_out(name: str, number: int) -> str:
    return (
        f"{name} has ended a worker process {number} times at the same place: the worker crashed or ran out of memory. "
        f"Repair or remove the file, or leave it out with --leave-out {name!r}"
    )


def _what_happened(error: BaseException | None) -> str:
    if isinstance(error, TimeoutError):
        return f"{error}: check that no firewall or security policy forbids connections to localhost, or use --num-workers 1"
    return f"died ({error}). It was killed or ran out of memory"


@contextmanager
def quiet_workers(log: str) -> Iterator[None]:
    """Redirect what Beam and its workers write to standard error into a file: it would break the progress bar."""
    sys.stderr.flush()
    before, reports = sys.stderr, logging.raiseExceptions
    terminal = os.dup(2)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(handle, 2)
        logging.raiseExceptions = False  # a log that cannot be written is reported with a traceback
        with os.fdopen(os.dup(terminal), "w", buffering=1) as sys.stderr:
            yield
    finally:
        sys.stderr, logging.raiseExceptions = before, reports
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(handle)

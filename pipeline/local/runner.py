"""Beam on this machine: its options, and a watch over its workers.

The runner is named FnApiRunner: plain DirectRunner first tries to download another engine. It never retries, and when a
worker is killed it may wait for ever. A thread waits for each worker and raises when the worker fails; the watch hangs on
these threads, ends the job at once, and says that the next start goes on from here.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from google.protobuf import json_format, text_format

from bertloom import storage
from pipeline.local import worker as local_worker

WORKER_LOST = 70  # exit status: EX_SOFTWARE of sysexits.h
LOCAL = "FnApiRunner"
_THREAD = "bertloom worker"
_FORKED = "bertloom:environment:forked:v1"


def pipeline_options(num_workers: int, beam_flags: Sequence[str]) -> PipelineOptions:
    """Options of the local runner, unless the flags name another. Never those of sys.argv."""
    options = PipelineOptions(list(beam_flags))
    if options.view_as(StandardOptions).runner not in (None, LOCAL):
        return options
    return PipelineOptions([f"--runner={LOCAL}", f"--direct_num_workers={num_workers}", *beam_flags])


def is_local(options: PipelineOptions) -> bool:
    return options.view_as(StandardOptions).runner == LOCAL


def run(options: PipelineOptions, build: Callable[[beam.Pipeline], object]) -> None:
    """Runs a pipeline to its end."""
    pipeline = beam.Pipeline(runner=_runner(options), options=options)
    build(pipeline)
    pipeline.run().wait_until_finish()


def _runner(options: PipelineOptions) -> FnApiRunner | None:
    """The local runner with our own worker processes; None for any other, which Beam makes from the options."""
    num_workers = options.view_as(DirectOptions).direct_num_workers
    if not is_local(options) or num_workers == 1:
        return None
    local_worker.start()
    # Left alone, Beam gives worker processes no options, and they could not find a store that a flag names.
    named = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    provision = ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=named))
    return FnApiRunner(_ForkedEnvironment.from_command_string(""), provision_info=provision)


class _ForkedEnvironment(SubprocessSDKEnvironment):
    def to_runner_api_parameter(self, context):
        return _FORKED, b""


@WorkerHandler.register_environment(_FORKED, None)
class _ForkedWorkerHandler(GrpcWorkerHandler):
    """Beam's handler of a worker process, which local_worker starts."""

    def __init__(self, _, *of_beam):
        super().__init__(*of_beam)

    def start_worker(self):
        environment = dict(
            os.environ | storage.environment(),
            WORKER_ID=self.worker_id,
            CONTROL_API_SERVICE_DESCRIPTOR=text_format.MessageToString(self.control_api_service_descriptor()),
            LOGGING_API_SERVICE_DESCRIPTOR=text_format.MessageToString(self.logging_api_service_descriptor()),
            PIPELINE_OPTIONS=json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
        )
        self.thread = threading.Thread(name=_THREAD, target=local_worker.work, args=(environment,))
        self.thread.start()

    def stop_worker(self):
        self.thread.join()


def for_people(error: Exception) -> Exception:
    """The error that a worker raised for people, without what Beam writes around it."""
    for kind in (ValueError, OSError, MemoryError):
        if isinstance(error, kind):  # of a worker in this process
            return kind(_before_beam(str(error)))
        for line in reversed(str(error).splitlines()):  # of another process: a traceback as text
            head, _, text = line.strip().partition(": ")
            if text and head.rpartition(".")[2] in {kind.__name__, *(sub.__name__ for sub in kind.__subclasses__())}:
                return kind(_before_beam(text))
    return error


def _before_beam(text: str) -> str:
    return text.partition(" [while running")[0]


@contextmanager
def worker_watch(command: str, kept: str = "What is finished is kept: start") -> Iterator[None]:
    """Ends the process with status WORKER_LOST, within a moment, when one of Beam's worker processes dies; on Ctrl-C ends
    the workers, and raises KeyboardInterrupt.

    kept: what to say of the work that is done; the sentence goes on with what to do.
    """
    before = threading.excepthook
    lost, interrupted = threading.Event(), threading.Event()
    stderr = os.dup(2)  # the terminal, also while the workers' chatter goes elsewhere

    def hook(arguments: threading.ExceptHookArgs) -> None:
        thread = arguments.thread
        if interrupted.is_set():
            return
        if thread is not None and thread.name == _THREAD and not lost.is_set():
            lost.set()
            local_worker.end()  # or the others would write on for a moment
            os.write(
                stderr,
                f"\nbertloom {command}: error: a worker process died ({arguments.exc_value}); was it killed, or out of "
                f"memory? {kept} the same command again to go on\n".encode(),
            )
            os._exit(WORKER_LOST)
        if not lost.wait(0.5):  # else it is what a lost worker leaves behind, in another of Beam's threads
            before(arguments)

    def interrupt(*_: object) -> NoReturn:
        interrupted.set()
        local_worker.end()  # Beam would wait for its workers
        raise KeyboardInterrupt

    threading.excepthook = hook
    in_main = threading.current_thread() is threading.main_thread()  # signals are its affair alone
    handler = signal.getsignal(signal.SIGINT)
    is_handled = in_main and handler is not signal.SIG_IGN  # as for a shell's background job
    if is_handled:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if interrupted.is_set():
            raise KeyboardInterrupt from None
        if not isinstance(error, (ValueError, OSError)) and lost.wait(0.5):
            _never()  # what a lost worker leaves is no news: the hook speaks, and ends the process
        raise
    finally:
        threading.excepthook = before
        if is_handled:
            signal.signal(signal.SIGINT, handler)
        os.close(stderr)


def _never() -> None:
    threading.Event().wait()


@contextmanager
def quiet_workers(log: str | None) -> Iterator[None]:
    """Sends what Beam and its workers write to standard error to a file: INFO lines would tear the progress bar."""
    if log is None:
        yield
        return
    sys.stderr.flush()
    before = sys.stderr
    terminal = os.dup(2)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(handle, 2)
        with os.fdopen(os.dup(terminal), "w", buffering=1) as sys.stderr:
            yield
    finally:
        sys.stderr = before
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(handle)

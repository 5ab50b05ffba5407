"""Beam on this machine: the runner's options, its worker processes, and what happens when one dies.

The runner is selected as FnApiRunner, because plain DirectRunner first tries to download another engine. It never retries,
and when a worker is killed it may wait forever. So a thread waits for each worker and raises an exception when the worker
dies; the hook for such exceptions ends the job and tells the user how to continue.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from google.protobuf import json_format, text_format

from pipeline.inputs.sources import Split
from pipeline.local import worker as local_worker

WORKER_LOST = 70  # exit status, EX_SOFTWARE in sysexits.h
LOCAL = "FnApiRunner"
_THREAD = "bertloom worker"
_FORKED = "bertloom:environment:forked:v1"


def pipeline_options(num_workers: int, beam_flags: Sequence[str]) -> PipelineOptions:
    """Return Beam's options: those of the local runner, unless the flags name another. sys.argv is not read."""
    options = PipelineOptions(list(beam_flags))
    if options.view_as(StandardOptions).runner not in (None, LOCAL):
        return options
    return PipelineOptions([f"--runner={LOCAL}", f"--direct_num_workers={num_workers}", *beam_flags])


def is_local(options: PipelineOptions) -> bool:
    """Return whether the pipeline runs on this machine."""
    return bool(options.view_as(StandardOptions).runner == LOCAL)


def run(options: PipelineOptions, build: Callable[[beam.Pipeline], object]) -> PipelineResult:
    """Run a pipeline to its end."""
    pipeline = beam.Pipeline(runner=_runner(options), options=options)
    build(pipeline)
    result = pipeline.run()
    result.wait_until_finish()
    return result


def run_over_splits(
    options: PipelineOptions,
    splits: Sequence[Split],
    transform: beam.PTransform[Any, Any],
    *,
    command: str,
    how_to_continue: str,
    log: str,
    progress: AbstractContextManager[object] | None = None,
) -> PipelineResult:
    """Apply a transform to splits and run it to its end. An error for the user is raised without Beam's traceback.

    On this machine, the workers are watched, and their log messages go to a file.

    Args:
        command: name of the command, for messages.
        how_to_continue: the beginning of a message after a worker died, see `watch_workers`.
        log: path of the file for the log messages of workers on this machine.
        progress: a progress bar, shown while the pipeline runs.
    """
    watch: AbstractContextManager[object] = nullcontext()
    quiet: AbstractContextManager[object] = nullcontext()
    if is_local(options):
        watch, quiet = watch_workers(command, how_to_continue), quiet_workers(log)
    dealt = balanced(splits, options.view_as(DirectOptions).direct_num_workers)
    try:
        with watch, quiet, progress or nullcontext():
            return run(options, lambda pipeline: pipeline | "splits" >> beam.Create(dealt) | transform)
    except Exception as error:
        raise user_error(error) from error


def balanced(splits: Sequence[Split], num_workers: int) -> list[Split]:
    """Return the splits in an order in which dealing them out in turn gives every worker about the same bytes."""

    def size(split: Split) -> int:
        return split.num_bytes * (3 if split.source.codec else 1)  # text is compressed about 3:1

    ordered = sorted(splits, key=lambda split: (-size(split), split.source.name, split.start))
    rows = [ordered[i : i + num_workers] for i in range(0, len(ordered), num_workers)]
    return [split for i, row in enumerate(rows) for split in (row[::-1] if i % 2 else row)]


def _runner(options: PipelineOptions) -> FnApiRunner | None:
    """Return the local runner with our own worker processes, or None for another runner, which Beam makes itself."""
    num_workers = options.view_as(DirectOptions).direct_num_workers
    if not is_local(options) or num_workers == 1:
        return None
    local_worker.start()
    # By default Beam passes no options to worker processes, and they could not find a store that a flag names.
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    provision = ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    return FnApiRunner(_ForkedEnvironment.from_command_string(""), provision_info=provision)


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
        self.thread = threading.Thread(name=_THREAD, target=local_worker.work, args=(environment,))
        self.thread.start()

    def stop_worker(self) -> None:
        self.thread.join()


def user_error(error: Exception) -> Exception:
    """Return the user-facing error, unwrapped from Beam's traceback, or the same error if there is none inside."""
    for kind in (ValueError, OSError, MemoryError):
        if isinstance(error, kind):  # raised by a worker in this process
            return kind(_without_beam(str(error)))
        names = {kind.__name__, *(subclass.__name__ for subclass in kind.__subclasses__())}
        for line in reversed(str(error).splitlines()):  # raised by another process: a traceback as text
            name, _, text = line.strip().partition(": ")
            if text and name.rpartition(".")[2] in names:
                return kind(_without_beam(text))
    return error


def _without_beam(text: str) -> str:
    return text.partition(" [while running")[0]


@contextmanager
def watch_workers(command: str, how_to_continue: str) -> Iterator[None]:
    """End this process with status WORKER_LOST as soon as a worker process dies.

    On Ctrl-C, end the workers and raise KeyboardInterrupt.

    how_to_continue: the beginning of the sentence that ends with "the same command again to continue".
    """
    before = threading.excepthook
    lost, interrupted = threading.Event(), threading.Event()
    stderr = os.dup(2)  # the terminal, also while the workers' messages go to a file

    def hook(arguments: threading.ExceptHookArgs) -> None:
        thread = arguments.thread
        if interrupted.is_set():
            return
        if thread is not None and thread.name == _THREAD and not lost.is_set():
            lost.set()
            local_worker.end()  # otherwise the other workers would write for a moment longer
            os.write(
                stderr,
                f"\nbertloom {command}: error: a worker process died ({arguments.exc_value}). It was killed or ran out of "
                f"memory. {how_to_continue} the same command again to continue\n".encode(),
            )
            os._exit(WORKER_LOST)
        if not lost.wait(0.5):  # otherwise it is a consequence of the dead worker, in another of Beam's threads
            before(arguments)

    def interrupt(*_: object) -> NoReturn:
        interrupted.set()
        local_worker.end()  # Beam would wait for its workers
        raise KeyboardInterrupt

    threading.excepthook = hook
    in_main = threading.current_thread() is threading.main_thread()  # only it may set signal handlers
    handler = signal.getsignal(signal.SIGINT)
    is_handled = in_main and handler is not signal.SIG_IGN  # as in a shell's background job
    if is_handled:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if interrupted.is_set():
            raise KeyboardInterrupt from None
        if not isinstance(error, (ValueError, OSError)) and lost.wait(0.5):
            threading.Event().wait()  # an error that the dead worker caused: the hook ends the process
        raise
    finally:
        threading.excepthook = before
        if is_handled:
            signal.signal(signal.SIGINT, handler)
        os.close(stderr)


@contextmanager
def quiet_workers(log: str) -> Iterator[None]:
    """Redirect what Beam and its workers write to standard error into a file: it would break the progress bar."""
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

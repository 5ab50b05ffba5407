"""Beam on this machine: its options, and a watch over its workers.

The runner is named FnApiRunner: plain DirectRunner first tries to download another engine. It never retries, and when a
worker is killed it may wait for ever. Beam waits for each worker in a thread that raises when the worker fails; the watch
hangs on that thread, ends the job at once, and says that the next start goes on from here.
"""

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import apache_beam as beam
import psutil
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

WORKER_LOST = 70  # exit status: EX_SOFTWARE of sysexits.h
LOCAL = "FnApiRunner"


def pipeline_options(num_workers: int, beam_flags: Sequence[str]) -> PipelineOptions:
    """Options of the local runner, unless the flags name another. Never those of sys.argv."""
    if any(flag.split("=")[0] == "--runner" for flag in beam_flags):
        return PipelineOptions(list(beam_flags))
    return PipelineOptions([f"--runner={LOCAL}", f"--direct_num_workers={num_workers}", *beam_flags])


def is_local(beam_flags: Sequence[str]) -> bool:
    return not any(flag.split("=")[0] == "--runner" for flag in beam_flags) or f"--runner={LOCAL}" in beam_flags


def run(options: PipelineOptions, build: Callable[[beam.Pipeline], object]) -> None:
    """Runs a pipeline to its end."""
    pipeline = beam.Pipeline(runner=_runner(options), options=options)
    build(pipeline)
    pipeline.run().wait_until_finish()


def _runner(options: PipelineOptions) -> FnApiRunner | None:
    """The local runner with our own worker processes; None for any other, which Beam makes from the options."""
    num_workers = options.view_as(DirectOptions).direct_num_workers
    if options.view_as(StandardOptions).runner != LOCAL or num_workers == 1:
        return None
    # `exec`: without it a shell would stand between, and whoever kills that leaves the worker behind
    command = f"exec {shlex.quote(sys.executable)} -m pipeline.local_worker {os.getpid()}"
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))


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
    """Ends the process with status WORKER_LOST, within a moment, when one of Beam's worker processes dies.

    kept: what to say of the work that is done; the sentence goes on with what to do.
    """
    before = threading.excepthook
    lost = threading.Event()
    stderr = os.dup(2)  # the terminal, also while the workers' chatter goes elsewhere

    def hook(arguments: threading.ExceptHookArgs) -> None:
        thread = arguments.thread
        if thread is not None and "run_worker" in thread.name and not lost.is_set():
            lost.set()
            subprocess.Popen = _never  # type: ignore # Beam may be about to start another one
            for _ in range(3):  # one that is being started just now appears a moment later
                for child in psutil.Process().children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
                time.sleep(0.03)
            os.write(
                stderr,
                f"\nbertloom {command}: error: a worker process died ({arguments.exc_value}); was it killed, or out of "
                f"memory? {kept} the same command again to go on\n".encode(),
            )
            os._exit(WORKER_LOST)
        if not lost.wait(0.5):  # else it is what a lost worker leaves behind, in another of Beam's threads
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    except Exception as error:
        if not isinstance(error, (ValueError, OSError)) and lost.wait(0.5):
            _never()  # what a lost worker leaves is no news: the hook speaks, and ends the process
        raise
    finally:
        threading.excepthook = before
        os.close(stderr)


def _never(*_: object, **__: object) -> None:
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

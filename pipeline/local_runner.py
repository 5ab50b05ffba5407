"""Beam on this machine: its options, and a watch over its workers.

The runner is named FnApiRunner: plain DirectRunner first tries to download another engine. It never retries, and when a
worker is killed it may wait for ever. Beam waits for each worker in a thread that raises when the worker fails; the watch
hangs on that thread, ends the job at once, and says that the next start goes on from here.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import apache_beam as beam
import psutil
from apache_beam.options.pipeline_options import PipelineOptions

WORKER_LOST = 70  # exit status: EX_SOFTWARE of sysexits.h
LOCAL = "FnApiRunner"


def pipeline_options(num_workers: int, beam_flags: Sequence[str]) -> PipelineOptions:
    """Options of the local runner, unless the flags name another. Never those of sys.argv."""
    if any(flag.split("=")[0] == "--runner" for flag in beam_flags):
        return PipelineOptions(list(beam_flags))
    mode = "in_memory" if num_workers == 1 else "multi_processing"
    return PipelineOptions([
        f"--runner={LOCAL}", f"--direct_running_mode={mode}", f"--direct_num_workers={num_workers}", *beam_flags,
    ])  # fmt: skip


def is_local(beam_flags: Sequence[str]) -> bool:
    return not any(flag.split("=")[0] == "--runner" for flag in beam_flags) or f"--runner={LOCAL}" in beam_flags


def run(options: PipelineOptions, build: Callable[[beam.Pipeline], object]) -> None:
    """Runs a pipeline to its end."""
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    pipeline.run().wait_until_finish()


@contextmanager
def worker_watch(command: str) -> Iterator[None]:
    """Ends the process with status WORKER_LOST, within a moment, when one of Beam's worker processes dies."""
    before = threading.excepthook
    lost = threading.Event()
    stderr = os.dup(2)  # the terminal, also while the workers' chatter goes elsewhere

    def hook(arguments: threading.ExceptHookArgs) -> None:
        thread = arguments.thread
        if thread is not None and "run_worker" in thread.name and not lost.is_set():
            lost.set()
            for child in psutil.Process().children(recursive=True):
                try:
                    child.kill()
                except psutil.NoSuchProcess:
                    continue
            os.write(
                stderr,
                f"\nbertloom {command}: error: a worker process died ({arguments.exc_value}); was it killed, or out of "
                f"memory? What is finished is kept: start the same command again to go on\n".encode(),
            )
            os._exit(WORKER_LOST)
        if not lost.is_set():
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
        os.close(stderr)


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

"""How a job runs: on this machine, or on another runner of Beam; and errors for the user instead of Beam's tracebacks."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.runner import PipelineResult

from bertloom.store_errors import StoreError
from pipeline.inputs.sources import SplitGroup
from pipeline.inputs.split_list import read_split_list
from pipeline.local.runner import (
    LOCAL,
    connect_locally_without_proxy,
    local_runner,
    quiet_workers,
    watch_workers,
)
from pipeline.remote.engine import Engine
from pipeline.remote.errors import remote_error
from pipeline.remote.flags import check_flags, make_runner
from pipeline.remote.job_graph import check_secrets, leave_out_this_machine
from pipeline.remote.jobs import run_on_engine
from pipeline.remote.worker_check import WorkerCheck
from pipeline.remote.workers import watch_remote_workers
from pipeline.stages.splits import build_job


def pipeline_options(num_workers: int, beam_flags: Sequence[str]) -> PipelineOptions:
    """Return Beam's options: those of the local runner, unless the flags name another. sys.argv is not read.

    Raises:
        ValueError: a flag is misspelled or has a wrong value. Another runner may know more flags, see `open_engine`.
    """
    check_flags(beam_flags, None)
    options = PipelineOptions(list(beam_flags))
    if options.view_as(StandardOptions).runner not in (None, LOCAL):
        runner = make_runner(options)
        check_flags(beam_flags, None if isinstance(runner, PortableRunner) else ())
        check_secrets(options)
        leave_out_this_machine(options)
        return options
    check_flags(beam_flags)
    return PipelineOptions([f"--runner={LOCAL}", f"--direct_num_workers={num_workers}", *beam_flags])


def run(
    options: PipelineOptions,
    build: Callable[[beam.Pipeline], object],
) -> PipelineResult:
    """Run a pipeline to its end on this machine."""
    connect_locally_without_proxy()
    pipeline = beam.Pipeline(runner=local_runner(options), options=options)
    build(pipeline)
    result = pipeline.run()
    result.wait_until_finish()
    return result


def run_over_splits(
    options: PipelineOptions,
    splits: str,
    transform: beam.PTransform[Any, Any],
    *,
    command: str,
    how_to_continue: str,
    log: str,
    progress: AbstractContextManager[object] | None = None,
    notes: str = "",
    engine: Engine | None = None,
    check: WorkerCheck | None = None,
) -> PipelineResult:
    """Apply a transform to groups of splits and run it to its end. An error for the user is raised without Beam's traceback.

    On this machine, the workers are watched, and their log messages go to a file. Of another runner, a message names what to
    check as long as no worker has answered.

    Args:
        splits: path of the list of splits (pipeline/inputs/split_list.py).
        command: name of the command, for messages.
        how_to_continue: the beginning of a message after a worker died, see `watch_workers`.
        log: path of the file for the log messages of workers on this machine.
        progress: a progress bar, shown while the pipeline runs.
        notes: local folder of the workers' notes of what they read (pipeline/stages/reading_notes.py), if they keep any.
        engine: the runner, if it is not that of this machine.
        check: what each worker of this runner checks before its first work.
    """

    def build(pipeline: beam.Pipeline) -> None:
        build_job(pipeline, splits, read_split_list(splits).num_groups, transform, check)

    try:
        if engine:
            has_answers = check.has_answers if check else lambda: False
            with watch_remote_workers(options, engine, command, has_answers) as accepted, progress or nullcontext():
                return run_on_engine(engine, options, build, accepted, command)
        with watch_workers(command, how_to_continue, notes), quiet_workers(log), progress or nullcontext():
            return run(options, build)
    except Exception as error:
        found = user_error(error)
        raise (remote_error(found, options, engine) if engine else found) from error


def balanced(groups: Sequence[SplitGroup], num_workers: int) -> list[SplitGroup]:
    """Return the groups in an order in which dealing them out in turn gives every worker about the same bytes."""
    ordered = sorted(groups, key=lambda one: (-one.text_bytes, one.splits[0].source.name, one.splits[0].start))
    rows = [ordered[i : i + num_workers] for i in range(0, len(ordered), num_workers)]
    return [group for i, row in enumerate(rows) for group in (row[::-1] if i % 2 else row)]


def user_error(error: Exception) -> Exception:
    """Return the user-facing error, unwrapped from Beam's traceback, or the same error if there is none inside."""
    for kind in (StoreError, ValueError, OSError, MemoryError):
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

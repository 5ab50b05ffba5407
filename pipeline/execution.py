"""How a job runs: on this machine, or on another runner of Beam; and errors for the user instead of Beam's tracebacks."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
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
    # Only transforms in other languages use Beam's temporary folder, and a job that is killed would leave it.
    shutil.rmtree(pipeline.local_tempdir)
    build(pipeline)
    result = pipeline.run()
    result.wait_until_finish()
    return result


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """Runs transforms over the groups of splits, one after the other, each to its end.

    An error for the user is raised without Beam's traceback. Workers of this machine are watched, and their log messages go
    to a file. Of another runner, a message names what to check as long as no worker has answered.
    """

    options: PipelineOptions
    splits: str
    """Path of the list of splits (pipeline/inputs/split_list.py)."""
    command: str
    """Name of the command, for messages."""
    how_to_continue: str
    """The beginning of a message after a worker died, see `watch_workers`."""
    log: str
    """Path of the file for the log messages of workers on this machine."""
    progress: AbstractContextManager[object] = field(default_factory=nullcontext)
    """A progress bar, shown while a transform runs."""
    notes: str = ""
    """Local folder of the workers' notes of what they read (pipeline/stages/reading_notes.py), if they keep any."""
    engine: Engine | None = None
    """The runner, if it is not that of this machine."""
    check: WorkerCheck | None = None
    """What each worker of this runner checks before its first work."""
    results: list[PipelineResult] = field(default_factory=list)
    """Of the transforms that have ended."""

    def __call__(self, transform: beam.PTransform[Any, Any]) -> None:
        """Run a transform."""
        options, engine = self.options, self.engine

        def build(pipeline: beam.Pipeline) -> None:
            build_job(pipeline, self.splits, read_split_list(self.splits).num_groups, transform, self.check)

        try:
            if engine:
                has_answers = self.check.has_answers if self.check else lambda: False
                with watch_remote_workers(options, engine, self.command, has_answers) as accepted, self.progress:
                    result = run_on_engine(engine, options, build, accepted, self.command)
            else:
                with (
                    watch_workers(self.command, self.how_to_continue, self.notes),
                    quiet_workers(self.log),
                    self.progress,
                ):
                    result = run(options, build)
        except Exception as error:
            found = user_error(error)
            raise (remote_error(found, options, engine) if engine else found) from error
        self.results.append(result)


def balanced(groups: Sequence[SplitGroup], num_workers: int) -> list[SplitGroup]:
    """Return the groups in an order in which dealing them out in turn gives every worker about the same bytes."""
    ordered = sorted(groups, key=lambda one: (-one.text_bytes, one.splits[0].source.name, one.splits[0].start))
    rows = [ordered[i : i + num_workers] for i in range(0, len(ordered), num_workers)]
    return [group for i, row in enumerate(rows) for group in (row[::-1] if i % 2 else row)]


def user_error(error: Exception) -> Exception:
    """Return the user-facing error, unwrapped from Beam's traceback, or the same error if there is none inside."""
    for kind in (StoreError, ValueError, OSError, MemoryError):
        if isinstance(error, kind):  # raised by a worker in this process
            text = str(error)
            if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
                text = f"{error.filename}: {error.strerror}"
            return kind(_without_beam(text))
        names = {kind.__name__, *(subclass.__name__ for subclass in kind.__subclasses__())}
        for line in reversed(str(error).splitlines()):  # raised by another process: a traceback as text
            name, _, text = line.strip().partition(": ")
            if text and name.rpartition(".")[2] in names:
                return kind(_without_beam(text))
    return error


def _without_beam(text: str) -> str:
    return text.partition(" [while running")[0]

"""What a worker process does before its first work in a stage, whatever the stage. Stages need no code for it."""

from collections.abc import Callable
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor

from bertloom import storage


@dataclass(frozen=True)
class WorkerStart:
    """Takes over the options of the stores, and checks the process, which may serve several jobs one after the other."""

    store_options: storage.Options
    """Of the process that built the job."""
    check: Callable[[], object] | None = None
    """What a process on another machine checks."""

    def __call__(self) -> None:
        storage.connect(self.store_options)
        if self.check:
            self.check()


def add_worker_start(pipeline: beam.Pipeline, start: WorkerStart) -> None:
    """Let workers call `start` before they set up a DoFn of a pipeline. CombineFns are left out: none needs a store."""
    pipeline.visit(_AddStart(start))


class _AddStart(PipelineVisitor):
    def __init__(self, start: WorkerStart):
        self.start = start

    def visit_transform(self, applied: AppliedPTransform) -> None:
        function = getattr(applied.transform, "fn", None)
        if isinstance(function, beam.DoFn):
            function.setup = _SetUp(self.start, function)  # type: ignore[method-assign]  # of this object alone


@dataclass(frozen=True)
class _SetUp:
    """Takes the place of the method `setup` of a DoFn."""

    start: WorkerStart
    function: beam.DoFn

    def __call__(self) -> None:
        self.start()
        type(self.function).setup(self.function)

"""Dask as a runner: Beam's DaskRunner, with operations of our own where Beam's lose records or leave workers idle.

Beam 2.77 runs a pipeline as a graph of Dask tasks that is fixed before the first one starts. Three of its operations do not
fit our pipelines:

- A DoFn's `finish_bundle` is called, but what it yields is dropped.
- A group is made by an exchange between all partitions, whose tasks grow with the square of their number. A combination
  (CombineGlobally) first collects all values in one worker.
- Reshuffle does nothing, so one worker does all the work that follows a group of one key.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import distributed
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import AppliedPTransform, PTransformOverride
from apache_beam.pvalue import PCollection
from apache_beam.runners.common import DoFnContext, DoFnInvoker, DoFnSignature, _OutputHandler
from apache_beam.runners.dask import dask_runner
from apache_beam.runners.dask.overrides import _Reshuffle
from apache_beam.runners.dask.transform_evaluator import TRANSLATIONS, DaskBagOp, OneReceiver, get_windowed_value
from apache_beam.runners.runner import PipelineState
from apache_beam.transforms.combiners import ToListCombineFn
from apache_beam.transforms.window import GlobalWindows
from dask import bag
from dask.utils import key_split

from bertloom.counts import counted

_POLL_SECONDS = 0.2
PARTITIONS_PER_THREAD = 8
"""After a Reshuffle. The last partition to end makes the others wait, so each is a small share of a thread's work."""
MIN_PARTITIONS = 32
"""After a Reshuffle, on a small cluster or one whose workers have yet to start. An empty partition takes a millisecond."""


class DaskRunner(dask_runner.DaskRunner):
    """Runs a pipeline on the workers of a Dask scheduler, or on processes of this machine if no scheduler is named."""

    def run_pipeline(self, pipeline: beam.Pipeline, options: PipelineOptions) -> "DaskResult":
        """Send the pipeline to the scheduler."""
        dask_options = options.view_as(dask_runner.DaskOptions)
        if not dask_options.npartitions and not dask_options.partition_size:
            dask_options.partition_size = 1  # an element is a group of splits, or several: seconds of work
        pipeline.replace_all([_CombineInSteps()])
        accepted: Any = super().run_pipeline(pipeline, options)  # type: ignore[no-untyped-call]  # Beam's has no types
        return DaskResult(accepted.client, accepted.futures)


class DaskResult(dask_runner.DaskRunnerResult):
    """A running job."""

    def wait_until_finish(self, duration: int | None = None) -> str:
        """Return the state at the end of the job, and disconnect from the scheduler. Beam's takes a lost job for done."""
        try:
            distributed.wait(self.futures, duration and duration / 1000)
            for future in self.futures:
                if error := future.exception():
                    raise _for_user(error) from error
            self._state = PipelineState.DONE
        except KeyboardInterrupt:  # `cancel` needs the client
            raise
        except CancelledError:
            self.client.close()
            raise ConnectionError(
                "the Dask scheduler has cancelled the job, or has ended. See its log. Finished work is kept: start the same "
                "command again to continue"
            ) from None
        except BaseException:
            self.client.close()
            raise
        self.client.close()  # an open client tries to connect again while this process ends
        return self._state

    def cancel(self) -> str:
        """Let the scheduler forget the job, wait for its running tasks, which nothing can stop, and disconnect."""
        keys = [future.key for future in self.futures]
        running = self.client.run_on_scheduler(_running, keys)
        self.client.cancel(self.futures)
        while running and any(self.client.run(_still_run, running, workers=list(running)).values()):
            time.sleep(_POLL_SECONDS)
        self.client.close()
        self._state = PipelineState.CANCELLED
        return self._state


def _running(keys: list[Any], dask_scheduler: Any) -> dict[str, set[Any]]:
    """Return worker -> the tasks there that the tasks with these keys wait for. Runs in the scheduler."""
    found: dict[str, set[Any]] = {}
    waiting = [dask_scheduler.tasks[key] for key in keys if key in dask_scheduler.tasks]
    seen = set(waiting)
    while waiting:
        task = waiting.pop()
        if task.processing_on:
            found.setdefault(task.processing_on.address, set()).add(task.key)
        new = set(task.dependencies) - seen
        seen |= new
        waiting += new
    return found


def _still_run(keys: dict[str, set[Any]], dask_worker: Any) -> bool:
    """Return whether one of these tasks occupies a thread. Runs in a worker."""
    mine = keys.get(dask_worker.address, set())
    return any(task.key in mine for task in dask_worker.state.all_running_tasks)


def _for_user(error: BaseException) -> BaseException:
    """Return an error for the user if a worker ended or could not load the job; else the same."""
    if isinstance(error, distributed.KilledWorker):
        workers = counted(error.allowed_failures + 1, "Dask worker")
        return ConnectionError(
            f"the stage {key_split(error.task)} has ended {workers}: it crashed or ran out of memory. See the log of the "
            f"worker at {error.last_worker.address}, and give the workers more memory (dask worker --memory-limit)"
        )
    if isinstance(error.__cause__, ImportError):
        return ConnectionError(
            f"the Dask scheduler or a worker could not load the job: {error.__cause__}. Both need the same packages as this "
            "machine"
        )
    return error


@dataclass
class _Combine(beam.PTransform[Any, Any]):
    """Keys with values -> keys with combined values."""

    function: beam.CombineFn

    def expand(self, keyed: PCollection[Any]) -> PCollection[Any]:
        return PCollection.from_(keyed)


class _CombineInSteps(PTransformOverride):
    """GroupByKey and CombinePerKey as one operation."""

    def matches(self, applied: AppliedPTransform) -> bool:
        return type(applied.transform) in (beam.GroupByKey, beam.CombinePerKey)

    def get_replacement_transform_for_applied_ptransform(self, applied: AppliedPTransform) -> _Combine:
        return _Combine(getattr(applied.transform, "fn", None) or ToListCombineFn())


class _ParDo(DaskBagOp):
    """A partition is a bundle."""

    def apply(self, input_bag: Any, side_inputs: Any = None) -> Any:
        assert not side_inputs, f"{self.applied.full_label} has side inputs"
        args, kwargs = self.transform.raw_side_inputs
        return input_bag.map_partitions(_Bundle(_name(self.applied), self.transform.fn, args, kwargs))


def _name(applied: AppliedPTransform) -> str:
    """Return the name of a stage, as Dask's page shows it. A task that ends with the keys of a group has that before."""
    if applied.parent and isinstance(applied.parent.transform, beam.GroupBy):
        (keyed,) = applied.main_inputs.values()
        applied = keyed.producer or applied
    return applied.full_label


class _Bundle:
    """The elements of a partition -> what a DoFn makes of them."""

    def __init__(self, name: str, function: beam.DoFn, args: Sequence[Any], kwargs: dict[str, Any]):
        self.__name__ = name  # Dask's page shows it
        self.function, self.args, self.kwargs = function, args, kwargs

    def __call__(self, partition: Iterable[Any]) -> list[Any]:
        elements = list(partition)
        return self._run(elements) if elements else []  # no bundle, so no set-up, for many partitions after a Reshuffle

    def _run(self, elements: list[Any]) -> list[Any]:
        window, received = GlobalWindows(), OneReceiver()
        output = _OutputHandler(window, received[None], received, None, None, False, False)
        invoker = DoFnInvoker.create_invoker(
            DoFnSignature(self.function),
            output,
            context=DoFnContext(self.__name__, state=None),
            side_inputs=[],
            input_args=list(self.args),
            input_kwargs=self.kwargs,
            user_state_context=None,
            bundle_finalizer_param=beam.DoFn.BundleFinalizerParam(),
        )
        invoker.invoke_setup()
        try:
            invoker.invoke_start_bundle()
            for element in elements:
                invoker.invoke_process(get_windowed_value(element, window))
            invoker.invoke_finish_bundle()
        finally:
            invoker.invoke_teardown()
        return [windowed.value for windowed in received.values]


class _CombineOp(DaskBagOp):
    """Combines the values of each partition, and then a few partitions at a time. The result is one partition."""

    def apply(self, input_bag: Any, side_inputs: Any = None) -> Any:
        function = self.transform.function

        def add(partition: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
            totals: dict[Any, Any] = {}
            for key, value in partition:
                total = totals[key] if key in totals else function.create_accumulator()
                totals[key] = function.add_input(total, value)
            return totals

        def merge(parts: Iterable[dict[Any, Any]]) -> dict[Any, Any]:
            totals: dict[Any, list[Any]] = {}
            for part in parts:
                for key, total in part.items():
                    totals.setdefault(key, []).append(total)
            return {key: function.merge_accumulators(found) for key, found in totals.items()}

        def results(totals: dict[Any, Any]) -> list[tuple[Any, Any]]:
            return [(key, function.extract_output(total)) for key, total in totals.items()]

        label = self.applied.full_label
        combined = input_bag.reduction(add, merge, out_type=bag.Bag, name=label)
        return combined.map_partitions(results)


class _ReshuffleOp(DaskBagOp):
    """Deals the elements of few partitions out to many."""

    def apply(self, input_bag: Any, side_inputs: Any = None) -> Any:
        threads = sum(distributed.default_client().nthreads().values())
        number = max(MIN_PARTITIONS, PARTITIONS_PER_THREAD * threads)
        return input_bag if input_bag.npartitions >= number else input_bag.repartition(number)


TRANSLATIONS.update({beam.ParDo: _ParDo, _Combine: _CombineOp, _Reshuffle: _ReshuffleOp})

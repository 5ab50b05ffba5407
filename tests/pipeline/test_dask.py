"""Pipelines on Dask's workers, here threads of this process: what Beam's own runner gives, on all workers."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import apache_beam as beam
import distributed
import pytest
from apache_beam.transforms.window import GlobalWindows
from dask import config

from pipeline.execution import pipeline_options
from pipeline.remote import dask
from pipeline.remote.flags import make_runner

WORDS = "to be or not to be that is the question".split()


@pytest.fixture(scope="module")
def flags() -> Iterator[list[str]]:
    """The flags that lead to a scheduler with two workers."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=False
    ) as cluster:
        yield ["--runner=DaskRunner", f"--dask_client_address={cluster.scheduler_address}"]


def note(element: object, path: Path) -> None:
    """Add a line to a file."""
    with path.open("a") as file:
        file.write(f"{element!r}\n")


def run(flags: list[str], build: Callable[[beam.Pipeline], object], accepted=lambda result: None) -> None:
    """Run a pipeline to its end. accepted: called with the result once the job runs."""
    options = pipeline_options(1, flags)
    pipeline = beam.Pipeline(runner=make_runner(options), options=options)
    build(pipeline)
    result = pipeline.run()
    accepted(result)
    result.wait_until_finish()


@pytest.fixture
def results(tmp_path) -> Callable[..., list[str]]:
    """A function that runs a transform of words with some flags and returns its elements."""

    def results(words: list[str], transform: beam.PTransform, *flags: str) -> list[str]:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        path.touch()
        run(flags, lambda begin: begin | beam.Create(words) | transform | beam.Map(note, path))
        return sorted(path.read_text().splitlines())

    return results


class CountBundle(beam.DoFn):
    """Elements -> their number, at the end of a bundle."""

    def start_bundle(self) -> None:
        self.number = 0

    def process(self, element: object) -> None:
        self.number += 1

    def finish_bundle(self) -> Iterator[object]:
        if self.number:
            yield GlobalWindows.windowed_value(self.number)


TRANSFORMS = {
    "a group": beam.GroupBy(len) | beam.MapTuple(lambda key, group: (key, sorted(group))),
    "a group of all": beam.GroupBy(lambda _: None) | beam.MapTuple(lambda _, group: sorted(group)),
    "a combination": beam.Map(lambda word: (len(word), 1)) | beam.CombinePerKey(sum),
    "a combination of all": beam.Map(len) | beam.CombineGlobally(sum).without_defaults(),
    "what finish_bundle yields": beam.ParDo(CountBundle()) | "add" >> beam.CombineGlobally(sum).without_defaults(),
    "a fan": beam.FlatMap(list) | beam.Reshuffle() | beam.Map(str.upper),
}


@pytest.mark.parametrize("words", [[], ["one"], 3 * WORDS], ids=len)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_gives_on_dask_what_it_gives_on_the_embedded_runner(flags, results, name, words):
    expected = results(words, TRANSFORMS[name])
    assert results(words, TRANSFORMS[name], *flags) == expected
    assert bool(expected) == bool(words)


def test_each_element_is_a_task_of_its_own_unless_a_flag_gives_another_number(flags, results):
    assert results(WORDS, beam.ParDo(CountBundle()), *flags) == len(WORDS) * ["1"]
    assert results(WORDS, beam.ParDo(CountBundle()), *flags, "--dask_partition_size=5") == ["5", "5"]
    assert results(WORDS, beam.ParDo(CountBundle()), *flags, "--dask_npartitions=1") == ["10"]


def test_what_follows_a_group_of_all_elements_is_dealt_out_to_many_tasks(flags, results):
    number = 3 * dask.MIN_PARTITIONS
    fan = beam.GroupBy(lambda _: None) | beam.FlatMap(lambda _: range(number))
    assert results(WORDS, fan | beam.ParDo(CountBundle()), *flags) == [str(number)]
    spread = fan | beam.Reshuffle() | beam.ParDo(CountBundle())
    assert Counter(results(WORDS, spread, *flags)) == {"3": dask.MIN_PARTITIONS}


@pytest.mark.parametrize("name", ["DaskRunner", "dask", "apache_beam.runners.dask.dask_runner.DaskRunner"])
def test_every_name_of_the_dask_runner_gives_ours(name):
    assert type(make_runner(pipeline_options(1, [f"--runner={name}"]))) is dask.DaskRunner


def test_without_dask_the_error_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "pipeline.remote.dask")
    monkeypatch.delattr("pipeline.remote.dask")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r'--runner=DaskRunner needs the extra "dask": pip install'):
        pipeline_options(1, ["--runner=DaskRunner"])


def fail(word: str) -> None:
    raise ValueError(f"--input: {word}")


def test_an_error_of_a_worker_is_raised_as_it_is(flags, results):
    with pytest.raises(ValueError, match="^--input: one$"):
        results(["one"], beam.Map(fail), *flags)


def slow(number: int, path: Path) -> int:
    note(("begin", number), path)
    time.sleep(0.3)
    note(("end", number), path)
    return number


def test_a_cancelled_job_has_ended_all_its_tasks(flags, tmp_path):
    path = tmp_path / "notes"
    options = pipeline_options(1, flags)
    pipeline = beam.Pipeline(runner=make_runner(options), options=options)
    pipeline | beam.Create(range(40)) | beam.Map(slow, path)
    result = pipeline.run()
    while not path.exists():
        time.sleep(0.01)
    result.cancel()
    before = path.read_text()
    assert before.count("begin") == before.count("end") < 40
    time.sleep(0.7)
    assert path.read_text() == before and result.state == "CANCELLED"


def test_a_job_that_the_scheduler_cancels_is_not_taken_for_done(flags):
    def cancel(result) -> None:
        result.client.cancel(result.futures)

    with pytest.raises(ConnectionError, match="the Dask scheduler has cancelled the job, or has ended"):
        run(flags, lambda begin: begin | beam.Create(WORDS) | beam.Map(len), cancel)


def end(_: str) -> None:
    os._exit(1)


def test_a_stage_that_ends_its_workers_is_named(results):
    place = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    once = {"distributed.scheduler.allowed-failures": 0}
    with config.set(once), distributed.LocalCluster(**place) as cluster:
        flags = ["--runner=DaskRunner", f"--dask_client_address={cluster.scheduler_address}"]
        message = "the stage .*end.* has ended 1 Dask worker: it crashed or ran out of memory"
        with pytest.raises(ConnectionError, match=message):
            results(["one"], beam.Map(end), *flags)

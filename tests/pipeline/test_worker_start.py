"""What workers do before their first work: the same in every stage, also in one that is yet to be written."""

import apache_beam as beam
import pytest
from apache_beam.internal import pickler
from apache_beam.pipeline import PipelineVisitor

from bertloom import storage
from pipeline.examples.configuration import ExamplesConfig
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.preprocess import Preprocess
from pipeline.stages.line_repeats import CountLines
from pipeline.stages.sampling import FindShare
from pipeline.stages.splits import build_job
from pipeline.stages.word_counts import CountWords
from pipeline.stages.word_cuts import BertWords
from pipeline.stages.worker_start import WorkerStart, add_worker_start
from pipeline.tokenizer import TokenizeConfig

CONFIG, PLACES = TokenizeConfig(), Places("out", "work")
CLEAN = CONFIG.text.clean
JOB = JobConfig(CONFIG, ExamplesConfig(near_duplicates=0.8), "0" * 64, extends=("1" * 64,))
STORES = {"s3": {"endpoint_url": "http://store"}}


class FindFunctions(PipelineVisitor):
    def __init__(self) -> None:
        self.found: dict[str, bytes] = {}

    def visit_transform(self, applied) -> None:
        if isinstance(applied.transform, beam.ParDo):
            self.found[applied.full_label] = pickler.dumps(applied.transform.fn)


def functions_of(pipeline: beam.Pipeline) -> dict[str, bytes]:
    """The functions of a pipeline as they travel to workers, by their names."""
    visitor = FindFunctions()
    pipeline.visit(visitor)
    return visitor.found


def failing() -> None:
    raise ConnectionError("checked")


@pytest.mark.parametrize(
    "transform, num_functions",
    [
        (Preprocess(JOB, JOB, PLACES, 1, "list", ()), 10),
        (CountLines(CLEAN, 2, PLACES), 4),
        (FindShare(CLEAN, False, "share", "log"), 2),
        (CountWords("words", CLEAN, BertWords(True, None), "log"), 2),
    ],
    ids=["preprocess", "count lines", "find share", "count words"],
)
def test_a_worker_is_checked_in_whatever_stage_it_begins(transform, num_functions):
    """It may join a job late, and never read a text."""
    pipeline = beam.Pipeline()
    build_job(pipeline, "list", 3, transform, failing)
    found = functions_of(pipeline)
    assert len(found) > num_functions
    for pickled in found.values():
        with pytest.raises(ConnectionError, match="checked"):
            pickler.loads(pickled).setup()


def test_a_worker_takes_over_the_options_of_the_stores_of_each_job_that_it_serves():
    pickled = []
    for options in (STORES, {}):
        pipeline = beam.Pipeline()
        pipeline | beam.Create([1]) | "double" >> beam.Map(lambda number: 2 * number)
        add_worker_start(pipeline, WorkerStart(options))
        pickled.append(functions_of(pipeline)["double"])
    for content, options in zip(pickled, (STORES, {}), strict=True):
        pickler.loads(content).setup()
        assert storage.options() == options


class Tripled(beam.DoFn):
    def setup(self) -> None:
        self.factor = 3

    def process(self, number):
        yield self.factor * number


def test_a_stage_keeps_its_own_set_up(tmp_path):
    def check() -> None:
        (tmp_path / "checked").touch()

    with beam.Pipeline("FnApiRunner") as pipeline:
        numbers = pipeline | beam.Create([1, 2]) | beam.ParDo(Tripled()) | beam.CombineGlobally(sum)
        numbers | beam.Map(lambda number: (tmp_path / "sum").write_text(str(number)))
        add_worker_start(pipeline, WorkerStart({}, check))
    assert (tmp_path / "sum").read_text() == "9"
    assert (tmp_path / "checked").exists()

"""The job that goes to an engine on other machines: small, loadable there, without secrets and paths of the launcher."""

import apache_beam as beam
import pytest
from apache_beam.runners.portability.portable_runner import PortableRunner

from bertloom import storage
from pipeline.examples.configuration import ExamplesConfig
from pipeline.execution import pipeline_options
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.preprocess import Preprocess
from pipeline.remote.job_graph import path_in_packages
from pipeline.stages.line_repeats import CountLines
from pipeline.stages.sampling import FindShare
from pipeline.stages.splits import MAX_ELEMENTS, build_job
from pipeline.stages.word_counts import CountWords
from pipeline.stages.word_cuts import BertWords
from pipeline.storage_flags import storage_options
from pipeline.tokenizer import TokenizeConfig
from tests.pipeline.job_graphs import contents, load_elsewhere, name_this_machine, pickles, traces_of_this_machine

FLAGS = [
    "--runner=PortableRunner",
    "--job_endpoint=engine:8099",
    "--environment_type=EXTERNAL",
    "--environment_config=pool:50000",
    "--s3_endpoint_url=http://store:9000",
]
CONFIG = TokenizeConfig()
CLEAN = CONFIG.text.clean
EXAMPLES = ExamplesConfig(max_seq_length=(128, 512), near_duplicates=0.8)
NEAR = JobConfig(CONFIG, EXAMPLES, "0" * 64, extends=("1" * 64,))


PLACES = Places("s3://bucket/set", "s3://bucket/work")
TRANSFORMS = {
    "preprocess": lambda: Preprocess(NEAR, NEAR, PLACES, 8_000_000, "s3://bucket/list", ("a note",)),
    "count lines": lambda: CountLines(CLEAN, 50, PLACES),
    "find share": lambda: FindShare(CLEAN, False, "s3://bucket/share", PLACES.work_log),
    "count words": lambda: CountWords("s3://bucket/words", CLEAN, BertWords(True, None), PLACES.work_log),
}


def submitted(transform: str = "preprocess", num_groups: int = 3) -> bytes:
    """The serialized pipeline that a portable runner sends to its job server."""
    options = pipeline_options(1, FLAGS)
    pipeline = beam.Pipeline(options=options)
    storage.connect(storage_options(options))
    try:
        build_job(pipeline, "s3://bucket/list", num_groups, TRANSFORMS[transform]())
    finally:
        storage.connect({})
    return PortableRunner.get_proto_pipeline(pipeline, options).SerializeToString(deterministic=True)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_job_names_neither_the_machine_nor_the_folders_of_its_launcher(monkeypatch, transform):
    name_this_machine(monkeypatch)
    graph = submitted(transform)
    assert len(pickles(graph)) > 5
    assert traces_of_this_machine(graph) == []


def test_the_stages_load_in_a_process_with_only_what_a_worker_has(tmp_path):
    graphs = b"\n".join(map(submitted, TRANSFORMS))
    assert {"TokenizeGroup", "CallableWrapperDoFn"} <= set(load_elsewhere(graphs, tmp_path))


def test_a_job_holds_the_options_of_the_stores():
    assert any(b"http://store:9000" in text for text in contents(submitted()))


@pytest.mark.parametrize(
    "flag, instead",
    [
        ("--s3_secret_access_key=hush", "AWS_SECRET_ACCESS_KEY"),
        ("--s3_session_token=hush", "AWS_SESSION_TOKEN"),
        ("--azure_connection_string=hush", "AZURE_STORAGE_CONNECTION_STRING"),
    ],
)
def test_a_secret_is_refused_as_a_flag_of_a_job_for_other_machines_and_not_repeated(flag, instead):
    with pytest.raises(ValueError, match=f"{flag.partition('=')[0]} with --runner=PortableRunner.*{instead}") as error:
        pipeline_options(1, [*FLAGS, flag])
    assert "hush" not in str(error.value)
    assert pipeline_options(1, [flag])


def test_a_job_does_not_grow_with_the_number_of_splits():
    few, many, most = (len(submitted(num_groups=number)) for number in (1_000, 20_000, 5_000_000))
    assert many - few < 10 * MAX_ELEMENTS
    assert most - many < 10 * MAX_ELEMENTS  # the numbers in it are longer
    assert most < 400_000  # of 20 MB that Dataflow accepts, and of 10 MB of a message between the processes of Flink


def test_a_path_is_given_from_the_folder_in_which_imports_find_it(monkeypatch):
    monkeypatch.setattr("sys.path", ["/venv/lib", "/venv/lib/site-packages"])
    assert path_in_packages("/venv/lib/site-packages/apache_beam/core.py") == "apache_beam/core.py"
    assert path_in_packages("/home/me/bertloom/pipeline/places.py") == "places.py"

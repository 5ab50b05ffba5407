"""Jobs for Dataflow, which no test can reach: built completely from the command line, and examined instead of sent."""

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.runners.dataflow import dataflow_runner

from bertloom import storage
from jobs import cli
from pipeline.remote.dataflow import check_dataflow, is_dry_run, name_job
from pipeline.remote.engine import Engine
from pipeline.remote.errors import remote_error
from tests.jobs.corpus import as_txt, documents
from tests.jobs.dataflow_service import Service, dataflow_service
from tests.model.object_store import Store, object_store
from tests.pipeline.job_graphs import load_elsewhere, name_this_machine, traces_of_this_machine

pytest.importorskip("google.cloud.dataflow", reason="needs the extra gcp: pip install -e '.[gcp]'")

IMAGE = "europe-docker.pkg.dev/project/images/bertloom:1"
NEEDED = [
    "--runner=DataflowRunner",
    "--project=my-project",
    "--region=europe-west1",
    "--temp_location=gs://mine/staged",
]
FLAGS = [*NEEDED, f"--sdk_container_image={IMAGE}"]


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with object_store() as store:
        storage.connect({})
        store.client().create_bucket(Bucket="texts")
        store.client().put_object(Bucket="texts", Key="in/a.txt", Body=as_txt(documents(40)))
        yield store
    storage.connect({})


def keys(server: Store) -> list[str]:
    return [row["Key"] for row in server.client().list_objects_v2(Bucket="texts")["Contents"]]


def command(vocab, *flags: str) -> list[str]:
    given = ["--input", "s3://texts/in/", "--vocab", str(vocab), "--out", "s3://texts/set", "--max-seq-length", "32"]
    return ["preprocess", *given, *flags]


def dry_run(vocab, file, *flags: str, own: tuple[str, ...] = ()) -> int:
    return cli.main(command(vocab, *own, "--", *FLAGS, "--dry_run=True", f"--dataflow_job_file={file}", *flags))


def test_a_dry_run_writes_the_whole_job_to_a_file_and_nothing_else(server, vocab, tmp_path, capsys, monkeypatch):
    name_this_machine(monkeypatch)
    workers = ["--machine_type=n2-standard-4", "--disk_size_gb=50", "--num_workers=2", "--max_num_workers=20"]
    server.reset()
    assert dry_run(vocab, tmp_path / "job.json", *workers, "--number_of_worker_harness_threads=1") == 0
    assert {method for method, _, _ in server.requests} <= {"GET", "HEAD"}
    assert keys(server) == ["in/a.txt"]
    said = capsys.readouterr().err
    assert "dry run: 1 job for Dataflow built and checked. Nothing was submitted, or written to s3://texts/set" in said
    assert f"{tmp_path}/job.json and {tmp_path}/job.json.pipeline.pb" in said
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("job")) == [
        "job.json",
        "job.json.pipeline.pb",
    ]

    job = json.loads((tmp_path / "job.json").read_text())
    (pool,) = job["environment"]["workerPools"]
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [IMAGE]
    assert (pool["machineType"], pool["diskSizeGb"], pool["numWorkers"]) == ("n2-standard-4", 50, 2)
    assert (pool["autoscalingSettings"]["maxNumWorkers"], pool["numThreadsPerWorker"]) == (20, 1)
    assert "packages" not in pool  # nothing of this machine is staged

    graph = (tmp_path / "job.json.pipeline.pb").read_bytes()
    assert IMAGE.encode() in graph
    assert traces_of_this_machine((tmp_path / "job.json").read_bytes()) == []
    assert traces_of_this_machine(graph) == []
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert {"TokenizeGroup", "CallableWrapperDoFn"} <= set(load_elsewhere(graph, folder))


def test_a_dry_run_builds_the_jobs_that_come_before_the_main_one(server, vocab, tmp_path, capsys):
    own = ("--sample", "10", "--max-line-repeats", "3", "--near-duplicates", "0.8")
    assert dry_run(vocab, tmp_path / "job.json", own=own) == 0
    assert "dry run: 3 jobs for Dataflow built and checked" in capsys.readouterr().err
    assert "near duplicates" in (tmp_path / "job.json.pipeline.pb").read_bytes().decode(errors="replace")


def test_a_dry_run_leaves_an_unfinished_data_set_as_it_is_and_refuses_what_a_start_would_refuse(
    server, vocab, tmp_path, capsys
):
    assert cli.main(command(vocab)) == 0
    assert dry_run(vocab, tmp_path / "job.json") == 0
    assert "dry run: s3://texts/set is already complete, so there is nothing to do" in capsys.readouterr().err
    server.client().delete_object(Bucket="texts", Key="set/manifest.json")
    storage.write_whole("s3://texts/set/.work/job.json", [b"{}"])
    before = keys(server)
    assert dry_run(vocab, tmp_path / "job.json") == 2
    assert "set/.work/job.json is damaged" in capsys.readouterr().err
    assert keys(server) == before
    for key in before:
        if key.startswith("set/"):
            server.client().delete_object(Bucket="texts", Key=key)


def run(vocab, service: Service, folder: str) -> int:
    """Preprocess on a stand-in for Dataflow, which needs no account and takes uploads in a local folder."""
    upload = [f"--temp_location={service.folder}", f"--dataflow_endpoint={service.endpoint}", "--no_auth"]
    flags = [flag for flag in FLAGS if not flag.startswith("--temp_location")]
    words = command(vocab)
    words[words.index("s3://texts/set")] = folder
    return cli.main([*words, "--near-duplicates", "0.8", *(["--", *flags, *upload] if service.endpoint else [])])


def test_the_uploaded_graph_gives_the_data_set_of_the_embedded_runner_in_a_process_with_only_what_a_worker_has(
    server, vocab, tmp_path, capsys
):
    with dataflow_service(tmp_path) as service:
        assert run(vocab, service, "s3://texts/far") == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["pipeline.pb"]
    assert service.job["name"].startswith("bertloom-preprocess-")
    assert run(vocab, Service(tmp_path), "s3://texts/near") == 0
    said = capsys.readouterr().out
    far, near = (line for line in said.splitlines() if "digest of all shards" in line)
    assert far == near


@pytest.mark.parametrize(
    "failure, expected",
    [
        (
            "Workflow failed. Causes: too small a quota",
            "DataflowRunner ended the job: Workflow failed. Causes: too small",
        ),
        (
            "Traceback:\nModuleNotFoundError: No module named 'pipeline'",
            "a worker could not load the job: ModuleNotFound",
        ),
        (
            "Traceback:\nValueError: a.txt: is damaged [while running 'x']",
            "error: a.txt: is damaged; s3://texts/failed has",
        ),
    ],
)
def test_a_job_that_dataflow_ends_is_one_line(server, vocab, tmp_path, capsys, monkeypatch, failure, expected):
    short = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 1000), time=time.time)
    monkeypatch.setattr("apache_beam.runners.dataflow.dataflow_runner.time", short)
    with dataflow_service(tmp_path) as service:
        service.failure = failure
        assert run(vocab, service, "s3://texts/failed") == 2
    assert expected in capsys.readouterr().err


def test_a_job_that_somebody_cancels_ends_with_its_state():
    error = dataflow_runner.DataflowRuntimeException("Dataflow pipeline failed. State: CANCELLED, Error:\nNone", None)
    found = remote_error(
        error, PipelineOptions(FLAGS), Engine(dataflow_runner.DataflowRunner(), "DataflowRunner", "", "a.log")
    )
    assert str(found).startswith(
        "DataflowRunner ended the job: Dataflow pipeline failed. State: CANCELLED. See the job's"
    )


@pytest.mark.parametrize(
    "flags, places, expected",
    [
        (["--runner=DataflowRunner"], {}, "--runner=DataflowRunner needs --project=PROJECT_ID"),
        (NEEDED[:2], {}, "--runner=DataflowRunner needs --region=REGION"),
        (NEEDED[:3], {}, "--runner=DataflowRunner needs --temp_location=gs://BUCKET/tmp"),
        (NEEDED, {}, "Beam's own image, which lacks bertloom. Give --sdk_container_image=IMAGE"),
        ([*FLAGS, "--template_location=gs://mine/t"], {}, "give --dry_run=True --dataflow_job_file=FILE instead"),
        (FLAGS, {"--out": ["gs://mine/set"], "--input": ["texts/"]}, "--input texts/: is on this machine, where"),
    ],
)
def test_what_would_fail_after_the_machines_have_started_is_refused_at_once(flags, places, expected):
    with pytest.raises(ValueError) as error:
        check_dataflow(PipelineOptions(flags), places)
    assert expected in str(error.value)


def test_whole_flags_are_accepted_and_other_runners_are_not_asked_for_them():
    check_dataflow(PipelineOptions(FLAGS), {"--out": ["gs://mine/set"]})
    check_dataflow(PipelineOptions(["--runner=FlinkRunner"]), {"--out": ["out"]})


def test_only_dataflow_has_dry_runs():
    assert is_dry_run(PipelineOptions([*FLAGS, "--dry_run=true"]))
    assert not is_dry_run(PipelineOptions([*FLAGS, "--dry_run=False"]))
    assert not is_dry_run(PipelineOptions(FLAGS))
    with pytest.raises(ValueError, match="--dry_run=yes: expected True or False"):
        is_dry_run(PipelineOptions([*FLAGS, "--dry_run=yes"]))
    with pytest.raises(
        ValueError, match="--dry_run=True: only Dataflow has dry runs.*another runner would start the job"
    ):
        is_dry_run(PipelineOptions(["--runner=FlinkRunner", "--dry_run=True"]))


def test_a_job_is_named_after_its_output_so_that_two_of_one_output_do_not_run_at_once():
    def named(out: str, *flags: str) -> str:
        options = PipelineOptions(flags)
        name_job(options, "preprocess", out)
        return options.view_as(GoogleCloudOptions).job_name

    assert named("gs://mine/a") == named("gs://mine/a") != named("gs://mine/b")
    assert named("gs://mine/a").startswith("bertloom-preprocess-")
    assert named("gs://mine/a", "--job_name=mine") == "mine"

"""What a job on another Beam runner prints while no worker reports, and when the runner or a worker fails."""

import sys
import threading
import types

import grpc
import pytest
from apache_beam.runners.portability.portable_runner import PortableRunner

from pipeline.execution import pipeline_options
from pipeline.remote import workers
from pipeline.remote.engine import Engine
from pipeline.remote.errors import remote_error, submission_error
from pipeline.remote.workers import watch_remote_workers

POOL = ["--runner=PortableRunner", "--job_endpoint=jobs:1", "--environment_type=EXTERNAL"]
CONFIG = "--environment_config=pool:2"


@pytest.fixture
def engine(tmp_path) -> Engine:
    (tmp_path / "log").touch()
    return Engine(PortableRunner(), "PortableRunner", "", str(tmp_path / "log"))


class Result:
    """Beam's result of a job whose workers report counters after some questions."""

    def __init__(self, silent: int):
        self.silent, self.reported = [silent], threading.Event()

    def metrics(self):
        self.silent[0] -= 1
        if self.silent[0] >= 0:
            return types.SimpleNamespace(query=lambda: {"counters": []})
        self.reported.set()
        return types.SimpleNamespace(query=lambda: {"counters": ["documents-in"]})


def test_messages_name_the_worker_pool_until_a_worker_has_reported(monkeypatch, capsys, engine):
    monkeypatch.setattr(workers, "MINUTE", 0.01)
    result, is_accepted = Result(silent=2), threading.Event()
    options = pipeline_options(1, [*POOL, CONFIG])
    with watch_remote_workers(options, engine, "preprocess", lambda: not is_accepted.wait(60)) as accepted:
        accepted(result)
        is_accepted.set()
        assert result.reported.wait(60)
    first, second = capsys.readouterr().err.splitlines()
    python = f"Python {sys.version_info[0]}.{sys.version_info[1]} with bertloom "
    assert first.startswith("bertloom preprocess: no worker has reported anything for 1 minute. See the log of ")
    assert f"the worker pool at pool:2. `bertloom worker-pool` must run there, in {python}" in first
    assert "the first `python` on PATH must be that one" in first
    assert "and apache-beam " in first and "for 3 minutes" in second


def test_messages_end_when_a_worker_has_answered(monkeypatch, capsys, engine):
    monkeypatch.setattr(workers, "MINUTE", 0.01)
    asked = threading.Event()
    options = pipeline_options(1, [*POOL, CONFIG])
    with watch_remote_workers(options, engine, "preprocess", lambda: not asked.set()):
        assert asked.wait(60)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "DaskRunner",
            "no worker has reported anything for 1 minute. See the scheduler's page: it must have workers, in ",
        ),
        (
            "DataflowRunner",
            "no worker has reported anything for 1 minute. See the job's page: its machines may still start",
        ),
    ],
)
def test_messages_of_a_runner_without_worker_pools_name_its_page(monkeypatch, capfd, engine, name, said):
    monkeypatch.setattr(workers, "MINUTE", 0.01)
    heard, is_accepted = threading.Event(), threading.Event()
    monkeypatch.setattr(workers, "print_message", lambda *words: (print(*words), heard.set()))
    engine = Engine(object(), name, "", engine.log)
    options = pipeline_options(1, ["--runner=FnApiRunner"])
    with watch_remote_workers(options, engine, "preprocess", lambda: not is_accepted.wait(60)) as accepted:
        accepted(types.SimpleNamespace())
        is_accepted.set()
        assert heard.wait(60)
    assert said in capfd.readouterr().out.splitlines()[0]


def test_an_engine_that_does_not_accept_the_job_is_named(monkeypatch, capfd, engine):
    monkeypatch.setattr(workers, "MINUTE", 0.01)
    said = threading.Event()
    monkeypatch.setattr(workers, "print_message", lambda *words: (print(*words), said.set()))
    with watch_remote_workers(pipeline_options(1, [*POOL, CONFIG]), engine, "preprocess"):
        assert said.wait(60)
    line = f"preprocess PortableRunner has not accepted the job for 1 minute. See {engine.log}"
    assert capfd.readouterr().out.splitlines()[0] == line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("bundle failed: Traceback\n  x\nModuleNotFoundError: No module named 'pipeline'\n"),
            "a worker could not load the job: ModuleNotFoundError: No module named 'pipeline'. See the log of the worker "
            "pool at pool:2. ",
        ),
        (
            RuntimeError("Pipeline job-1 failed in state FAILED: no control connection after 1m0s"),
            "PortableRunner ended the job: Pipeline job-1 failed in state FAILED: no control connection after 1m0s. ",
        ),
        (
            RuntimeError("Traceback\n  x\nRuntimeError: Channel closed prematurely."),
            "PortableRunner has lost a worker, which was killed or ran out of memory, and has ended the job. Finished work ",
        ),
        (
            RuntimeError("Pipeline job-1 failed in state FAILED: bundle failed:SDK worker disconnected: worker[1]"),
            "PortableRunner has lost a worker, which was killed or ran out of memory, and has ended the job. Finished work ",
        ),
        (
            grpc.FutureTimeoutError(),
            "the job server of PortableRunner has ended, or cannot be reached any more: no answer; ",
        ),
    ],
    ids=["no package", "no worker", "lost worker", "lost worker of Prism", "no server"],
)
@pytest.mark.parametrize("config", [CONFIG, "--environment_options=external_service_address=pool:2"])
def test_errors_of_a_runner_name_what_to_look_at(error, said, config, engine):
    found = remote_error(error, pipeline_options(1, [*POOL, config]), engine)
    assert isinstance(found, OSError) and str(found).startswith(said)


def test_the_last_words_of_a_job_server_are_quoted(engine):
    with open(engine.log, "w") as log:
        log.write("started\npanic: unable to start sdk worker pool:2: connection refused\n\ngoroutine 1\n")
    found = str(remote_error(grpc.RpcError(), pipeline_options(1, [*POOL, CONFIG]), engine))
    assert "cannot be reached any more: unable to start sdk worker pool:2: connection refused. See the log of" in found
    assert "`bertloom worker-pool` must run there" in found
    said = str(submission_error(grpc.RpcError(), engine))  # it ended while it took the job
    assert "did not accept the job: unable to start sdk worker pool:2: connection refused; " in said


@pytest.mark.parametrize(
    "error", [RuntimeError("Traceback\nAssertionError: a bug"), AssertionError("a bug"), ValueError("--input")]
)
def test_errors_of_our_own_stay_what_they_are(error, engine):
    assert remote_error(error, pipeline_options(1, POOL), engine) is error


def test_a_job_that_is_not_accepted_is_no_fault_of_the_texts(engine):
    error = ValueError("Pipeline has validations errors: \nMissing required option: region.\nInvalid Project ID (x).")
    found = submission_error(error, engine)
    assert type(found) is ConnectionError
    said = "PortableRunner did not accept the job: Missing required option: region. Invalid Project ID (x).; what it"
    assert str(found).startswith(said)
    bug = TypeError("cannot pickle a lock")
    assert submission_error(bug, engine) is bug

"""What a job on another Beam runner prints while no worker reports, and when the runner or a worker fails."""

import sys
import threading
import types

import grpc
import pytest

from pipeline.execution import pipeline_options
from pipeline.remote import workers as remote_workers
from pipeline.remote.workers import remote_error, watch_remote_workers

POOL = ["--runner=PortableRunner", "--job_endpoint=jobs:1", "--environment_type=EXTERNAL"]
CONFIG = "--environment_config=pool:2"


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


def test_messages_name_the_worker_pool_until_a_worker_has_reported(monkeypatch, capsys):
    monkeypatch.setattr(remote_workers, "MINUTE", 0.01)
    result = Result(silent=2)
    with watch_remote_workers(pipeline_options(1, [*POOL, CONFIG]), "preprocess") as accepted:
        accepted(result)
        assert result.reported.wait(60)
    first, second = capsys.readouterr().err.splitlines()
    python = f"Python {sys.version_info[0]}.{sys.version_info[1]} with bertloom "
    assert first.startswith("bertloom preprocess: no worker has reported anything for 1 minute. See the log of ")
    assert f"the worker pool at pool:2, where the first `python` on PATH must be {python}" in first
    assert "and apache-beam " in first and "for 3 minutes" in second


def test_a_job_server_that_does_not_answer_is_named(monkeypatch, capfd):
    monkeypatch.setattr(remote_workers, "MINUTE", 0.01)
    said = threading.Event()
    monkeypatch.setattr(remote_workers, "print", lambda text, **_: (print(text), said.set()), raising=False)
    with watch_remote_workers(pipeline_options(1, [*POOL, CONFIG]), "preprocess"):
        assert said.wait(60)
    line = "bertloom preprocess: waiting for the job server at jobs:1 for 1 minute. Check that it runs there"
    assert capfd.readouterr().out.splitlines()[0] == line


def test_a_runner_that_is_not_portable_is_not_watched():
    with watch_remote_workers(pipeline_options(1, ["--runner=BundleBasedDirectRunner"]), "preprocess"):
        assert "watch of remote workers" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("bundle failed: Traceback\n  x\nModuleNotFoundError: No module named 'pipeline'\n"),
            "a worker could not load the job: ModuleNotFoundError: No module named 'pipeline'. See the log of the worker "
            "pool at pool:2, where ",
        ),
        (
            RuntimeError("Pipeline job-1 failed in state FAILED: no control connection after 1m0s"),
            "the runner ended the job: Pipeline job-1 failed in state FAILED: no control connection after 1m0s. See the log",
        ),
        (grpc.FutureTimeoutError(), "no connection to the job server at jobs:1: no answer. See its log"),
    ],
    ids=["no package", "no worker", "no server"],
)
@pytest.mark.parametrize("config", [CONFIG, "--environment_options=external_service_address=pool:2"])
def test_errors_of_a_runner_name_what_to_look_at(error, said, config):
    found = remote_error(error, pipeline_options(1, [*POOL, config]))
    assert isinstance(found, OSError) and str(found).startswith(said)


@pytest.mark.parametrize(
    "error", [RuntimeError("Traceback\nAssertionError: a bug"), AssertionError("a bug"), ValueError("--input")]
)
def test_errors_of_our_own_stay_what_they_are(error):
    assert remote_error(error, pipeline_options(1, POOL)) is error

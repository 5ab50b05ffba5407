"""Ctrl-C while an engine runs the job: the launcher asks it to cancel, over real gRPC. The engine here never ends a job."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.local_job_service import BeamJob, LocalJobServicer

from tests.jobs.restartable_job import ROOT, TIMEOUT_SECONDS, environment_of


class EndlessJob(BeamJob):
    """A job that runs until it is cancelled."""

    running = threading.Event()
    cancelled = threading.Event()
    hangs = False

    def run(self):
        self.set_state(beam_job_api_pb2.JobState.RUNNING)
        self.running.set()

    def cancel(self):
        self.cancelled.set()
        if not self.hangs:
            super().cancel()


@contextmanager
def job_server(hangs: bool):
    """A job server. Yields its address and the class of its jobs, which records what happened."""
    kind = type("Job", (EndlessJob,), {"running": threading.Event(), "cancelled": threading.Event(), "hangs": hangs})
    server = LocalJobServicer(beam_job_type=kind)
    yield f"localhost:{server.start_grpc_server()}", kind
    server.stop()


def start(job, out, address: str) -> "subprocess.Popen[str]":
    entry = [sys.executable, str(ROOT / "bertloom_entry.py"), "jobs.cli"]
    flags = ["--", "--runner=PortableRunner", f"--job_endpoint={address}", "--environment_type=LOOPBACK"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*entry, *job.argv(out), *flags], env=environment_of(), text=True, **streams)


@pytest.fixture(autouse=True)
def heeded():
    """SIGINT is ignored in a shell's background jobs, and so in what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_launcher_cancels_the_job_and_says_how_to_go_on(job, tmp_path, number):
    with job_server(hangs=False) as (address, running), start(job, tmp_path / "out", address) as launcher:
        assert running.running.wait(TIMEOUT_SECONDS)
        time.sleep(0.5)  # until the launcher has the answer
        launcher.send_signal(number)
        said = launcher.communicate(timeout=TIMEOUT_SECONDS)[1]
    assert running.cancelled.is_set() and launcher.returncode == 128 + number
    assert [line.removeprefix("bertloom preprocess: ") for line in said.splitlines()[-3:]] == [
        "asking PortableRunner to cancel the job; to end at once, interrupt again",
        "the job is cancelled. Finished work is kept: start the same command again to continue",
        "interrupted" if number == signal.SIGINT else "terminated",
    ]
    assert not os.path.exists(tmp_path / "out/.lock") and "Traceback" not in said


def test_a_second_interruption_ends_the_launcher_at_once(job, tmp_path):
    with job_server(hangs=True) as (address, running), start(job, tmp_path / "out", address) as launcher:
        assert running.running.wait(TIMEOUT_SECONDS)
        time.sleep(0.5)
        launcher.send_signal(signal.SIGINT)
        assert running.cancelled.wait(TIMEOUT_SECONDS)
        assert launcher.poll() is None
        launcher.send_signal(signal.SIGINT)
        said = launcher.communicate(timeout=TIMEOUT_SECONDS)[1]
    assert launcher.returncode == 130 and said.splitlines()[-1] == "bertloom preprocess: interrupted"
    assert "Traceback" not in said

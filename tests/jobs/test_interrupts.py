"""Ctrl-C in a preprocessing job with worker processes."""

import signal
import subprocess
import sys

import pytest

from pipeline.local import worker as local_worker
from tests.jobs.restartable_job import ROOT, TIMEOUT_SECONDS, wait_for, workers


@pytest.fixture
def heeded():
    """SIGINT is ignored in a shell's background jobs, and so in what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "sent", "word"),
    [
        (0, signal.SIGINT, "interrupted"),
        (1, signal.SIGINT, "interrupted"),
        (2, signal.SIGINT, "interrupted"),
        (2, signal.SIGTERM, "terminated"),
    ],
)
def test_an_interrupted_job_ends_with_a_status_and_a_message_and_ends_its_workers(
    job, heeded, tmp_path, number, sent, word
):
    process = job.start(tmp_path / "out", "--num-workers", "2", MARK=str(tmp_path))
    wait_for(lambda: len(workers(str(tmp_path))) > number)  # and their server
    process.send_signal(sent)
    _, said = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 128 + sent and said.splitlines()[-1] == f"bertloom preprocess: {word}"
    assert "Traceback" not in said
    wait_for(lambda: not workers(str(tmp_path)))


INTERRUPTED = """
import os, signal, subprocess, sys, threading
from jobs.cli import main
from pipeline.local import worker as local_worker
work = local_worker.work
def interrupted(environment, started):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    work(environment, started)
local_worker.work = interrupted
"""


def run(code: str, words: list[str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", INTERRUPTED + code, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * TIMEOUT_SECONDS)


def test_the_same_process_can_continue_an_interrupted_job_and_keeps_its_other_children(job, heeded, tmp_path):
    code = """
other = subprocess.Popen(["sleep", "600"])
assert main(sys.argv[1:]) == 130
local_worker.work = work
assert main(sys.argv[1:]) == 0
assert other.poll() is None
other.kill()
other.wait()
"""
    ran = run(code, job.argv(tmp_path / "out", "--num-workers", "2"))
    assert ran.returncode == 0, ran.stderr
    assert "bertloom preprocess: interrupted" in ran.stderr and "continuing with an unfinished run" in ran.stderr


def test_a_background_job_that_ignores_ctrl_c_continues(job, tmp_path):
    code = "signal.signal(signal.SIGINT, signal.SIG_IGN); sys.exit(main(sys.argv[1:]))"
    ran = run(code, job.argv(tmp_path / "out", "--num-workers", "2"))
    assert ran.returncode == 0, ran.stderr


def test_a_worker_requested_after_the_server_has_ended_starts_no_other_server(monkeypatch, tmp_path):
    monkeypatch.setenv("MARK", str(tmp_path))  # a thread of an interrupted job may come that late
    local_worker.end()  # an earlier test's
    local_worker.start()
    assert len(workers(str(tmp_path))) == 1
    local_worker.end()
    with pytest.raises(RuntimeError, match="the server of the workers has ended"):
        local_worker.work({}, lambda: None)
    assert not workers(str(tmp_path))

"""Worker processes that are killed, or that outlive their job."""

import subprocess
import sys

import pytest

from bertloom.processes import PROCESS_LOST
from jobs import cli
from tests.jobs.restartable_job import (
    ROOT,
    TIMEOUT_SECONDS,
    armed_workers,
    assert_whole,
    wait_for,
    workers,
)


def test_a_job_gives_the_same_bytes_while_orphaned_workers_still_write(job, unbroken, tmp_path):
    out = tmp_path / "out"
    slow = armed_workers(tmp_path, "slowly \\.part$ 1")
    process = job.start(out, "--num-workers", "2", **slow)
    wait_for(lambda: list(out.glob(".work/parts/*.part")))
    process.kill()
    process.communicate()
    assert cli.main(job.argv(out)) == 0
    wait_for(lambda: not workers(slow["MARK"]))
    assert_whole(out, unbroken)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("start local_worker 1", marks=pytest.mark.slow),
        "before \\.part$ 1",
        pytest.param("within \\.tar$ 2", marks=pytest.mark.slow),
        "after weave/.*\\.json$ 1",
        pytest.param("within manifest.json 1", marks=pytest.mark.slow),
    ],
)
def test_a_killed_worker_ends_the_job_with_status_70_and_an_error_and_the_next_start_finishes(
    job, unbroken, tmp_path, point
):
    environment = armed_workers(tmp_path, point)
    process = job.start(tmp_path / "out", "--num-workers", "2", **environment)
    wait_for(lambda: (tmp_path / "killed").exists() or process.poll() is not None)
    _, said = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == PROCESS_LOST
    assert "bertloom preprocess: error: a worker process died" in said.splitlines()[-1]
    assert "Start the same command again to continue" in said and "Traceback" not in said
    wait_for(lambda: not workers(environment["MARK"]))
    process = job.start(tmp_path / "out", "--num-workers", "2", **environment)
    _, said = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0 and "continuing with an unfinished run" in said
    assert_whole(tmp_path / "out", unbroken)


@pytest.mark.parametrize(
    "who", ["the server of the workers, while it imports", "the first worker, before its first work"]
)
def test_a_worker_process_that_is_killed_at_the_start_ends_the_job_with_status_70_and_all_workers(job, tmp_path, who):
    mark, at = str(tmp_path), int("worker," in who)  # the server is the eldest
    process = job.start(tmp_path / "out", "--num-workers", "2", MARK=mark)
    wait_for(lambda: len(workers(mark)) > at)
    workers(mark)[at].kill()
    _, said = process.communicate(timeout=TIMEOUT_SECONDS)  # an orphan would hold the pipes
    assert process.returncode == PROCESS_LOST and "a worker process died" in said and "Traceback" not in said
    wait_for(lambda: not workers(mark))


@pytest.mark.parametrize("started", [0, 1, 2])
def test_a_job_that_is_killed_while_its_workers_start_leaves_no_worker_running(job, tmp_path, started):
    process = job.start(tmp_path / "out", "--num-workers", "2", MARK=str(tmp_path))
    wait_for(lambda: len(workers(str(tmp_path))) > started)  # one of them their server
    process.kill()
    process.communicate()
    wait_for(lambda: not workers(str(tmp_path)))


PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")


def test_workers_connect_to_their_job_without_the_proxies_of_the_environment(job, unbroken, tmp_path):
    process = job.start(tmp_path / "out", "--num-workers", "2", **PROXIES)  # nothing listens there
    _, said = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0, said
    assert_whole(tmp_path / "out", unbroken)


SILENT = """
import sys, time
from jobs.cli import main
from pipeline.local import runner, worker
runner.SECONDS_TO_REPORT = 1
def work(environment, started):
    started()
    time.sleep(600)
worker.work = work
sys.exit(main(sys.argv[1:]))
"""


def test_a_worker_that_does_not_connect_ends_the_job_with_the_reason(job, tmp_path):
    command = [sys.executable, "-c", SILENT, *job.argv(tmp_path / "out", "--num-workers", "2")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert ran.returncode == PROCESS_LOST
    assert (
        "error: a worker process did not connect within 1 seconds: check that no firewall"
        in ran.stderr.splitlines()[-1]
    )

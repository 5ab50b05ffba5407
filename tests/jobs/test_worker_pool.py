"""`bertloom worker-pool`: it starts workers with its own Python, and they end with it."""

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import psutil
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc, endpoints_pb2

from jobs.cli import main
from jobs.verify import verify
from pipeline.remote.worker_pool import worker_pool
from tests.jobs.corpus import digests
from tests.jobs.restartable_job import ROOT, TIMEOUT_SECONDS, environment_of, wait_for


class Engine(beam_fn_api_pb2_grpc.BeamFnControlServicer):
    """An engine that gives its workers nothing to do."""

    def __init__(self):
        self.connected = []

    def Control(self, requests, context):
        self.connected.append(dict(context.invocation_metadata())["worker_id"])
        for _ in requests:
            yield


@contextmanager
def engine():
    """Yields an engine and its address."""
    server, found = grpc.server(ThreadPoolExecutor(8)), Engine()
    beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(found, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield found, f"localhost:{port}"
    server.stop(None)


@contextmanager
def requests_to(pool: str):
    with grpc.insecure_channel(pool) as channel:
        yield beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)


def start_worker(name: str, address: str):
    endpoint = endpoints_pb2.ApiServiceDescriptor(url=address)
    return beam_fn_api_pb2.StartWorkerRequest(worker_id=name, control_endpoint=endpoint)


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if "pipeline.remote.worker" in child.cmdline()]


def test_a_worker_ends_when_the_engine_or_the_pool_ends_it():
    said = []
    with engine() as (found, address):
        with worker_pool("localhost", 0, said.append) as pool, requests_to(pool) as stub:
            for name in ("one", "two"):
                assert not stub.StartWorker(start_worker(name, address)).error
            first, second = workers_of(psutil.Process())
            assert first.exe() == second.exe() == psutil.Process().exe()
            wait_for(lambda: sorted(found.connected) == ["one", "two"])
            stub.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="one"))
            wait_for(lambda: "worker one ended" in said)
            assert not first.is_running() and second.is_running()
        assert not second.is_running()
        assert said[:2] == [f"worker one started, for {address}", f"worker two started, for {address}"]


def test_a_worker_that_dies_is_said_and_can_be_started_again():
    said = []
    with engine() as (found, address), worker_pool("localhost", 0, said.append) as pool, requests_to(pool) as stub:
        stub.StartWorker(start_worker("one", address))
        wait_for(lambda: found.connected)
        workers_of(psutil.Process())[0].kill()
        wait_for(lambda: "worker one ended with status -9" in said)
        stub.StartWorker(start_worker("one", address))
        wait_for(lambda: found.connected == ["one", "one"])


@contextmanager
def started_pool(folder, **environment: str):
    """Yields the process of the command, and its address."""
    command = [sys.executable, str(ROOT / "bertloom_entry.py"), "jobs.cli", "worker-pool", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment_of(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("worker pool at localhost:")
            yield process, line.removeprefix("worker pool at ").partition(": ")[0]
        finally:
            process.terminate()


@pytest.fixture
def heeded():
    """SIGINT is ignored in a shell's background jobs, and so in what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_pool(heeded, tmp_path, number):
    with started_pool(tmp_path) as (process, pool), engine() as (found, address), requests_to(pool) as stub:
        stub.StartWorker(start_worker("one", address))
        wait_for(lambda: found.connected)
        (worker,) = workers_of(psutil.Process(process.pid))
        process.send_signal(number)
        assert process.wait(TIMEOUT_SECONDS) == (-number if number == signal.SIGKILL else 128 + number)
        wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.slow
def test_a_job_runs_in_a_pool_whose_path_has_another_python(job, unbroken, tmp_path):
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    flags = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=EXTERNAL"]
    with started_pool(tmp_path, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}") as (_, pool):
        assert main([*job.argv(tmp_path / "out"), "--", *flags, f"--environment_config={pool}"]) == 0
    assert digests(tmp_path / "out") == unbroken and verify(str(tmp_path / "out"))[0] == []


def test_a_worker_that_does_not_see_the_input_ends_the_job_in_one_line(job, tmp_path, monkeypatch, capsys):
    """The input is a relative path, and the pool runs in another folder."""
    monkeypatch.chdir(job.folder)
    words = [
        word.replace(f"{job.folder}/in", "in") for word in job.argv(tmp_path / "out", "--work-dir", f"{tmp_path}/work")
    ]
    flags = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=EXTERNAL"]
    with started_pool(tmp_path) as (_, pool):
        assert main([*words, "--", *flags, f"--environment_config={pool}"]) == 2
    said = capsys.readouterr().err
    assert "bertloom preprocess: error: the worker on " in said.splitlines()[-1] and "Traceback" not in said
    assert " does not see in/" in said and "has no shards yet" not in said
    assert sorted(os.listdir(tmp_path / "work")) == [".lock", "parts"]


def test_a_port_in_use_is_named(capsys):
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        assert main(["worker-pool", "--port", str(port)]) == 2
    said = (
        f"error: --host localhost --port {port}: cannot listen there (Address already in use). Choose another --port\n"
    )
    assert capsys.readouterr().err.endswith(said)
    assert main(["worker-pool", "--port", "70000"]) == 2
    assert "--port 70000: expected 0 to 65535" in capsys.readouterr().err


def test_a_host_without_an_address_is_named(capsys):
    assert main(["worker-pool", "--host", "no.invalid"]) == 2
    said = (
        "error: --host no.invalid --port 50000: cannot listen there (Name or service not known). Choose another --port"
    )
    assert said in capsys.readouterr().err

"""The engines that run a job: each starts its processes on this machine, and ends them.

`ENGINES` has a context manager for each. It yields an `Engine`, or skips the test with a reason that names what is missing.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.jobs.restartable_job import ROOT

SDK_WORKER = "sdk_worker"  # in the command line of a process that a worker pool started
POOL = "apache_beam.runners.worker.worker_pool_main"
JOB_SERVICE = "apache_beam.runners.portability.local_job_service_main"
JAVA_MODULES = [
    f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in ("java.lang", "java.nio", "java.util", "sun.nio.ch")
]
"""Spark and Flink need these with Java 17."""


Victims = dict[str, Callable[[psutil.Process], list[psutil.Process]]]
"""What can be killed -> a function from the job's launcher to the processes to kill."""


@dataclass(frozen=True)
class Engine:
    """An engine that waits for jobs."""

    name: str
    workers: str
    """How many workers, and where."""
    flags: tuple[str, ...]
    """Beam's flags of a job."""
    retries: bool
    """Whether a job outlives its workers."""
    victims: Victims


def environment() -> dict[str, str]:
    """Return the environment of every process: this Python first on PATH, and of the object store only its keys."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    path = os.pathsep.join([os.path.dirname(sys.executable), kept.get("PATH", os.defpath)])
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    return {**kept, **keys, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


class Servers(ExitStack):
    """Processes that end with all their children at the end of the block. Their output goes to files in a folder."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def start(self, name: str, *command: str, **more: str) -> psutil.Process:
        """Start a process. more: environment variables."""
        with (self.folder / f"{name}.log").open("w") as log:
            started = subprocess.Popen(command, cwd=self.folder, env=environment() | more, stdout=log, stderr=log)
        self.callback(started.wait)
        process = psutil.Process(started.pid)
        self.callback(kill, process)
        return process

    def module(self, name: str, module: str, *arguments: str) -> psutil.Process:
        """Start a Python module as a process."""
        return self.start(name, sys.executable, "-m", module, *arguments)

    def wait_for(self, what: Callable[[], object], *processes: psutil.Process) -> None:
        """Wait until something is so. RuntimeError, with all output, if one of the processes ends before."""
        while not what():
            if not all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
                said = "\n".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))
                raise RuntimeError(f"a process ended:\n{said}")
            time.sleep(0.02)

    def pool(self) -> tuple[int, psutil.Process]:
        """Start a worker pool. Return its port and process."""
        port = free_port()
        pool = self.module("pool", POOL, f"--service_port={port}")
        self.wait_for(lambda: answers(port), pool)
        return port, pool


def kill(process: psutil.Process) -> None:
    """Kill a process and its children."""
    with suppress(psutil.NoSuchProcess):
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return int(server.getsockname()[1])


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
        return True
    return False


def below(process: psutil.Process, word: str) -> list[psutil.Process]:
    """Return the processes below this one with a word in their command lines."""
    found = []
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if word in " ".join(child.cmdline()):
                found.append(child)
    return found


def external(job_port: int, pool_port: int, *more: str) -> tuple[str, ...]:
    """Return the flags of a job on a job server, with workers of a pool."""
    workers = ("--environment_type=EXTERNAL", f"--environment_config=localhost:{pool_port}")
    return ("--runner=PortableRunner", f"--job_endpoint=localhost:{job_port}", *workers, *more)


def given(variable: str, what: str) -> str:
    """Return the path that an environment variable names. Skip the test if it names none."""
    path = os.environ.get(variable, "")
    if not os.path.exists(path):
        pytest.skip(f"${variable} does not name {what}" + (f": {path} does not exist" if path else ""))
    return path


def prism_binary() -> str:
    shared = str(ROOT.parent / "shared/engines/prism")
    found = os.environ.get("PRISM") or shutil.which("prism") or (shared if os.path.exists(shared) else None)
    if not found:
        pytest.skip(f"Beam's Prism is not here: $PRISM is not set, `prism` is not on PATH, and {shared} does not exist")
    return found


@contextmanager
def portable_runner(folder: Path) -> Iterator[Engine]:
    with Servers(folder) as servers:
        port, pool = servers.pool()
        job_port = free_port()
        service = servers.module("job-service", JOB_SERVICE, f"--port={job_port}")
        servers.wait_for(lambda: answers(job_port), service)
        victims = {"the SDK worker": lambda _: below(pool, SDK_WORKER)}
        yield Engine("portable runner", "1 in a pool", external(job_port, port), False, victims)


@contextmanager
def prism(folder: Path) -> Iterator[tuple[Servers, int]]:
    binary = prism_binary()
    with Servers(folder) as servers:
        port = free_port()
        process = servers.start("prism", binary, f"--job_port={port}", "--serve_http=false")
        servers.wait_for(lambda: answers(port), process)
        yield servers, port


@contextmanager
def prism_loopback(folder: Path) -> Iterator[Engine]:
    with prism(folder) as (_, port):
        flags = ("--runner=PortableRunner", f"--job_endpoint=localhost:{port}", "--environment_type=LOOPBACK")
        yield Engine("Prism", "1 in the launcher", flags, False, {"the launcher": lambda launcher: [launcher]})


@contextmanager
def prism_external(folder: Path) -> Iterator[Engine]:
    with prism(folder) as (servers, job_port):
        port, pool = servers.pool()
        victims = {"the SDK worker": lambda _: below(pool, SDK_WORKER)}
        yield Engine("Prism", "1 in a pool", external(job_port, port), False, victims)


@contextmanager
def dask(folder: Path) -> Iterator[Engine]:
    pytest.importorskip("distributed", reason="Dask is not installed: pip install -e '.[dask]'")
    with Servers(folder) as servers:
        address = f"tcp://localhost:{(port := free_port())}"
        scheduler = servers.module("scheduler", "dask", "scheduler", f"--port={port}", "--no-dashboard", "--no-show")
        servers.wait_for(lambda: answers(port), scheduler)
        flags = ("--nthreads=1", "--no-dashboard", f"--local-directory={folder}")
        workers = [servers.module(f"worker{i}", "dask", "worker", address, *flags) for i in range(2)]
        servers.wait_for(lambda: all(below(worker, "spawn_main") for worker in workers), *workers)
        victims = {"a worker": lambda _: below(workers[0], "spawn_main")}
        yield Engine("Dask", "2", ("--runner=DaskRunner", f"--dask_client_address={address}"), True, victims)


@contextmanager
def with_job_server(
    servers: Servers, name: str, jar: str, master: str, victims: Victims, *flags: str
) -> Iterator[Engine]:
    """Beam's job server in front of a cluster with two workers, and a worker pool."""
    job_port, artifact_port = free_port(), free_port()
    ports = (f"--job-port={job_port}", f"--artifact-port={artifact_port}", "--expansion-port=0")
    command = ("java", *JAVA_MODULES, "-jar", jar, master, *ports, f"--artifacts-dir={servers.folder}")
    server = servers.start("job-server", *command)
    servers.wait_for(lambda: answers(job_port), server)
    port, pool = servers.pool()
    victims = victims | {"all SDK workers": lambda _: below(pool, SDK_WORKER)}
    yield Engine(name, "2, and a pool", external(job_port, port, *flags), True, victims)


@contextmanager
def flink(folder: Path) -> Iterator[Engine]:
    jar = given("FLINK_JOB_SERVER_JAR", "Beam's job server for Flink (beam-runners-flink-1.19-job-server)")
    home = given("FLINK_HOME", "a distribution of Flink, for a cluster of two task managers")
    with Servers(folder) as servers:
        ports = {"jobmanager.rpc.port": free_port(), "rest.port": (rest := free_port())}
        places = ["-Djobmanager.rpc.address=localhost", *(f"-D{name}={port}" for name, port in ports.items())]
        retry = ["-Drestart-strategy.type=fixed-delay", "-Drestart-strategy.fixed-delay.attempts=10"]
        manager = servers.start("job-manager", f"{home}/bin/jobmanager.sh", "start-foreground", *places, *retry)
        servers.wait_for(lambda: answers(rest), manager)
        command = (f"{home}/bin/taskmanager.sh", "start-foreground", *places, "-Dtaskmanager.numberOfTaskSlots=2")
        workers = [servers.start(f"task-manager{i}", *command) for i in range(2)]
        victims: Victims = {"a task manager": lambda _: workers[:1]}
        with with_job_server(
            servers, "Flink", jar, f"--flink-master=localhost:{rest}", victims, "--parallelism=2"
        ) as engine:
            yield engine


@contextmanager
def spark(folder: Path) -> Iterator[Engine]:
    jar = given("SPARK_JOB_SERVER_JAR", "Beam's job server for Spark (beam-runners-spark-3-job-server)")
    home = given("SPARK_HOME", "a distribution of Spark, for a cluster of two workers")
    with Servers(folder) as servers:
        address = f"spark://localhost:{(port := free_port())}"
        command, deploy = f"{home}/bin/spark-class", "org.apache.spark.deploy"
        place = f"--host localhost --port {port} --webui-port 0".split()
        master = servers.start("master", command, f"{deploy}.master.Master", *place)
        servers.wait_for(lambda: answers(port), master)
        size = "--cores 1 --memory 2g --webui-port 0".split()
        workers = [
            servers.start(f"spark-worker{i}", command, f"{deploy}.worker.Worker", *size, address) for i in (0, 1)
        ]

        executor = "CoarseGrainedExecutorBackend"
        victims: Victims = {"an executor": lambda _: [one for each in workers for one in below(each, executor)][:1]}
        with with_job_server(servers, "Spark", jar, f"--spark-master-url={address}", victims) as engine:
            yield engine


ENGINES = {
    "portable": portable_runner,
    "prism-loopback": prism_loopback,
    "prism": prism_external,
    "dask": dask,
    "flink": flink,
    "spark": spark,
}

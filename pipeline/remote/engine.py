"""The engine of a job that runs on another runner: reach or start it before the job, and end it if it was started.

Every fault until then is an error in one line that names the flag. What Beam, its job server and the libraries print goes to
a log, which stays only if the job fails.
"""

import asyncio
import logging
import os
import re
import socket
import tempfile
import threading
import traceback
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    SparkRunnerOptions,
    StandardOptions,
)
from apache_beam.runners.portability.flink_runner import MAGIC_HOST_NAMES, FlinkRunner
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.runner import PipelineRunner

from bertloom.counts import counted
from bertloom.json_files import parse_json, read_json
from pipeline.local.runner import quiet_workers
from pipeline.remote.flags import check_flags, make_runner
from pipeline.remote.job_server import EMBEDDED, job_server
from pipeline.remote.messages import reason_of

CONNECT_SECONDS = 10
"""How long a launcher waits for the answer of a scheduler or of an engine's master."""

_ENVIRONMENTS = {
    "LOOPBACK": "",
    "EXTERNAL": "external_service_address",
    "PROCESS": "process_command",
    "DOCKER": "docker_container_image",
}
"""Beam's environment types, and the names of what they need in --environment_options."""


@dataclass(frozen=True)
class Engine:
    """Where a job runs."""

    runner: PipelineRunner
    name: str
    """Of the runner."""
    found: str
    """What the launcher found, for a message."""
    log: str
    """Path of the log."""


@contextmanager
def open_engine(options: PipelineOptions, flags: Sequence[str]) -> Iterator[Engine]:
    """Reach the engine that the options name, or start it for the length of a block. flags: Beam's, as the user gave them.

    Raises:
        ConnectionError: an engine or its job server does not start or does not answer.
        ValueError: a flag does not fit the runner.
    """
    runner = make_runner(options)
    name = type(runner).__name__
    handle, log = tempfile.mkstemp(prefix="bertloom-", suffix=".log")
    os.close(handle)
    try:
        with _messages_in(log):
            if isinstance(runner, PortableRunner):
                workers = _check_environment(runner, options)
                master = check_master(options)
                with job_server(runner, options, log) as (address, known_flags):
                    check_flags(flags, known_flags or ())
                    server = f", job server {'this process' if address == EMBEDDED else address}" * bool(address)
                    yield Engine(runner, name, f"{name}{master}{server}, {workers}", log)
            else:
                found = _check_scheduler(options) if name == "DaskRunner" else ""
                yield Engine(runner, name, f"{name}{found}", log)
    except BaseException:
        if not os.path.getsize(log):
            os.remove(log)
        raise
    os.remove(log)


@contextmanager
def _messages_in(log: str) -> Iterator[None]:
    """Send to a file what Beam, its threads and other libraries print. Messages of ours reach the terminal."""
    root, before = logging.getLogger(), threading.excepthook
    level = root.level

    def write(arguments: threading.ExceptHookArgs) -> None:
        kind = arguments.exc_type, arguments.exc_value, arguments.exc_traceback
        with open(log, "a", encoding="utf-8") as lines:
            print(f"in thread {arguments.thread.name if arguments.thread else ''}:", file=lines)
            traceback.print_exception(*kind, file=lines)

    with open(log, "a", encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        threading.excepthook = write
        try:
            with quiet_workers(log):
                yield
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
            threading.excepthook = before


def _check_environment(runner: PortableRunner, options: PipelineOptions) -> str:
    """Return where the workers of a portable runner run. ValueError if a flag is missing."""
    portable = options.view_as(PortableOptions)
    if not portable.environment_type:
        runner.default_environment(options)  # sets the type if the runner has a default of its own
    kind, config = portable.environment_type or "DOCKER", portable.environment_config or ""
    if kind not in _ENVIRONMENTS:
        raise ValueError(f"--environment_type={kind}: expected one of {', '.join(_ENVIRONMENTS)}")
    given = config or portable.lookup_environment_option(_ENVIRONMENTS[kind]) or ""
    setup = options.view_as(SetupOptions)
    if kind == "EXTERNAL" and not given:
        raise ValueError(
            "--environment_type=EXTERNAL needs --environment_config=HOST:PORT, the address of a worker pool"
        )
    if kind == "EXTERNAL" and not given.startswith("{") and not re.search(r":\d+$", given):
        raise ValueError(
            f"--environment_config={given}: expected HOST:PORT, the address of a worker pool, such as localhost:50000"
        )
    if kind == "PROCESS" and not given:
        raise ValueError(
            '--environment_type=PROCESS needs --environment_config={"command": PATH}, Beam\'s boot program'
        )
    if kind == "DOCKER" and not (given or setup.extra_packages or setup.setup_file or setup.requirements_file):
        raise ValueError(
            "the workers would run in Beam's own Docker image, which lacks bertloom: give --environment_type=EXTERNAL and "
            "--environment_config=HOST:PORT for a worker pool, or --environment_type=DOCKER and --environment_config=IMAGE"
        )
    return f"workers: {kind} {given}".strip() if kind != "LOOPBACK" else "workers: LOOPBACK, in this process"


def check_master(options: PipelineOptions) -> str:
    """Return what answers at the address of an engine's master. ConnectionError if nothing does."""
    flink, spark = options.view_as(FlinkRunnerOptions), options.view_as(SparkRunnerOptions)
    name = options.view_as(StandardOptions).runner.lower()
    if options.view_as(PortableOptions).job_endpoint:
        return ""  # its job server has the address
    if "flink" in name and flink.flink_master not in MAGIC_HOST_NAMES:
        return _flink(flink)
    if "spark" in name and (found := re.fullmatch(r"spark://([^,]+):(\d+)", spark.spark_master_url)):
        try:
            socket.create_connection((found[1], int(found[2])), CONNECT_SECONDS).close()
        except OSError as error:
            raise ConnectionError(
                f"--spark_master_url={spark.spark_master_url}: no Spark master answers there ({reason_of(error)}). Start "
                f"it, or give the address that its page shows, such as spark://HOST:7077"
            ) from error
    return f" at {spark.spark_master_url}" if "spark" in name else ""


def _flink(options: FlinkRunnerOptions) -> str:
    url = FlinkRunner.add_http_scheme(options.flink_master).rstrip("/")
    try:
        with urllib.request.urlopen(f"{url}/overview", timeout=CONNECT_SECONDS) as answer:
            found = parse_json(answer.read(1 << 20), url)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"--flink_master={options.flink_master}: no Flink answers there ({reason_of(error)}). Start it, or give the "
            f"HOST:PORT of its web page, such as localhost:8081"
        ) from error
    version = str(found.get("flink-version", "of unknown version"))
    wanted = version.rpartition(".")[0]
    if not options.flink_job_server_jar and version[:1].isdigit() and options.flink_version != wanted:
        raise ValueError(
            f"--flink_version={options.flink_version} differs from Flink {version} at {options.flink_master}: give "
            f"--flink_version={wanted}"
        )
    managers, slots = int(found.get("taskmanagers", 0)), found.get("slots-total", 0)
    return f" at {url} (Flink {version}, {counted(managers, 'task manager')}, {counted(int(slots), 'slot')})"


def _check_scheduler(options: PipelineOptions) -> str:
    """Return what the Dask scheduler has. ConnectionError if there is none."""
    from apache_beam.runners.dask.dask_runner import DaskOptions  # not at the top: needs dask
    from distributed import Client, Security
    from distributed.comm.core import connect

    given = options.view_as(DaskOptions)
    address = given.address or given.scheduler_file
    if not address:
        return ", in processes of this machine"
    if given.scheduler_file and not os.path.exists(given.scheduler_file):
        raise ValueError(
            f"--dask_scheduler_file={address}: there is no such file; `dask scheduler --scheduler-file` writes it"
        )
    timeout = given.timeout or CONNECT_SECONDS

    async def greet(found: str) -> None:
        comm = await connect(found, timeout=timeout, **Security().get_connection_args("client"))
        await comm.close()

    try:
        found = given.address or read_json(given.scheduler_file).get("address", "")
        # Dask itself waits for ever for the greeting of another program, such as the scheduler's own page.
        asyncio.run(asyncio.wait_for(greet(found), timeout + 1))
        with Client(given.address, scheduler_file=given.scheduler_file, timeout=timeout) as client:
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            page = client.dashboard_link
    except (OSError, ValueError) as error:
        flag = "--dask_client_address" if given.address else "--dask_scheduler_file"
        raise ConnectionError(
            f"{flag}={address}: no Dask scheduler answers there ({reason_of(error) or 'no greeting'}). Start one with "
            f"`dask scheduler`, and give the address that it prints, such as tcp://HOST:8786"
        ) from error
    threads = sum(worker["nthreads"] for worker in workers)
    return f", scheduler {address} ({counted(len(workers), 'worker')} with {counted(threads, 'thread')}, page {page})"

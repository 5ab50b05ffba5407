"""The job server of a portable runner: Flink's, Spark's and Prism's, or one that runs already, at --job_endpoint.

Beam would start it, too. Here it is a process group of its own, so that a Ctrl-C in the terminal does not end it before it
has cancelled its job; what it prints goes to the job's log; and it ends with the job.
"""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from apache_beam.options.pipeline_options import (
    DebugOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.portability.job_server import JavaJarJobServer, StopOnExitJobServer, SubprocessJobServer
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.portability.prism_runner import PrismJobServer

EMBEDDED = "embed"  # Beam's word for a job server within the command
_POLL_SECONDS = 0.5
_STOP_SECONDS = 10


@contextmanager
def job_server(runner: PortableRunner, options: PipelineOptions, log: str) -> Iterator[tuple[str, list[str] | None]]:
    """Start the runner's job server, or find the one at --job_endpoint; afterwards options name its endpoint.

    Yields its address and the names of the flags that it knows, None if it does not list them.
    """
    portable = options.view_as(PortableOptions)
    if portable.job_endpoint == EMBEDDED:
        yield EMBEDDED, None
        return
    if portable.job_endpoint:
        yield portable.job_endpoint, _flags_of(portable.job_endpoint, portable.job_server_timeout)
        return
    options.view_as(DebugOptions).add_experiment("disable_prism_server_singleton")  # another job may have other flags
    try:
        wrapped = runner.default_job_server(options)
    except NotImplementedError:
        raise ConnectionError(
            "--runner=PortableRunner needs --job_endpoint=HOST:PORT, the address of the job server of an engine"
        ) from None
    server = wrapped._job_server if isinstance(wrapped, StopOnExitJobServer) else wrapped
    if not isinstance(server, SubprocessJobServer):
        yield "", None  # Beam sends the job as one jar to the engine
        return
    with tempfile.TemporaryDirectory(prefix="bertloom-") as folder:
        jobs = options.view_as(JobServerOptions)
        if isinstance(server, JavaJarJobServer) and not jobs.artifacts_dir:
            server._artifacts_dir = folder
        command, portable.job_endpoint = _command_of(server, options)
        start = os.path.getsize(log)
        try:
            with _process(command, options, log) as process:
                while (flags := _flags_once_it_runs(portable.job_endpoint)) is None:
                    if process.poll() is not None:
                        raise ConnectionError(
                            f"{_named(options)}: its job server, {command[0]}, ended at once with status "
                            f"{process.returncode}: {_last_line(log, start) or 'without a word'}"
                        )
                yield portable.job_endpoint, flags
        finally:
            portable.job_endpoint = None


def _command_of(server: SubprocessJobServer, options: PipelineOptions) -> tuple[list[str], str]:
    """Return the command that starts a job server, and its endpoint. Beam downloads a binary or jar that no flag names."""
    given = options.get_all_options()
    for flag in ("prism_location", "flink_job_server_jar", "spark_job_server_jar"):
        path = given.get(flag)
        if path and "://" not in path and not os.path.isfile(path):
            raise ConnectionError(
                f"--{flag}={path}: there is no such file; expected the path of a file on this machine"
            )
    try:
        command, endpoint = server.subprocess_cmd_and_endpoint()
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).partition(". ")[0].partition(" Also failed")[0]
        if isinstance(server, PrismJobServer):
            advice = "give --prism_location=PATH, Beam's `prism` for this machine, or --job_endpoint of one that runs"
        else:
            flag = _jar_flag(options)
            advice = (
                f"give {flag}=PATH, Beam's jar for your engine's version, or --job_endpoint of a job server that runs"
            )
        raise ConnectionError(f"{_named(options)} needs its job server: {reason}; {advice}") from error
    return list(map(str, command)), endpoint


@contextmanager
def _process(command: list[str], options: PipelineOptions, log: str) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "ab") as file:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, process_group=0
            )
        except OSError as error:
            advice = "expected Beam's `prism` for this machine"
            if "-jar" in command:
                advice = (
                    "install Java, or give --job_server_java_launcher=PATH, or --job_endpoint of a job server that runs"
                )
            raise ConnectionError(
                f"{_named(options)}: {command[0]} does not start: {error.strerror}; {advice}"
            ) from error
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
        finally:  # it hangs, or the user does not want to wait
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _flags_once_it_runs(endpoint: str) -> list[str] | None:
    with suppress(ConnectionError):
        return _flags_of(endpoint, _POLL_SECONDS, waits=True) or []
    return None


def _flags_of(endpoint: str, seconds: float, *, waits: bool = False) -> list[str] | None:
    """Return the names of the flags that a job server knows, None if it does not list them."""
    request = beam_job_api_pb2.DescribePipelineOptionsRequest()
    with grpc.insecure_channel(endpoint) as channel:
        try:
            stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
            found = stub.DescribePipelineOptions(request, timeout=seconds, wait_for_ready=waits)
        except grpc.RpcError as error:
            call: Any = error
            if call.code() == grpc.StatusCode.UNIMPLEMENTED and "JobService" in str(call.details()):
                return None
            raise ConnectionError(
                f"--job_endpoint={endpoint}: no job server answers there ({_reason(call)}). Start it, or give the "
                f"HOST:PORT at which it listens"
            ) from error
    return [option.name for option in found.options] or None


def _reason(call: Any) -> str:
    """Return the end of gRPC's explanation, which repeats itself."""
    details = str(call.details()).rpartition("last error: ")[2]
    return details.removeprefix("UNKNOWN: ").removeprefix("UNAVAILABLE: ") or call.code().name


def _named(options: PipelineOptions) -> str:
    return f"--runner={options.view_as(StandardOptions).runner}"


def _jar_flag(options: PipelineOptions) -> str:
    return "--spark_job_server_jar" if "spark" in _named(options).lower() else "--flink_job_server_jar"


def _last_line(log: str, start: int) -> str:
    with open(log, "rb") as file:
        file.seek(max(start, os.path.getsize(log) - 10_000))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")

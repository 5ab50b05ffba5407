"""Errors of other runners in one line: what failed, where, and what to look at."""

import re

import grpc
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from apache_beam.runners.portability.portable_runner import PortableRunner

from pipeline.remote.engine import Engine
from pipeline.remote.messages import software

_OTHER_PACKAGES = re.compile(r"^(?:(?:ModuleNotFound|Import)Error: |AttributeError: Can't get attribute ).*", re.M)
_LOST = re.compile(r"Channel closed prematurely|SDK worker disconnected")  # of the portable runner, of Prism
_REFUSED = (OSError, RuntimeError, ValueError, NotImplementedError, grpc.RpcError, grpc.FutureTimeoutError)


def submission_error(error: Exception, engine: Engine) -> Exception:
    """Return an error for the user if a runner did not accept a job; the same error if it is a fault of ours."""
    of_cloud = type(error).__module__.startswith("google.")  # such as missing credentials
    if not (of_cloud or isinstance(error, _REFUSED)):
        return error
    details = _panic(engine.log) or getattr(error, "details", lambda: str(error))()
    reasons = [line.strip() for line in str(details).splitlines() if line.strip()]
    if len(reasons) > 1 and reasons[0].endswith("errors:"):  # Beam's check of the flags
        del reasons[0]
    return ConnectionError(
        f"{engine.name} did not accept the job: {' '.join(reasons) or type(error).__name__}{_see(engine)}"
    )


def remote_error(error: Exception, options: PipelineOptions, engine: Engine) -> Exception:
    """Return an error for the user if another runner ended the job, or if its workers could not load it; else the same."""
    if isinstance(error, (grpc.RpcError, grpc.FutureTimeoutError)):
        details = _panic(engine.log) or getattr(error, "details", lambda: "no answer")()
        if "start sdk worker" in details:  # of Prism
            details = f"{details}. {what_to_check(options, engine)}"
        return ConnectionError(
            f"the job server of {engine.name} has ended, or cannot be reached any more: {details}{_see(engine)}"
        )
    of_dataflow = type(error).__name__ == "DataflowRuntimeException"
    if of_dataflow or (isinstance(engine.runner, PortableRunner) and type(error) is RuntimeError):
        text = _without_preface(str(error)) if of_dataflow else str(error).strip()
        if found := _OTHER_PACKAGES.findall(text):
            return ConnectionError(f"a worker could not load the job: {found[-1]}. {what_to_check(options, engine)}")
        if _LOST.search(text):
            return ConnectionError(
                f"{engine.name} has lost a worker, which was killed or ran out of memory, and has ended the job. Finished "
                f"work is kept: start the same command again to continue{_see(engine)}"
            )
        if "Traceback" not in text:
            return ConnectionError(
                f"{engine.name} ended the job: {text.partition(chr(10))[0]}. {what_to_check(options, engine)}{_see(engine)}"
            )
    return error


def _without_preface(text: str) -> str:
    """Return the reason for which Dataflow ended a job or, if it gave none, the state of the job."""
    preface, _, reason = text.partition(" Error:\n")
    return reason.strip() if reason.strip() not in ("", "None") else preface.rstrip(",")


def what_to_check(options: PipelineOptions, engine: Engine) -> str:
    """Return sentences that name the workers, what must be installed there, and what they must reach."""
    portable = options.view_as(PortableOptions)
    address = portable.environment_config or portable.lookup_environment_option("external_service_address")
    python = f"{software()}, as here"
    if engine.name == "DaskRunner":
        return f"See the scheduler's page: it must have workers, in {python}; a scheduler's queue may make them wait"
    if engine.name == "DataflowRunner":
        return f"See the job's page: its machines may still start. They need {python}, and access to the project and bucket"
    if portable.environment_type == "EXTERNAL":
        return (
            f"See the log of the worker pool at {address}. `bertloom worker-pool` must run there, in {python}; of Beam's "
            f"own worker_pool_main, the first `python` on PATH must be that one. The engine must reach this address, and "
            f"the pool must reach the engine"
        )
    return f"See the log of the workers, where `python` must be {python}"


def _panic(log: str) -> str:
    """Return the last words of a Go program, such as Prism, which ends at the first worker pool that it cannot reach."""
    with open(log, "rb") as file:
        found = re.findall(rb"^panic: (.*)", file.read(1 << 24), re.M)
    return found[-1].decode(errors="replace") if found else ""


def _see(engine: Engine) -> str:
    return f"; what it printed is in {engine.log}"

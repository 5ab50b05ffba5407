"""Jobs of Beam's portable runners (Flink, Spark, Prism): what to check while no worker reports, and errors in one line.

If the Python of its workers lacks Beam, such a runner waits without a message, and reports it late or never.
"""

import copy
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions
from apache_beam.runners import create_runner
from apache_beam.runners.portability.portable_runner import PipelineResult, PortableRunner

from bertloom.counts import counted
from pipeline.text.versions import version_of

MINUTE = 60.0  # seconds until the first message; each next one comes after twice as long
_OTHER_PACKAGES = re.compile(r"^(?:(?:ModuleNotFound|Import)Error: |AttributeError: Can't get attribute ).*", re.M)
_WATCH = "watch of remote workers"
_BEAM_MESSAGES = "wait_until_finish_read"  # Beam's thread that reads the messages of a job


@contextmanager
def watch_remote_workers(options: PipelineOptions, command: str) -> Iterator[Callable[[PipelineResult], None]]:
    """Print what to check for as long as no worker of a portable runner has reported a counter.

    Yields a function that must be called with the result of the job once the runner has accepted the job.
    """
    accepted: list[PipelineResult] = []
    ended = threading.Event()
    before = threading.excepthook

    def watch() -> None:
        minutes = 1
        while not ended.wait(MINUTE * (minutes + 1) / 2):
            if accepted and _has_counters(accepted[0]):
                return
            advice = f"no worker has reported anything for {counted(minutes, 'minute')}. {what_to_check(options)}"
            if not accepted:
                advice = (
                    f"waiting for {_job_server(options)} for {counted(minutes, 'minute')}. Check that it runs there"
                )
            print(f"bertloom {command}: {advice}", file=sys.stderr, flush=True)
            minutes = 2 * minutes + 1

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.thread is None or arguments.thread.name != _BEAM_MESSAGES:  # its error is raised here, too
            before(arguments)

    if isinstance(create_runner(options.view_as(StandardOptions).runner), PortableRunner):
        threading.Thread(target=watch, name=_WATCH, daemon=True).start()
    threading.excepthook = hook
    try:
        yield accepted.append
    finally:
        ended.set()
        for thread in threading.enumerate():
            if thread.name in (_BEAM_MESSAGES, _WATCH):
                thread.join(timeout=1)
        threading.excepthook = before


def what_to_check(options: PipelineOptions) -> str:
    """Return a sentence that names the workers and what must be installed there."""
    portable = options.view_as(PortableOptions)
    address = portable.environment_config or portable.lookup_environment_option("external_service_address")
    workers, python = "workers", "`python`"
    if portable.environment_type == "EXTERNAL":
        workers, python = f"worker pool at {address}", "the first `python` on PATH"
    versions = [f"{name} {version_of(name)}" for name in ("bertloom", "apache-beam")]
    return (
        f"See the log of the {workers}, where {python} must be Python {sys.version_info[0]}.{sys.version_info[1]} "
        f"with {' and '.join(versions)}, as here"
    )


def remote_error(error: Exception, options: PipelineOptions) -> Exception:
    """Return an error for the user if another runner ended the job, or if its workers could not load it; else the same."""
    if isinstance(error, (grpc.RpcError, grpc.FutureTimeoutError)):
        details = getattr(error, "details", lambda: "no answer")()
        return ConnectionError(f"no connection to {_job_server(options)}: {details}. See its log")
    if type(error) is not RuntimeError:
        return error
    text = str(error).strip()
    if found := _OTHER_PACKAGES.findall(text):
        return ConnectionError(f"a worker could not load the job: {found[-1]}. {what_to_check(options)}")
    if "Traceback" not in text:
        return ConnectionError(f"the runner ended the job: {text.partition(chr(10))[0]}. {what_to_check(options)}")
    return error


def _job_server(options: PipelineOptions) -> str:
    endpoint = options.view_as(PortableOptions).job_endpoint
    return f"the job server at {endpoint}" if endpoint else "the runner's job server"


def _has_counters(result: PipelineResult) -> bool:
    """Return whether a worker has counted anything. A copy is asked, because the answer is kept for ever."""
    try:
        return bool(copy.copy(result).metrics().query()["counters"])
    except Exception:  # a runner need not answer before the end
        return False

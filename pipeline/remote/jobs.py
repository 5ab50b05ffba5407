"""One job on another runner: send it, wait for its end, and cancel it when the user interrupts the command."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.runner import PipelineResult, PipelineState

from bertloom.messages import print_message
from pipeline.remote.engine import Engine
from pipeline.remote.errors import submission_error
from pipeline.remote.messages import reason_of

_POLL_SECONDS = 0.3


def run_on_engine(
    engine: Engine,
    options: PipelineOptions,
    build: Callable[[beam.Pipeline], object],
    accepted: Callable[[Any], object],
    command: str,
) -> PipelineResult:
    """Run a pipeline to its end. accepted: called once the runner has accepted it. command: its name, for messages."""
    try:
        pipeline = beam.Pipeline(runner=engine.runner, options=options)
    except ValueError as error:  # about Beam's flags
        raise submission_error(error, engine) from error
    build(pipeline)
    try:
        result = pipeline.run()
    except Exception as error:
        if isinstance(engine.runner, BundleBasedDirectRunner):  # has run the whole job, in this process
            raise
        raise submission_error(error, engine) from error
    accepted(result)
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        _cancel(result, engine, command)
        raise
    return result


def _cancel(result: PipelineResult, engine: Engine, command: str) -> None:
    """Ask the engine to cancel a job, and wait until it has done so. A second interruption ends this at once."""
    print_message(command, f"asking {engine.name} to cancel the job; to end at once, interrupt again")
    try:
        result.cancel()
        with suppress(grpc.RpcError, NotImplementedError):  # it has ended, or does not report states
            while not PipelineState.is_terminal(result.state):
                time.sleep(_POLL_SECONDS)
    except Exception as error:
        reason = str(error.details()) if isinstance(error, grpc.Call) else reason_of(error)
        print_message(
            command, f"{engine.name} did not cancel the job ({reason}). It may go on: look at its page or log"
        )
        return
    print_message(command, "the job is cancelled. Finished work is kept: start the same command again to continue")

"""The workers of another runner: what to check for as long as none of them has answered.

If the Python of its workers lacks Beam, a portable runner waits without a message, and reports it late or never. A Dask
scheduler without workers waits, too.
"""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

from bertloom.counts import counted
from bertloom.messages import print_message
from pipeline.remote.engine import Engine
from pipeline.remote.errors import what_to_check

MINUTE = 60.0  # seconds until the first message; each next one comes after twice as long
_WATCH = "watch of remote workers"
_BEAM_MESSAGES = "wait_until_finish_read"  # Beam's thread that reads the messages of a job


@contextmanager
def watch_remote_workers(
    options: PipelineOptions, engine: Engine, command: str, has_answered: Callable[[], bool] = lambda: False
) -> Iterator[Callable[[PipelineResult], None]]:
    """Print what to check for as long as no worker has answered the check, or reported a counter.

    Yields a function that must be called with the result of the job once the runner has accepted the job.
    """
    accepted: list[PipelineResult] = []
    ended = threading.Event()

    def watch() -> None:
        minutes = 1
        while not ended.wait(MINUTE * (minutes + 1) / 2):
            if has_answered() or accepted and _has_counters(accepted[0]):
                return
            advice = (
                f"no worker has reported anything for {counted(minutes, 'minute')}. {what_to_check(options, engine)}"
            )
            if not accepted:
                advice = f"{engine.name} has not accepted the job for {counted(minutes, 'minute')}. See {engine.log}"
            print_message(command, advice)
            minutes = 2 * minutes + 1

    threading.Thread(target=watch, name=_WATCH, daemon=True).start()
    try:
        yield accepted.append
    finally:
        ended.set()
        for thread in threading.enumerate():
            if thread.name in (_BEAM_MESSAGES, _WATCH):
                thread.join(timeout=1)


def _has_counters(result: PipelineResult) -> bool:
    """Return whether a worker has counted anything. A copy is asked, because the answer is kept for ever."""
    try:
        return bool(copy.copy(result).metrics().query()["counters"])
    except Exception:  # a runner need not answer before the end
        return False

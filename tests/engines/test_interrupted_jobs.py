"""A job whose launcher is interrupted on each engine: the engine writes no more, and the same command does the rest."""

import signal
import time

import pytest

from tests.engines.places import digest

pytestmark = [pytest.mark.engines]
SILENT_SECONDS = 3.0
"""Longer than a worker takes for a part or a shard of the sample."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("place", ["disk"], indirect=True)
def test_an_interrupted_job_writes_no_more_and_continues(engine, job, place, number):
    if engine.name == "portable runner":
        pytest.skip("Beam's local job service answers that it has cancelled a job, and goes on with it")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    launcher = job.start(place, "out", *engine.flags)
    signal.signal(signal.SIGINT, before)
    while not any(name.endswith((".part", ".tar")) for name in place.names("out")):
        assert launcher.poll() is None, launcher.communicate()[0]
        time.sleep(0.02)
    launcher.send_signal(number)
    said, _ = launcher.communicate()
    assert launcher.returncode == 128 + number, said
    assert "the job is cancelled. Finished work is kept: start the same command again to continue" in said
    assert "Traceback" not in said
    found = sorted(place.names("out"))
    time.sleep(SILENT_SECONDS)
    assert sorted(place.names("out")) == found
    again = job.start(place, "out", *engine.flags)
    said, _ = again.communicate()
    assert again.returncode == 0, said
    assert digest(place, "out") == job.digest

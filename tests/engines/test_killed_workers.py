"""Jobs on other runners whose workers are killed: they end with the digest of the embedded runner.

`make test-engines` runs these tests, with the engines that are here.
"""

import subprocess
import time
from signal import SIGKILL

import psutil
import pytest

from tests.engines.engines import Engine
from tests.engines.job import Job
from tests.engines.places import Place, digest

pytestmark = pytest.mark.engines
RECORDS = ".work/weave"  # one of each finished bucket


def test_a_job_whose_workers_are_killed_in_the_middle_ends_with_the_same_digest(
    engine: Engine, place: Place, job: Job, table: list[tuple[str, ...]]
):
    for number, (what, victims) in enumerate(engine.victims.items()):
        out, began = f"out{number}", time.monotonic()
        process = job.start(place, out, *engine.flags)
        while not place.names(f"{out}/{RECORDS}") and process.poll() is None:
            time.sleep(0.05)
        killed = victims(psutil.Process(process.pid)) if process.poll() is None else []
        for victim in killed:
            victim.kill()
        said, _ = process.communicate()
        assert killed, said
        if not engine.retries:
            assert f"{out}/manifest.json" not in place.names(out)
            assert_says_why(process, said)
            if f"{out}/.lock" in place.names(out):  # as the error says, in an object store
                place.remove(f"{out}/.lock")
            process = job.start(place, out, *engine.flags)
            said, _ = process.communicate()
            assert "continuing with an unfinished run" in said
        assert process.returncode == 0, said
        assert digest(place, out) == job.digest
        table.append((engine.name, engine.workers, place.name, what, job.digest, f"{time.monotonic() - began:.1f}"))


def assert_says_why(process: subprocess.Popen[str], said: str) -> None:
    """Check the last line of a job that failed because its worker was killed."""
    if process.returncode == -SIGKILL:  # it was its own worker
        return
    assert process.returncode == 2, said
    assert "error: PortableRunner has lost a worker" in said.splitlines()[-1] and "Traceback" not in said
    assert "start the same command again to continue" in said

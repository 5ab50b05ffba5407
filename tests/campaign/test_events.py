"""The library that counts what a job writes, and does something at one of these events."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest

from tests.campaign.events import CUT, FAIL, JUMP, KILL, WAIT, Control, build, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
SCRIPT = """
import os, sys, time
folder = sys.argv[1]
os.mkdir(f"{folder}/new")
with open(f"{folder}/new/.tmp-file", "wb") as file:
    file.write(b"0123456789")
    file.flush()
    os.fsync(file.fileno())
os.replace(f"{folder}/new/.tmp-file", f"{folder}/new/file")
open("/dev/null", "w").close()
with open(f"{folder}/new/file", "rb") as file, open(f"{folder}/new/copy", "wb") as copy:
    os.sendfile(copy.fileno(), file.fileno(), 0, 10)
os.remove(f"{folder}/new/copy")
os.remove(f"{folder}/new/file")
print(time.time())
"""
EVENTS = ["folder /new", "open /new/.tmp-file", "write /new/.tmp-file", "sync /new/.tmp-file", "rename /new/file"]
EVENTS += ["open /new/copy", "write /new/copy", "remove /new/copy", "remove /new/file"]


@pytest.fixture
def run(tmp_path):
    control, library = Control(tmp_path / "control"), build(tmp_path)

    def ran(**values):
        shutil.rmtree(tmp_path / "place", ignore_errors=True)
        (tmp_path / "place").mkdir()
        control.set(folder=tmp_path / "place", **values)
        environment = {**os.environ, "LD_PRELOAD": str(library), "CAMPAIGN_CONTROL": str(tmp_path / "control")}
        command = [sys.executable, "-S", "-c", SCRIPT, str(tmp_path / "place")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False), control

    ran.control = control
    return ran


def test_each_write_below_the_folder_is_counted(run, tmp_path):
    ran, control = run(log=tmp_path / "log")
    assert ran.returncode == 0 and control.count == len(EVENTS)
    assert (tmp_path / "log").read_text().replace(str(tmp_path / "place"), "").splitlines() == EVENTS


def test_the_chosen_event_fails_is_cut_or_ends_the_process(run, tmp_path):
    ran, control = run(at=5, action=FAIL, error=28)
    assert "No space left on device" in ran.stderr and control.what == f"rename {tmp_path}/place/new/file"
    ran, _ = run(at=3, action=CUT, error=5)
    assert ran.returncode == 0, "half is written, and then the rest"
    ran, _ = run(at=4, action=KILL)
    assert ran.returncode == -signal.SIGKILL and (tmp_path / "place/new/.tmp-file").read_bytes() == b"0123456789"


def test_after_a_lasting_error_the_next_write_fails_too(run, tmp_path):
    ran, _ = run(at=3, action=CUT, error=28, is_lasting=1)
    assert "No space left on device" in ran.stderr and (tmp_path / "place/new/.tmp-file").read_bytes() == b"01234"


@pytest.mark.parametrize("fails", [False, True])
def test_the_job_pauses_at_the_chosen_event_until_the_function_has_ended(run, tmp_path, fails):
    def act():
        (tmp_path / "place/new/seen").write_bytes((tmp_path / "place/new/.tmp-file").read_bytes())
        if fails:
            raise OSError("no such input")

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(run, at=4, action=WAIT)
        with pytest.raises(OSError, match="no such input") if fails else nullcontext():
            run.control.act(act, job.done)
        assert job.result()[0].returncode == 0
    assert (tmp_path / "place/new/seen").read_bytes() == b"0123456789"


def test_the_clock_jumps_at_the_chosen_event(run):
    ran, _ = run(at=3, action=JUMP, jump_seconds=10**9)
    assert float(ran.stdout) - time.time() > 0.9 * 10**9

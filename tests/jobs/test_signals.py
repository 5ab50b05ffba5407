"""SIGINT and SIGTERM at any moment of a command end it with a line and a status, never with a traceback."""

import random
import signal
import subprocess
import sys
import time

import pytest

from tests.jobs.restartable_job import ROOT, TIMEOUT_SECONDS, environment_of

# Each is run in a process, with `send` to send it the signal, before it enters the command `bertloom --version`.
MOMENTS = {
    "while it imports": """
class Finder:
    def find_spec(name, path, target=None):
        if name == "jobs.cli":
            send()
sys.meta_path.insert(0, Finder)
""",
    "in the command": "before(send)",
    "twice in the command": """
def twice():
    try:
        send()
    finally:
        send()
before(twice)
""",
    "where Python drops exceptions": """
class Freed:
    def __del__(self):
        send()
def drop():
    Freed()
    time.sleep(60)
before(drop)
""",
    "where a library raises another exception": """
def other():
    try:
        send()
    except KeyboardInterrupt:
        raise ImportError("numpy failed to import") from None
before(other)
""",
    "where a library ignores it": """
def ignore():
    try:
        send()
    except BaseException:
        pass
before(ignore)
""",
    "while Python waits for threads": "threading.Timer(0.3, send).start()",
}
CODE = """
import os, signal, sys, threading, time, bertloom_entry
number = int(sys.argv.pop(1))
def send():
    os.kill(os.getpid(), number)
    time.sleep(0.01)
def before(action):
    from jobs import cli
    cli._version = lambda: action() or "0"
{moment}
sys.exit(bertloom_entry.main())
"""


@pytest.fixture(autouse=True)
def heeded():
    """SIGINT is ignored in a shell's background jobs, and so in what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(moment: str, number: signal.Signals) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE.format(moment=moment), str(int(number)), "--version"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_ends_the_command_with_a_line_and_its_status(moment, number):
    ran = run(MOMENTS[moment], number)
    assert ran.returncode == 128 + number
    assert ran.stderr == f"bertloom: {'interrupted' if number == signal.SIGINT else 'terminated'}\n"


def test_a_signal_after_the_end_changes_nothing():
    ran = run("import atexit; atexit.register(send)", signal.SIGINT)
    assert ran.returncode == 0 and ran.stderr == "" and ran.stdout.startswith("bertloom ")


@pytest.mark.slow  # a minute or two
def test_signals_at_random_moments_of_a_job_with_workers_are_one_line(job, tmp_path):
    code = "import sys, bertloom_entry; print(flush=True); sys.exit(bertloom_entry.main())"
    draw = random.Random(0)
    ended = set()
    for i in range(40):
        number = draw.choice([signal.SIGINT, signal.SIGTERM])
        command = [sys.executable, "-c", code, *job.argv(tmp_path / str(i), "--num-workers", "2")]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=ROOT, env=environment_of(), text=True, **streams)
        process.stdout.readline()  # Python itself has started
        time.sleep(draw.uniform(0.01, 6))
        process.send_signal(number)
        _, said = process.communicate(timeout=TIMEOUT_SECONDS)
        ended.add(process.returncode)
        assert process.returncode in (0, 128 + number), said
        assert "Traceback" not in said and "Exception ignored" not in said
        assert process.returncode == 0 or said.splitlines()[-1].endswith(("interrupted", "terminated"))
    assert ended >= {130, 143}

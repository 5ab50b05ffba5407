"""A part of the campaign: SIGKILL, SIGTERM and SIGINT at random moments, to a job's parent, a worker or all processes.

After one to three kills the job is started again and ends by itself. Its output must be the same as from an unbroken job,
bit for bit, and nothing else may be left: no other file, no process. `bertloom verify` must find no fault, and a signal must
not show a traceback.
"""

import itertools
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.campaign.killable import Killable, make, names
from tests.campaign.outcome import Outcome
from tests.jobs.restartable_job import ROOT, WORKER_LOST, environment_of

NUM_CASES = 300
HOW = list(itertools.product(("parent", "worker", "all processes"), ("SIGKILL", "SIGTERM", "SIGINT")))
NUM_KILLS = (1, 1, 1, 2, 3)
TIMEOUT_SECONDS = 300
"""A job of a few seconds takes much longer on a busy machine; after this, it hangs."""
END_SECONDS = 60
"""After this, processes of a job that has ended are left behind."""
AFTER_THE_END = 1.05
"""Kills are spread over the duration of an unbroken job, and a little more."""


@dataclass(frozen=True)
class Unbroken:
    """A job, what it writes if nothing disturbs it, and its duration in seconds by number of processes."""

    job: Killable
    contents: dict[str, object]
    seconds: dict[int, float]


class Fault(Exception):
    """What a case found wrong."""


def run(folder: Path, seed: int, share: float, only: int | None = None) -> Iterator[Outcome]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    made: dict[str, Unbroken] = {}
    try:
        for index in range(max(1, round(NUM_CASES * share))) if only is None else [only]:
            name = names()[index % len(names())]
            if name not in made:
                made[name] = run_unbroken(name, folder / f"job-{len(made)}")
            yield case(made[name], folder / f"case-{index}", random.Random(f"{seed}-{index}"), index // len(names()))
    finally:
        signal.signal(signal.SIGINT, before)


def run_unbroken(name: str, folder: Path) -> Unbroken:
    """Run a job with each number of processes; all must write the same."""
    job, seconds, contents = make(name, folder), {}, {}
    for number in job.num_processes:
        out, began = folder / f"unbroken-{number}", time.monotonic()
        process = start(job, out, number)
        if wait(process, str(out)) != 0:
            raise RuntimeError(f"{name}: {said(out)[-2000:]}")
        seconds[number] = time.monotonic() - began
        found = job.contents(out / "place")
        assert contents in ({}, found), f"{name}: other contents with {number} processes"
        contents = found
    return Unbroken(job, contents, seconds)


def case(unbroken: Unbroken, folder: Path, draw: random.Random, number: int) -> Outcome:
    """Kill a job in the way of this number, start it again, and compare."""
    job, began = unbroken.job, time.monotonic()
    target, name = HOW[number % len(HOW)]
    num_processes = draw.choice(job.num_processes) if target == "parent" else job.num_processes[-1]
    if num_processes == 1:
        target = "parent"
    what = f"{name} to {'the ' * (target == 'parent')}{'a ' * (target == 'worker')}{target} of {job.name}"
    moments = [draw.uniform(0, AFTER_THE_END) for _ in range(draw.choice(NUM_KILLS))]
    waits = job.in_ranks or draw.random() < 0.5  # orphans of ranks hold the lock of their run
    try:
        for moment in moments:
            process = start(job, folder, num_processes)
            time.sleep(moment * unbroken.seconds[num_processes])
            is_killed = kill(process, str(folder), target, signal.Signals[name], draw)
            status = wait(process, str(folder))
            check_end(job, folder, status, target, signal.Signals[name] if is_killed else None)
            if waits:
                wait_for_processes(str(folder))
        if wait(start(job, folder, num_processes), str(folder)) != 0:
            raise Fault(f"the next start fails: {said(folder)[-3000:]}")
        wait_for_processes(str(folder))
        compare(job.contents(folder / "place"), unbroken.contents)
        if found := job.faults(folder / "place"):
            raise Fault(f"verify: {found}")
        if beside := sorted(path.name for path in (folder / "temporary").iterdir()):
            raise Fault(f"temporary files: {beside}")
    except Fault as fault:
        return Outcome(what, str(fault), time.monotonic() - began, is_fault=True)
    return Outcome(what, "same digest", time.monotonic() - began)


def start(job: Killable, folder: Path, num_processes: int) -> subprocess.Popen[bytes]:
    """Start a job in a process group of its own; its environment marks all of its processes."""
    for name in ("place", "temporary"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    environment = environment_of(MARK=str(folder), TMPDIR=str(folder / "temporary"))
    with open(folder / "said", "wb") as said:
        command = job.command(folder / "place", num_processes)
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said, process_group=0)


def said(folder: Path) -> str:
    return (folder / "said").read_text(errors="replace")


def processes(mark: str) -> list[psutil.Process]:
    """Return the processes with this mark in their environment that still run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill(process: subprocess.Popen[bytes], mark: str, target: str, number: signal.Signals, draw: random.Random) -> bool:
    """Send the signal, and return whether the job still ran. Wait for the first worker if there is none yet."""
    while process.poll() is None:
        if target == "parent":
            process.send_signal(number)
            return True
        everyone = processes(mark)
        workers = [other for other in everyone if other.pid != process.pid]
        targets = workers and ([draw.choice(workers)] if target == "worker" else draw.sample(everyone, len(everyone)))
        for other in targets:
            with suppress(psutil.NoSuchProcess):
                other.send_signal(number)
        if targets:
            return True
        time.sleep(0.01)
    return False


def wait(process: subprocess.Popen[bytes], mark: str) -> int:
    """Wait for the end of a job and return its status."""
    try:
        return process.wait(TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        for other in processes(mark):
            other.kill()
        process.wait()
        raise Fault(f"no end in {TIMEOUT_SECONDS} seconds: {said(Path(mark))[-3000:]}") from None


def wait_for_processes(mark: str) -> None:
    """Wait until no process of a job is left."""
    until = time.monotonic() + END_SECONDS
    while left := processes(mark):
        if time.monotonic() > until:
            commands = [" ".join(process.cmdline()) for process in left]
            for process in left:
                process.kill()
            raise Fault(f"processes left: {commands}")
        time.sleep(0.05)


def check_end(job: Killable, folder: Path, status: int, target: str, sent: signal.Signals | None) -> None:
    """Check the exit status and the last words of a job that was sent a signal."""
    expected = {0}
    if sent and target != "worker":
        expected |= {-sent, 128 + sent}
    if sent and target != "parent":
        expected |= {WORKER_LOST}
    if job.in_ranks and sent:
        expected |= {1, -sent, 128 + sent}  # torchrun has statuses of its own
    elif sent == signal.SIGKILL:
        expected -= {128 + sent}
    if status not in expected:
        raise Fault(f"ended with status {status}, expected one of {sorted(expected)}: {said(folder)[-3000:]}")
    if not job.in_ranks and "Traceback" in said(folder):
        raise Fault(f"a traceback: {said(folder)[-3000:]}")


def compare(found: dict[str, object], expected: dict[str, object]) -> None:
    """Raise a fault that names what differs."""
    names = {
        "missing": sorted(expected.keys() - found.keys()),
        "foreign": sorted(found.keys() - expected.keys()),
        "different": sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name]),
    }
    if any(names.values()):
        raise Fault(f"the output differs: { ({kind: those for kind, those in names.items() if those}) }")

"""A part of the campaign: SIGKILL, SIGTERM and SIGINT at random moments, to a job's parent, a worker or all processes.

After one to three kills the job is started again and ends by itself. Its output must be the same as from an unbroken job,
bit for bit, and nothing else may be left: no other file, no process. `bertloom verify` must find no fault, and a signal must
not show a traceback. An outcome counts the signals that met a job that still ran.
"""

import itertools
import random
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bertloom.processes import PROCESS_LOST
from tests.campaign.killable import Killable, make, names
from tests.campaign.outcome import Outcome
from tests.campaign.starts import COMMAND, FORK, SECONDS_BETWEEN_LOOKS, Running
from tests.campaign.verdict import difference

NUM_CASES = 220
"""Of a whole campaign. A case has one to three kills, some of them after its end, so this gives about 300 kills."""
TARGETS = ("the parent", "a worker", "all processes")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WAYS = list(itertools.product(SIGNALS, TARGETS))
HOW = (COMMAND, FORK, FORK)
NUM_KILLS = (1, 1, 1, 2, 3)
TIMEOUT_SECONDS = 300
"""A job of a few seconds takes much longer on a busy machine; after this, it hangs."""
END_SECONDS = 120
"""After this time, the processes of an ended job that still run are a fault."""
AFTER_THE_END = 1.05
"""Kills are spread over the duration of an unbroken job, and a little more."""
LAST_CHARACTERS = 3000


class Fault(Exception):
    """What a case found wrong."""


class Unbroken:
    """A job, what it writes if nothing disturbs it, and how long that takes."""

    def __init__(self, name: str, folder: Path) -> None:
        self.job, self.folder = make(name, folder), folder
        self.durations: dict[tuple[str, int], float] = {}
        self.contents: Mapping[str, object] = {}
        self.seconds(FORK, self.job.num_workers[0])

    def seconds(self, how: str, num_workers: int) -> float:
        """Return the duration of the job when it is started like this; compare its output with the first one."""
        if (how, num_workers) not in self.durations:
            out, began = self.folder / f"unbroken-{how}-{num_workers}", time.monotonic()
            finish(start(self.job, out, how, num_workers))
            self.durations[how, num_workers] = time.monotonic() - began
            found = self.job.contents(out / "place")
            self.contents = self.contents or found
            compare(found, self.contents)
        return self.durations[how, num_workers]

    def ended(self, how: str, num_workers: int, seconds: float) -> None:
        """Note a shorter duration: the machine was busier before."""
        self.durations[how, num_workers] = min(seconds, self.durations[how, num_workers])


def run(folder: Path, seed: int, share: float, only: int | None = None) -> Iterator[Outcome]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    made: dict[str, Unbroken] = {}
    Running(FORK, folder / "first", ["--version"]).wait(TIMEOUT_SECONDS)  # imports everything, once
    try:
        for index in range(max(1, round(NUM_CASES * share))) if only is None else [only]:
            round_number, number = divmod(index, len(names()))
            name, draw = names()[number], random.Random(f"{seed}-{index}")
            if name not in made:
                made[name] = Unbroken(name, folder / f"job-{number}")
            # every job meets every signal and every target; neighbours have different ones
            yield case(made[name], folder / f"case-{index}", draw, *WAYS[(round_number + number) % len(WAYS)])
    finally:
        signal.signal(signal.SIGINT, before)


def case(unbroken: Unbroken, folder: Path, draw: random.Random, sent: signal.Signals, target: str) -> Outcome:
    """Kill a job, start it again, and compare its output."""
    job, began = unbroken.job, time.monotonic()
    is_alone = job.num_ranks == len(job.num_workers) == 1
    target = "the parent" if is_alone else target
    num_workers = draw.choice(job.num_workers) if target == "the parent" else job.num_workers[-1]
    what = f"{sent.name} to {target} of {job.name}"
    how, num_kills = draw.choice(HOW), draw.choice(NUM_KILLS)
    starts_at_once = job.num_ranks == 1 and draw.random() < 0.5  # orphans of ranks hold the lock of their run
    num_sent, running = 0, None
    try:
        for number in range(num_kills):
            moment = draw.uniform(0, AFTER_THE_END) * unbroken.seconds(how, num_workers)
            running, started = start(job, folder, how, num_workers), time.monotonic()
            while time.monotonic() < started + moment and not running.has_ended():
                time.sleep(SECONDS_BETWEEN_LOOKS)
            is_sent = kill(running, target, sent, draw)
            if not is_sent and number == 0:
                unbroken.ended(how, num_workers, time.monotonic() - started)
            num_sent += is_sent
            check_end(running, target, sent if is_sent else None)
            if not starts_at_once:
                check_processes(running)
        running = start(job, folder, FORK, num_workers)
        finish(running)
        check_processes(running)
        compare(job.contents(folder / "place"), unbroken.contents)
        if found := job.faults(folder / "place"):
            raise Fault(f"verify: {found}")
        check_temporary(folder / "temporary", job, sent)
    except Fault as fault:
        if running:
            running.send(running.processes(), signal.SIGKILL)
        return Outcome(what, str(fault), time.monotonic() - began, is_fault=True)
    result = "same digest" if num_sent else "same digest; it ended before the signal"
    return Outcome(what, result, time.monotonic() - began, count=max(num_sent, 1))


def start(job: Killable, folder: Path, how: str, num_workers: int) -> Running:
    """Start a job whose output goes into FOLDER/place."""
    (folder / "place").mkdir(parents=True, exist_ok=True)
    return Running(how, folder, job.words(folder / "place", num_workers), job.num_ranks)


def finish(running: Running) -> None:
    """Wait for the end of a job that nothing disturbs."""
    statuses = wait(running)
    if any(statuses):
        raise Fault(f"a job without a kill ends with {statuses}: {running.said()[-LAST_CHARACTERS:]}")
    check_messages(running)


def kill(running: Running, target: str, sent: signal.Signals, draw: random.Random) -> bool:
    """Send the signal, and return whether there was a process for it. Wait for the first worker if there is none yet."""
    while not running.has_ended():
        if target == "the parent":
            found = running.processes()[:1]
        elif target == "a worker":
            found = running.workers()
            found = found and [draw.choice(found)]
        else:
            found = running.processes()
            draw.shuffle(found)
        if found:
            running.send(found, sent)
            return True
        time.sleep(0.01)
    return False


def wait(running: Running) -> list[int | None]:
    """Return the exit statuses of a job."""
    statuses = running.wait(TIMEOUT_SECONDS)
    if None in statuses:
        running.send(running.processes(), signal.SIGKILL)
        raise Fault(f"no end in {TIMEOUT_SECONDS} seconds: {running.said()[-LAST_CHARACTERS:]}")
    return statuses


def check_processes(running: Running) -> None:
    """Check that no process of a job is left a moment after its end. Ranks whose torchrun was killed train to the end."""
    if left := running.wait_for_all(TIMEOUT_SECONDS if running.in_torchrun else END_SECONDS):
        running.send(running.processes(), signal.SIGKILL)
        raise Fault(f"processes left: {left}")
    check_messages(running)  # those of the processes that ended last, too


def check_messages(running: Running) -> None:
    """Check that no process of a job has shown a traceback. torchrun shows one for each rank that was killed."""
    if "Traceback" in running.said() and not running.in_torchrun:
        raise Fault(f"a traceback: {running.said()[-LAST_CHARACTERS:]}")


def check_temporary(folder: Path, job: Killable, sent: signal.Signals) -> None:
    """Check the folder for temporary files. After SIGKILL nothing removes the empty ones of Beam and torchrun."""
    may_stay = sent == signal.SIGKILL or job.num_ranks > 1
    if left := sorted(path.name for path in folder.rglob("*") if path.is_file() or not may_stay):
        raise Fault(f"temporary files are left: {left}")


def check_end(running: Running, target: str, sent: signal.Signals | None) -> None:
    """Check the exit statuses and the last words of a job that was sent a signal."""
    statuses, expected = wait(running), {0}
    if sent:
        expected |= {-sent} if sent == signal.SIGKILL else {-sent, 128 + sent}
        # What is left of a job whose workers or other ranks were killed ends with an error, and torchrun with status 1.
        # torchrun, and a rank that was stopped, send the other ranks SIGTERM.
        if running.num_ranks > 1:
            expected |= {1, PROCESS_LOST, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM}
        elif target != "the parent":
            expected |= {PROCESS_LOST}
    if not set(statuses) <= expected:
        raise Fault(f"ended with {statuses}, expected {sorted(expected)}: {running.said()[-LAST_CHARACTERS:]}")
    check_messages(running)


def compare(found: Mapping[str, object], expected: Mapping[str, object]) -> None:
    """Raise a fault that names what differs."""
    if differs := difference(found, expected):
        raise Fault(f"the output differs: {differs}")

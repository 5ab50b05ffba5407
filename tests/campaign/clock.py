"""The clock jumps by hours or years, back or forward: during a job, or between a kill and the restart.

The clock is that of all code in the process. Between kill and restart, the times of the files that were left change, too.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

from tests.campaign.cases import NEVER, SAME, TEXT, TRAINING, Bench, run_cases
from tests.campaign.cut_writes import choose
from tests.campaign.events import JUMP, KILL
from tests.campaign.outcome import Outcome
from tests.campaign.verdict import Tested

NUM_CASES = 60
CYCLE = ("preprocess", "finetune", "preprocess --inputs", "pretrain", "preprocess --extend", "export")
CYCLE += ("preprocess --validation-input", "build-vocab")
assert {*CYCLE} > {*TEXT, *TRAINING}
YEAR = 365 * 86400
JUMPS = {"an hour back": -3600, "2 years back": -2 * YEAR, "30 years back": -30 * YEAR}
JUMPS |= {"an hour forward": 3600, "3 years forward": 3 * YEAR, "40 years forward": 40 * YEAR}


def jump(bench: Bench, tested: Tested, draw: random.Random) -> tuple[str, str]:
    how, between, at = draw.choice(sorted(JUMPS)), draw.random() < 0.5, choose(tested, draw)
    command, seconds = tested.command, JUMPS[how]
    what = f"{command.name}: {how}, {'between kill and restart' if between else 'during the job'}"
    if between:
        bench.forks.run(command.argv, command.place, at=at, action=KILL)
        shift_times(command.place, draw.choice((seconds, -seconds)))
        ended = bench.forks.run(command.argv, command.place, clock_seconds=seconds)
    else:
        ended = bench.forks.run(command.argv, command.place, at=at, action=JUMP, jump_seconds=seconds)
        if not ended.event:
            return what, NEVER
    if fault := tested.fault_of(ended):
        return what, f"{tested.events[at - 1]}: {fault}"
    differs = tested.differs()
    if differs or (ended.status and "already" not in ended.output):
        return what, f"{tested.events[at - 1]}: {differs} (status {ended.status}): {ended.output[-2000:]}"
    return what, SAME


def shift_times(place: Path, seconds: int) -> None:
    """Move the times of all files below a folder."""
    for path in sorted(place.rglob("*"), reverse=True):
        if not path.is_symlink():
            time = path.stat().st_mtime + seconds
            os.utime(path, (time, time))


def run(folder: Path, seed: int, share: float, only: int | None = None) -> Iterator[Outcome]:
    return run_cases(CYCLE, NUM_CASES, jump, (), folder, seed, share, only)

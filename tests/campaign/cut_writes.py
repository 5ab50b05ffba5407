"""Each write of a job is cut by an error: a full disk, a full quota, a broken disk, or a write of half of the bytes.

A case takes one event of an undisturbed job, such as the rename of a shard, and lets it fail. The job must end with a line
that names the error, or do without that file; started again, it must give the same bytes.
"""

import errno
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

from tests.campaign.cases import NEVER, OTHERS, SAME, TEXT, TRAINING, Bench, run_cases
from tests.campaign.events import CUT, FAIL
from tests.campaign.outcome import Outcome
from tests.campaign.verdict import Tested, contents

NUM_CASES = 240
CYCLE = ("import", "preprocess", "finetune", "preprocess --inputs", "pretrain", "preprocess --extend", "export")
CYCLE += ("preprocess --validation-input", "preprocess", "adapt-vocab", "preprocess --inputs", "finetune", "embed")
CYCLE += ("preprocess --extend", "pretrain", "export-data", "preprocess", "preprocess --inputs", "build-vocab", "score")
LEFT = "same digest, besides what could not be removed"
assert {*CYCLE} == {*TEXT, *TRAINING, *OTHERS}
OF_WRITES = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
OF_NAMES = (errno.ENOSPC, errno.EIO, errno.EACCES)
OF_REMOVALS = (errno.EBUSY, errno.EIO)


def kind(event: str, place: Path) -> str:
    """Return an event without the numbers and digests that differ from file to file."""
    text = event.replace(str(place), "")
    return re.sub(r"\d+", "N", re.sub(r"[0-9a-f]{24,}", "H", re.sub(r"\.tmp-\d+-\d+-", "", text)))


def choose(tested: Tested, draw: random.Random) -> int:
    """Return the number of an event, from 1. Each kind of event has the same chance."""
    kinds = [kind(event, tested.command.place) for event in tested.events]
    chosen = draw.choice(list(dict.fromkeys(kinds)))
    return draw.choice([i for i, one in enumerate(kinds, 1) if one == chosen])


def cut_write(bench: Bench, tested: Tested, draw: random.Random) -> tuple[str, str]:
    at = choose(tested, draw)
    event = tested.events[at - 1].partition(" ")[0]
    errors = OF_REMOVALS if event == "remove" else OF_WRITES if event in ("write", "sync", "cut") else OF_NAMES
    error, is_half, is_lasting = draw.choice(errors), event == "write" and draw.random() < 0.4, draw.random() < 0.5
    is_lasting &= event != "remove"
    action = CUT if is_half else FAIL
    ended = bench.forks.run(
        tested.command.argv, tested.command.place, at=at, action=action, error=error, is_lasting=is_lasting
    )
    name = errno.errorcode[error]
    what = (
        f"{tested.command.name}: {event}{' of half' if is_half else ''}, {name}{' from then on' if is_lasting else ''}"
    )
    if not ended.event:
        return what, NEVER
    if fault := tested.fault_of(ended):
        return what, f"{ended.event}: {fault}"
    line = ended.output.strip().rpartition("\n")[2]
    if ended.status and os.strerror(error).lower() not in line.lower():
        return what, f"{ended.event}: does not name {os.strerror(error)}: {ended.output[-2000:]}"
    if ended.status and str(tested.command.place) not in line:
        return what, f"{ended.event}: names no file: {ended.output[-2000:]}"
    if ended.status and event != "remove" and not is_lasting and (left := temporary(tested.command.place)):
        return what, f"{ended.event}: left {left}: {ended.output[-2000:]}"
    differs = tested.differs() if ended.status == 0 else ""
    if differs and event == "remove" and is_what_stayed(tested, Path(ended.event.partition(" ")[2])):
        return what, LEFT
    if differs and not re.fullmatch(r"[a-z ]+: \S*\.lock", differs):
        return what, f"{ended.event}: ended as if nothing had happened: {differs}: {ended.output[-2000:]}"
    wrong = bench.finish(tested)
    return what, f"{ended.event}: {wrong}" if wrong else SAME


def is_what_stayed(tested: Tested, path: Path) -> bool:
    """Return whether all that differs is a path that could not be removed, with what it holds and the folders around it."""
    found = contents(tested.command.place)
    foreign = found.keys() - tested.expected.keys()
    stayed = [tested.command.place / name for name in foreign]
    has_rest = {name: found[name] for name in found.keys() - foreign} == tested.expected
    return has_rest and all(one == path or one in path.parents or path in one.parents for one in stayed)


def temporary(place: Path) -> list[str]:
    """Return the temporary files below a folder."""
    return [str(path.relative_to(place)) for path in place.rglob(".tmp-*")]


def run(folder: Path, seed: int, share: float, only: int | None = None) -> Iterator[Outcome]:
    return run_cases(CYCLE, NUM_CASES, cut_write, (LEFT,), folder, seed, share, only)

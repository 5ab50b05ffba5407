"""An input changes while a job runs, or between a kill and the restart.

The bytes must be those of a job over the old input or over the new one, and never of a mixture. Or one line refuses, and
names the file; then the input is restored, and the job must finish with the same bytes.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.campaign.cases import NEVER, SAME, TEXT, TRAINING, Bench, run_cases
from tests.campaign.cut_writes import choose
from tests.campaign.events import KILL
from tests.campaign.outcome import Outcome
from tests.campaign.verdict import Tested, contents, difference

NUM_CASES = 90
CYCLE = ("preprocess", "finetune", "preprocess --inputs", "pretrain", "preprocess --extend")
CYCLE += ("preprocess --validation-input", "preprocess", "preprocess --inputs")
assert {*CYCLE} == {*TEXT, *TRAINING}
REFUSED = "refused with a line that names it; same digest after the input was restored"
NEW = "digest of a job over the new input"


def change_bytes(path: Path, draw: random.Random) -> None:
    """Change 40 bytes: the case of their letters, or one bit of each where they have no Latin letters."""
    data = path.read_bytes()
    at = draw.randrange(max(1, len(data) - 40))
    old = data[at : at + 40]
    new = old.swapcase() if old.swapcase() != old else bytes(byte ^ 1 for byte in old)
    path.write_bytes(data[:at] + new + data[at + 40 :])


def grow(path: Path, draw: random.Random) -> None:
    with path.open("ab") as file:
        file.write(path.read_bytes()[: draw.randrange(1, 2000)])


def cut(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(max(1, path.stat().st_size)))


def replace(path: Path, draw: random.Random) -> None:
    """Put another file in the place of a file by a rename."""
    other = path.with_name(f".{path.name}")
    data = path.read_bytes()
    other.write_bytes(data[len(data) // 2 :] + data[: len(data) // 2])
    other.rename(path)


def remove(path: Path, draw: random.Random) -> None:
    path.unlink()


def touch(path: Path, draw: random.Random) -> None:
    os.utime(path)


CHANGES: dict[str, Callable[[Path, random.Random], None]] = {
    "changed bytes": change_bytes,
    "grown": grow,
    "cut": cut,
    "replaced": replace,
    "removed": remove,
    "a new time": touch,
}


def change_input(bench: Bench, tested: Tested, draw: random.Random) -> tuple[str, str]:
    command = tested.command
    assert command.inputs
    saved = bench.folder / f"inputs-{command.inputs.name}"
    if not saved.exists():
        shutil.copytree(command.inputs, saved)
    how, between = draw.choice(sorted(CHANGES)), draw.random() < 0.5
    path = draw.choice(sorted(path for path in command.inputs.rglob("*") if path.is_file()))
    what = f"{command.name}: {how}, {'between kill and restart' if between else 'during the job'}"
    at = choose(tested, draw)
    name = f"{path.relative_to(command.inputs)} at {tested.events[at - 1]}"
    try:
        if between:
            bench.forks.run(command.argv, command.place, at=at, action=KILL)
            CHANGES[how](path, draw)
            ended = bench.again(tested)
        else:
            ended = bench.forks.run(command.argv, command.place, lambda: CHANGES[how](path, draw), at=at)
            if not ended.event:
                return what, NEVER
        if fault := tested.fault_of(ended):
            return what, f"{name}: {fault}"
        if ended.status == 0:
            return what, of_either_input(bench, tested, f"{name}: {ended.output[-1500:]}")
        line = ended.output.strip().rpartition("\n")[2]
        if not any(text in line for text in (path.name, "other input files", str(command.inputs))):
            return what, f"{name}: names no input: {line}"
    finally:
        restore(command.inputs, saved)
    wrong = bench.finish(tested)
    return what, f"{name}, restored: {wrong}" if wrong else REFUSED


def of_either_input(bench: Bench, tested: Tested, name: str) -> str:
    """Return SAME or NEW if the bytes are those of a job over the old or the new input, else what is wrong."""
    place = tested.command.place
    found = contents(place)
    if not difference(found, tested.expected):
        return SAME
    tested.command.prepare()
    ended = bench.again(tested)
    new = contents(place)
    # --work-dir keeps the tokens of other inputs, too.
    found = {path: digest for path, digest in found.items() if path in new or not path.startswith("work/")}
    if ended.status == 0 and not difference(found, new):
        return NEW
    differs = difference(found, new) if ended.status == 0 else ended.output[-500:]
    return f"{name}: of neither input: {differs}; old: {difference(found, tested.expected)}"


def restore(inputs: Path, saved: Path) -> None:
    """Make the inputs as they were, with their times."""
    shutil.rmtree(inputs)
    shutil.copytree(saved, inputs)


def run(folder: Path, seed: int, share: float, only: int | None = None) -> Iterator[Outcome]:
    return run_cases(CYCLE, NUM_CASES, change_input, (NEW, REFUSED), folder, seed, share, only)

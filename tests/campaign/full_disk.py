"""A disk that is full: a small tmpfs with few blocks or few inodes, or a limit on the size of files.

A job must end with one line that names a file and gives advice. With more room, it must finish with the same bytes. Where
mounting is not allowed, only the limit is used.
"""

import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.campaign.cases import OTHERS, SAME, TEXT, TRAINING, Bench, run_cases
from tests.campaign.cut_writes import temporary
from tests.campaign.forks import Ended
from tests.campaign.outcome import Outcome
from tests.campaign.verdict import Tested

NUM_CASES = 80
CYCLE = ("preprocess", "import", "preprocess --inputs", "pretrain", "preprocess --extend", "finetune", "export")
CYCLE += ("preprocess --validation-input", "preprocess", "export-data", "adapt-vocab", "build-vocab", "embed", "score")
assert {*CYCLE} == {*TEXT, *TRAINING, *OTHERS}
ENOUGH = "the room was enough; same digest"
WORDS = ("no space left on device", "file too large", "its disk has", "its disk can hold", "are free")


def mount(place: Path, *options: str) -> bool:
    """Mount a tmpfs, or mount it again with other options. Return whether that is allowed."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "campaign", str(place)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@cache
def may_mount(folder: Path) -> bool:
    """Return whether this process may mount a tmpfs."""
    place = folder / "try"
    place.mkdir(exist_ok=True)
    if mount(place, "size=1m"):
        subprocess.run(["umount", str(place)], check=True)
        return True
    return False


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    assert mount(place, *options)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill_disk(bench: Bench, tested: Tested, draw: random.Random) -> tuple[str, str]:
    command = tested.command
    bench.again(tested)  # for the sizes
    files = [path for path in command.place.rglob("*") if path.is_file()]
    sizes = sorted(path.stat().st_size for path in files)
    command.prepare()
    how = draw.choice(("blocks", "inodes", "size of files")) if may_mount(bench.folder) else "size of files"
    what = f"{command.name}: {how}"
    if how == "size of files":
        most = min(round(max(sizes) ** draw.random()), max(sizes))
        return what, judge(bench, tested, bench.forks.run(command.argv, command.place, max_file_bytes=most))
    blocks = max(2, sum(sizes) // 4096 + len(sizes))
    few = draw.randrange(1, blocks) if how == "blocks" else draw.randrange(2, 2 * len(sizes) + 9)
    # 0 means no limit, so the other one is large
    options = (f"nr_blocks={few}", "nr_inodes=100000") if how == "blocks" else ("nr_blocks=100000", f"nr_inodes={few}")
    with mounted(command.place, *options):
        ended = bench.forks.run(command.argv, command.place)
        mount(command.place, "remount", "nr_blocks=100000", "nr_inodes=100000")
        return what, judge(bench, tested, ended)


def judge(bench: Bench, tested: Tested, ended: Ended) -> str:
    place = tested.command.place
    if fault := tested.fault_of(ended):
        return fault
    if ended.status == 0:
        differs = tested.differs()
        return f"no notice: {differs}: {ended.output[-2000:]}" if differs else ENOUGH
    line = ended.output.strip().rpartition("\n")[2]
    # Files in the temporary folder may be too large, too.
    is_named = any(name in line for name in (str(place), "--out", tempfile.gettempdir()))
    if not is_named or not any(word in line.lower() for word in WORDS):
        return f"does not name the file or the full disk: {line}"
    if left := temporary(place):
        return f"left {left}: {line}"
    return bench.finish(tested) or SAME


def run(folder: Path, seed: int, share: float, only: int | None = None) -> Iterator[Outcome]:
    return run_cases(CYCLE, NUM_CASES, fill_disk, (ENOUGH,), folder, seed, share, only)

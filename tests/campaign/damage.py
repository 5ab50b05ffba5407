"""A job is killed, one of its files is damaged, and it is started again.

It must give the same bytes, or name the damaged file in one line; then the file is repaired, and the bytes must be the same.
A data set or run that was complete before the damage may stay as it is if `bertloom verify` names the file.
"""

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.campaign.cases import NEVER, SAME, Bench, run_cases
from tests.campaign.cut_writes import choose, kind
from tests.campaign.events import KILL
from tests.campaign.outcome import Outcome
from tests.campaign.verdict import Tested

NUM_CASES = 150
CYCLE = ("preprocess", "finetune", "preprocess --inputs", "pretrain", "preprocess --extend", "preprocess")
CYCLE += ("preprocess --validation-input", "pretrain", "preprocess --inputs")
NAMED = "refused with a line that names the file; same digest after its repair"
UNREAD = "files of --work-dir that were not read again stay damaged; all else is the same"
WARNED = "metrics are lost, and a warning names their file; all else is the same"
FOUND = "was complete before, and the command or verify names the file"


def flip_bit(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(max(1, len(data)))
    return data[:at] + bytes(byte ^ 1 << draw.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(max(1, len(data)))]


def swap_blocks(data: bytes, draw: random.Random) -> bytes:
    size = max(1, len(data) // 5)
    return data[:size] + data[2 * size : 3 * size] + data[size : 2 * size] + data[3 * size :]


OF_BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a flipped bit": flip_bit,
    "a cut": cut,
    "swapped blocks": swap_blocks,
    "an empty file": lambda data, draw: b"",
    "zeros": lambda data, draw: bytes(len(data)),
    "more bytes": lambda data, draw: data + data[-20:],
}
OTHERS = ("two swapped files", "another file's bytes", "a folder in its place", "a broken link in its place", "removed")


def damage(path: Path, how: str, others: list[Path], draw: random.Random) -> list[Path]:
    """Damage a file. Return the damaged files. others: files of the job of the same kind."""
    if how in OF_BYTES:
        path.write_bytes(OF_BYTES[how](path.read_bytes(), draw))
    elif how == "two swapped files":
        other = draw.choice(others)
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)
        return [path, other]
    elif how == "another file's bytes":
        path.write_bytes(draw.choice(others).read_bytes())
    else:
        path.unlink()
        if how == "a folder in its place":
            path.mkdir()
        elif how == "a broken link in its place":
            path.symlink_to("nowhere")
    return [path]


def damage_case(bench: Bench, tested: Tested, draw: random.Random) -> tuple[str, str]:
    place = tested.command.place
    bench.forks.run(tested.command.argv, place, at=choose(tested, draw), action=KILL)
    found = sorted(path for path in place.rglob("*") if path.is_file() and not path.name.startswith((".tmp-", ".lock")))
    if not found:
        return f"{tested.command.name}: no file to damage", NEVER
    saved = bench.folder / "saved"
    shutil.rmtree(saved, ignore_errors=True)
    shutil.copytree(place, saved, symlinks=True)
    how, damaged = damage_one(found, place, saved, draw)
    what, name = f"{tested.command.name}: {how}", f"{how} of {damaged[0].relative_to(place)}"
    ended = bench.again(tested)
    differs = tested.differs()
    if ended.status == 0 and not differs:
        return what, SAME
    kept = {one.relative_to(place).as_posix() for one in damaged if one.is_relative_to(place / "work")}
    if ended.status == 0 and set(differs.removeprefix("other bytes: ").split(", ")) <= kept:
        return what, UNREAD  # their checksums show it to the next job that reads them
    if ended.status == 0 and is_complete(saved, tested):
        is_said = any(is_named(one, place, line) for one in damaged for line in ended.output.splitlines())
        if is_said or verify_names(bench, tested, damaged):
            return what, FOUND
    if ended.status == 0 and re.fullmatch(r"(other bytes|missing): run/metrics\.jsonl", differs):
        return what, WARNED if "metrics.jsonl" in ended.output else f"{name}: no notice: {ended.output[-2000:]}"
    if ended.status == 0:
        return what, f"{name}: no notice: {differs}: {ended.output[-2000:]}"
    if fault := tested.fault_of(ended):
        return what, f"{name}: {fault}"
    line = ended.output.strip().rpartition("\n")[2]
    if not any(is_named(one, place, line) for one in damaged):
        return what, f"{name}: does not name it: {line}"
    repair(damaged, place, saved)
    wrong = bench.finish(tested)
    return what, f"{name}, repaired: {wrong}" if wrong else NAMED


def damage_one(found: list[Path], place: Path, saved: Path, draw: random.Random) -> tuple[str, list[Path]]:
    """Damage one of the files in a way that changes it. Return the way and the damaged files. saved: a copy of `place`."""
    kinds = {path: kind(f" {path}", place) for path in found}
    chosen = draw.choice(sorted(set(kinds.values())))
    path = draw.choice([path for path in found if kinds[path] == chosen])
    others = [other for other in found if other.suffix == path.suffix and other != path] or [path]
    ways = [*OF_BYTES, *OTHERS]
    for how in draw.sample(ways, len(ways)):  # "removed" changes any file, and zeros change no empty one
        damaged = damage(path, how, others, draw)
        if not all(is_same_file(one, saved / one.relative_to(place)) for one in damaged):
            return how, damaged
    raise AssertionError(path)


def is_same_file(path: Path, saved: Path) -> bool:
    """Return whether a path is a file with the bytes that it had before."""
    return path.is_file() and not path.is_symlink() and path.read_bytes() == saved.read_bytes()


def is_named(path: Path, place: Path, line: str) -> bool:
    """Return whether a line names a path, or a folder around it that is not the whole output of the job."""
    folders = [folder for folder in path.parents if place in folder.parents and folder.parent != place]
    return any(re.search(rf"{re.escape(str(one))}(?![/\w-])", line) for one in (path, *folders))


def repair(damaged: list[Path], place: Path, saved: Path) -> None:
    for path in damaged:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(saved / path.relative_to(place), path)


def is_complete(saved: Path, tested: Tested) -> bool:
    """Return whether the job had nothing left to do that a user sees."""
    ends = [name for name in tested.expected if name.endswith(("manifest.json", "results.json"))]
    ends = ends or sorted(name for name in tested.expected if name.endswith("/state.json"))[-1:]
    return bool(ends) and all((saved / name).exists() for name in ends)


def verify_names(bench: Bench, tested: Tested, damaged: list[Path]) -> bool:
    """Return whether `bertloom verify` names a damaged file of a data set or a run."""
    place = tested.command.place
    outputs = [(place / name).parent for name in tested.expected if name.endswith(("manifest.json", "config.toml"))]
    for output in outputs:
        ended = bench.forks.run(["verify", str(output)], bench.folder / "none")
        names = [str(path.relative_to(output)) for path in damaged if output in path.parents]
        if ended.status == 1 and any(name in ended.output for name in names):
            return True
    return False


def run(folder: Path, seed: int, share: float, only: int | None = None) -> Iterator[Outcome]:
    return run_cases(CYCLE, NUM_CASES, damage_case, (NAMED, FOUND, WARNED, UNREAD), folder, seed, share, only)

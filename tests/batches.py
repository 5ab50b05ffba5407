"""Mutants used one after the other in one process with limits, which costs a tenth of a process for each.

A process that ends, or takes too long, names the mutant that it was at, and another one goes on after it. Each fault is
tried again in a process of its own: see `tests/mutants.py`.
"""

import faulthandler
import io
import json
import mmap
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.mutants import Target, ending, fault, has_fault, limit_memory, remove

LONGEST_FAULT = 3000


@dataclass(frozen=True)
class Batch:
    """What became of some mutants."""

    number: int
    """How many inputs they had."""
    faults: tuple[str, ...]
    seconds: float


def batches(
    target: Target, number: int, seed: int, folder: Path, size: int = 200, only: int | None = None
) -> Iterator[Batch]:
    """Make and use mutants with a number of inputs in all. Mutants with faults stay in the folder.

    Args:
        size: the number of mutants of a process.
        only: number of the one batch to use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        original = target.prepare(folder / "originals")
    mutants = -(-number // target.inputs)
    for first in range(0, mutants, size)[slice(None) if only is None else slice(only, only + 1)]:
        begun = time.monotonic()
        chosen = range(first, min(first + size, mutants))
        found = tuple(_faults(target, original, chosen, seed, folder))
        yield Batch(min(len(chosen) * target.inputs, number - first * target.inputs), found, time.monotonic() - begun)


def _faults(target: Target, original: Any, chosen: range, seed: int, folder: Path) -> Iterator[str]:
    """Yield what is wrong with the mutants of these numbers."""
    place = mmap.mmap(-1, 8)
    while chosen:
        place[:8] = chosen.start.to_bytes(8, "little")
        with tempfile.TemporaryFile("w+", errors="replace") as found, tempfile.TemporaryFile("w+") as said:
            if (child := os.fork()) == 0:
                _use_all(target, original, chosen, seed, folder, place, found, said)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            found.seek(0)
            faults = [tuple(json.loads(line)) for line in found]
            at = int.from_bytes(place[:8], "little")
            if status:
                said.seek(0)
                faults.append((at, f"{ending(status)} {said.read(LONGEST_FAULT)}"))
        for number, text in faults:
            yield _tried_again(target, original, number, seed, folder, text)
        chosen = range(at + 1, chosen.stop) if status else range(0)
    place.close()


def _use_all(
    target: Target,
    original: Any,
    chosen: range,
    seed: int,
    folder: Path,
    place: mmap.mmap,
    found: IO[str],
    said: IO[str],
) -> None:
    """Use mutants and end this process."""
    status = 1
    try:
        os.dup2(said.fileno(), 2)  # what C code writes when it ends the process
        faulthandler.enable(said)
        faulthandler.register(signal.SIGALRM, said, chain=True)  # writes where the time was spent, and ends the process
        limit_memory()
        for number in chosen:
            place[:8] = number.to_bytes(8, "little")
            with tempfile.TemporaryFile("w+", errors="replace") as why:
                mutant, draw = _make(target, original, number, seed, folder)
                if has_fault(target, mutant, target.uses(original, mutant, draw), why):
                    why.seek(0)
                    found.write(json.dumps([number, f"error {why.read()[-LONGEST_FAULT:]}"]) + "\n")
                    found.flush()
                else:
                    remove(mutant)
        status = 0
    finally:
        said.flush()
        os._exit(status)


def _make(target: Target, original: Any, number: int, seed: int, folder: Path) -> tuple[Path, random.Random]:
    """Make the mutant of a number. It is the same in every process."""
    draw = random.Random(f"{seed} {number}")
    return target.mutate(original, folder / f"{number:06d}", draw), draw


def _tried_again(target: Target, original: Any, number: int, seed: int, folder: Path, text: str) -> str:
    """Return what is wrong with a mutant, and whether a process of its own shows it."""
    for path in folder.glob(f"{number:06d}*"):
        remove(path)
    mutant, draw = _make(target, original, number, seed, folder)
    alone = fault(target, mutant, target.uses(original, mutant, draw))
    return f"{mutant}: {text}" if alone else f"{mutant}: only after the mutants before it: {text}"

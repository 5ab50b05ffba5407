"""The parts of the campaign: each is a module of this folder.

A part has a function `run(folder, seed, share, only=None)`, an iterator of `Outcome`. It works in `folder`, an empty one. A
case depends on `seed` and on its index alone, and in the part `fuzz` on `share`, too. `share` is the amount: 1.0 is a whole
campaign. With `only` it runs the case of this index and no other one.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path

from tests.campaign.outcome import Outcome

PARTS = {
    "kills": "Processes of a job are killed at random moments, and the job is started again.",
    "cut_writes": "Each kind of write of a job, in every stage, fails or is cut: a full disk, a full quota, a broken disk.",
    "full_disk": "The disk of a job is too small, in blocks or in files, or no file may grow beyond a size.",
    "damage": "A job is killed, one of its files is damaged, and the job is started again.",
    "changing_inputs": "An input changes while a job runs, or between a kill and the restart.",
    "clock": "The clock jumps by hours or years while a job runs, or between a kill and the restart.",
    "fuzz": "Files, texts and settings are changed and used: no traceback that is not ours, no crash, no hang.",
}
"""Name of a part -> what it does, for the report."""


def run_part(name: str, folder: Path, seed: int, share: float, only: int | None = None) -> Iterator[Outcome]:
    """Yield the outcomes of a part, in the order of their indices."""
    part = importlib.import_module(f"tests.campaign.{name}")
    yield from part.run(folder, seed, share, **({} if only is None else {"only": only}))

"""The parts of the campaign: each is a module of this folder.

A part has a function `run(folder, seed, share, only=None)`, an iterator of `Outcome`. It works in `folder`, an empty one. A
case depends on `seed` and on its index alone. `share` is the amount: 1.0 is a whole campaign. With `only` it runs the case
of this index and no other one.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path

from tests.campaign.outcome import Outcome

PARTS = {
    "kills": "Processes of a job are killed at random moments, and the job is started again.",
}
"""Name of a part -> what it does, for the report."""


def run_part(name: str, folder: Path, seed: int, share: float, only: int | None = None) -> Iterator[Outcome]:
    """Yield the outcomes of a part, in the order of their indices."""
    part = importlib.import_module(f"tests.campaign.{name}")
    yield from part.run(folder, seed, share, **({} if only is None else {"only": only}))

"""What the parts that inject faults share: which command a case is of, and how its end is judged."""

import random
import re
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.campaign.commands import Command, make_commands
from tests.campaign.events import missing
from tests.campaign.forks import Ended, Forks
from tests.campaign.outcome import Outcome
from tests.campaign.verdict import Tested, undisturbed

SAME = "same digest"
NEVER = "the job ended before it"
TEXT = ("preprocess", "preprocess --inputs", "preprocess --extend", "preprocess --validation-input")
TRAINING = ("pretrain", "finetune")
OTHERS = ("export", "import", "adapt-vocab", "export-data", "build-vocab", "embed", "score")


class Bench:
    """The commands of a part, each run without faults when a case first needs it."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self.folder, self.forks = folder, forks
        self.commands: dict[str, Command] = make_commands(folder / "data", self._make)
        self.tested: dict[str, Tested] = {}

    def __getitem__(self, name: str) -> Tested:
        if name not in self.tested:
            self.tested[name] = undisturbed(self.commands[name], self.forks, self.folder)
        return self.tested[name]

    def _make(self, argv: list[str]) -> None:
        ended = self.forks.run(argv, self.folder / "none")
        assert ended.status == 0, ended.output

    def again(self, tested: Tested) -> Ended:
        """Run the command once more, without a fault."""
        return self.forks.run(tested.command.argv, tested.command.place)

    def finish(self, tested: Tested) -> str:
        """Start the command again after a fault. Return what is wrong; an empty text if it gave the same bytes."""
        ended = self.again(tested)
        differs = tested.differs()
        if not differs and (ended.status == 0 or re.search(r"already|exists: give another", ended.output)):
            return ""
        fault = tested.fault_of(ended)
        return fault or f"after the restart (status {ended.status}): {differs}: {ended.output[-2000:]}"


Case = Callable[[Bench, Tested, random.Random], tuple[str, str]]
"""Runs a case of a command and returns what was done, and what is wrong or one of the results."""


def run_cases(
    cycle: Sequence[str],
    total: int,
    case: Case,
    results: Sequence[str],
    folder: Path,
    seed: int,
    share: float,
    only: int | None,
) -> Iterator[Outcome]:
    """Yield the outcomes of a part.

    Args:
        cycle: names of commands. Case i is of the command i of the cycle, which begins again at its end.
        total: number of cases of a whole campaign.
        results: what a case may return if nothing is wrong, besides SAME.
    """
    if reason := missing():
        yield Outcome("no case", f"not run: {reason}", 0, count=0)
        return
    indices = range(max(1, round(total * share))) if only is None else [only]
    with Forks(folder / "forks") as forks:
        bench = Bench(folder, forks)
        for index in indices:
            name = cycle[index % len(cycle)]
            tested, began = bench[name], time.monotonic()
            draw = random.Random(f"{seed} {index}")
            try:
                tested.command.prepare()
                what, result = case(bench, tested, draw)
            except Exception:
                what, result = name, traceback.format_exc()
            seconds, is_fault = time.monotonic() - began, result not in (SAME, NEVER, *results)
            if is_fault:
                shutil.copytree(tested.command.place, folder / f"fault-{index}", symlinks=True)
            yield Outcome(what, result, seconds, is_fault)

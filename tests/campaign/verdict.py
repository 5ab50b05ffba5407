"""Whether a case ended well: the bytes of an undisturbed command after a restart, or one line that names what is wrong."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.runs.metrics import TIMING_KEYS
from tests.campaign.commands import Command
from tests.campaign.forks import HANGS, Ended, Forks

LONGEST_LINE = 2500


def contents(place: Path) -> dict[str, str]:
    """Return path -> digest of all files below a folder, the hidden ones too; "" for a folder.

    What depends on the clock is left out of the files of runs, and so is the holder of a run's lock.
    """
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_symlink():
            found[name] = f"a link to {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(_without_times(path)).hexdigest()
        else:
            found[name] = ""
    return found


def _without_times(path: Path) -> bytes:
    data = path.read_bytes()
    with suppress(ValueError, TypeError):  # a case has damaged the file
        if path.name == "metrics.jsonl":
            return repr([_timeless(json.loads(line)) for line in data.splitlines()]).encode()
        if path.name == "state.json":
            return repr({**_timeless(json.loads(data)), "sha256": ""}).encode()
    return b"" if path.name == ".lock" and path.parent.name == "run" else data


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(one) for name, one in value.items() if name not in (*TIMING_KEYS, "evaluation_seconds")}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def difference(found: Mapping[str, object], expected: Mapping[str, object]) -> str:
    """Return what differs from an undisturbed command; an empty text if nothing does."""
    parts = {
        "foreign": found.keys() - expected.keys(),
        "missing": expected.keys() - found.keys(),
        "other bytes": {name for name in found.keys() & expected.keys() if found[name] != expected[name]},
    }
    return "; ".join(f"{what}: {', '.join(sorted(names)[:4])}" for what, names in parts.items() if names)


@dataclass(frozen=True)
class Tested:
    """A command, and what it writes if nothing disturbs it."""

    command: Command
    expected: dict[str, str]
    events: list[str]
    """What it writes, in order: lines of a kind and a path."""

    def fault_of(self, ended: Ended) -> str:
        """Return what is wrong with how the command ended after a fault; an empty text if nothing is."""
        lines = ended.output.strip().splitlines() or [""]
        if ended.status == HANGS:
            return f"hangs: {lines[-1]}"
        faults = []
        if "Traceback" in ended.output:
            faults.append("traceback")
        if "bug in bertloom" in ended.output:
            faults.append("called a bug")
        if ended.status not in (0, 2):
            faults.append(f"exit status {ended.status}")
        if ended.status == 2 and not lines[-1].startswith(f"bertloom {self.command.argv[0]}: error: "):
            faults.append("no line of error at the end")
        if len(lines[-1]) > LONGEST_LINE:
            faults.append("a long line")
        return f"{', '.join(faults)}: {ended.output[-3000:]}" if faults else ""

    def differs(self) -> str:
        """Return what differs from what an undisturbed command writes."""
        return difference(contents(self.command.place), self.expected)


def undisturbed(command: Command, forks: Forks, folder: Path) -> Tested:
    """Run a command twice, which has to give the same bytes. folder: for the list of its events."""
    log = folder / f"events-{command.place.name}"
    found = []
    for _ in range(2):
        command.prepare()
        log.unlink(missing_ok=True)
        ended = forks.run(command.argv, command.place, log=log)
        assert ended.status == 0, ended.output
        found.append(contents(command.place))
    assert not (varying := difference(found[0], found[1])), f"{command.name} varies: {varying}"
    return Tested(command, found[0], log.read_text(errors="replace").splitlines())

"""Run trainings in processes of their own: start the ranks, end them at a time limit, and read what they wrote down."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loader_conformance.comparison import Outcome, Step, compare
from loader_conformance.interface import OURS, loader_of
from loader_conformance.scenarios import SETS, Part, Scenario

BENCHMARKS = Path(__file__).parent.parent
TIME_LIMIT_SECONDS = 120
EXIT_SECONDS = 5
"""Time that ranks have to end after their last step. How a loader ends is not compared."""


class Refused(Exception):
    """A rank ended with an error."""


class Hangs(Exception):
    """A training did not end in time."""


@dataclass
class Trainings:
    """The trainings of a loader. Parts that scenarios have in common run once."""

    name: str
    folder: Path
    rivals_python: Path
    """Python of the environment that has the rivals."""
    time_limit: float = TIME_LIMIT_SECONDS
    ran: dict[tuple[Any, ...], Path | Exception] = field(default_factory=dict)

    def write(self) -> None:
        """Write the sets in the loader's format."""
        sets = [(str(self.folder / name), rows.first, rows.size) for name, rows in SETS.items()]
        out = self.folder / "writing"
        self._run({"action": "write", "sets": sets}, out, 1, None)

    def outcome(self, scenario: Scenario) -> Outcome:
        """Return how a scenario ends."""
        if reason := loader_of(self.name).LACKS.get(scenario.key):
            return Outcome(kind="not offered", message=reason)
        try:
            expected = self.steps(scenario, [scenario.uninterrupted])
            found = self.steps(scenario, scenario.parts)
        except Refused as error:
            return Outcome(kind="refused", message=str(error))
        except Hangs as error:
            return Outcome(kind="hangs", message=str(error))
        return compare(expected, found)

    def steps(self, scenario: Scenario, parts: Sequence[Part]) -> list[Step]:
        """Return the steps of a training in parts."""
        steps: list[Step] = []
        for number in range(1, len(parts) + 1):
            out = self._part(scenario, tuple(parts[:number]))
            steps += steps_in(out, parts[number - 1])
        return steps

    def _part(self, scenario: Scenario, parts: tuple[Part, ...]) -> Path:
        """Run the last of these parts, unless it ran already, and return its folder."""
        key = (scenario.global_batch, scenario.num_epochs, scenario.max_steps, scenario.sets, parts)
        if key not in self.ran:
            try:
                checkpoint = self._part(scenario, parts[:-1]) if parts[:-1] else None
                self.ran[key] = self._start(scenario, parts[-1], checkpoint)
            except (Refused, Hangs) as error:
                self.ran[key] = error
        result = self.ran[key]
        if isinstance(result, Exception):
            raise result
        return result

    def _start(self, scenario: Scenario, part: Part, checkpoint: Path | None) -> Path:
        setting = {
            "folders": [str(self.folder / name) for name in scenario.sets],
            "global_batch": scenario.global_batch,
            "micro_batch": part.micro_batch,
            "num_ranks": part.num_ranks,
            "num_workers": part.num_workers,
        }
        job = {
            "action": "train",
            "setting": setting,
            "checkpoint": str(checkpoint) if checkpoint else None,
            "num_epochs": scenario.num_epochs,
            "max_steps": scenario.max_steps,
            "stop": part.stop,
            "kill": part.kill,
        }
        out = self.folder / f"part{len(self.ran):02d}"
        self._run(job, out, part.num_ranks, part.kill)
        return out

    def _run(self, job: Mapping[str, Any], out: Path, num_ranks: int, kill: int | None) -> None:
        """Run the ranks of a job to their end, or until SIGKILL after this number of steps."""
        out.mkdir(parents=True)
        (out / "job.json").write_text(json.dumps({**job, "loader": self.name, "out": str(out)}))
        python = sys.executable if self.name in OURS else str(self.rivals_python)
        command = [python, "-m", "loader_conformance.rank_process", str(out / "job.json")]
        port = free_port()
        processes = []
        with open(out / "output.txt", "w") as output:
            for rank in range(num_ranks):
                environment = environment_of(self.name, rank, num_ranks, port)
                processes.append(
                    subprocess.Popen(
                        command, env=environment, cwd=out, stdout=output, stderr=output, start_new_session=True
                    )
                )
        try:
            self._wait(processes, out, kill)
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _wait(self, processes: list[subprocess.Popen[bytes]], out: Path, kill: int | None) -> None:
        """Return when all ranks ended well, or when it is time to kill them."""
        end, done_at = time.monotonic() + self.time_limit, None
        while True:
            done = [(out / f"done-{rank}").exists() for rank in range(len(processes))]
            if done_at is None and all(done):
                done_at = time.monotonic()
            if done_at and time.monotonic() > done_at + EXIT_SECONDS:
                return
            statuses = [0 if ended else process.poll() for process, ended in zip(processes, done)]
            if any(statuses):
                # The first one: ranks that lose the connection to it fail, too.
                errors = sorted(out.glob("error-*.txt"), key=lambda path: path.stat().st_mtime_ns)
                raise Refused(errors[0].read_text() if errors else f"exit status {max(filter(None, statuses))}")
            if all(process.poll() is not None for process in processes):
                return
            lines = out / "steps-0.jsonl"
            if kill and lines.exists() and lines.read_text().count("\n") == kill:
                return
            if time.monotonic() > end:
                raise Hangs(f"no end after {self.time_limit:.0f} s")
            time.sleep(0.02)


def steps_in(out: Path, part: Part) -> list[Step]:
    """Return the steps that the ranks of a part wrote down, up to its stop."""
    by_rank = [
        [json.loads(line) for line in (out / f"steps-{rank}.jsonl").read_text().splitlines()]
        for rank in range(part.num_ranks)
    ]
    if part.kill and part.stop:
        by_rank = [lines[: len(lines) - (part.kill - part.stop)] for lines in by_rank]
    steps = []
    for number in range(max(map(len, by_rank))):
        lines = [lines[number] for lines in by_rank if number < len(lines)]
        places = None if lines[0]["places"] is None else [line["places"] for line in lines]
        steps.append(Step(epoch=lines[0]["epoch"], rows=[line["rows"] for line in lines], places=places))
    return steps


def environment_of(name: str, rank: int, num_ranks: int, port: int) -> dict[str, str]:
    """Return the environment of a rank: what torchrun sets, and where the modules are."""
    roots = [BENCHMARKS, BENCHMARKS.parent] if name in OURS else [BENCHMARKS]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, roots)),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def free_port() -> int:
    """Return a port that no process uses now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])

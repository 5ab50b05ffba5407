"""Rows per second of each loader: real text, one core, no worker processes, batches as padded int64 tensors.

The rows are the first copy of a data set of bertloom. The other loaders get their token ids alone; bertloom's batches also
hold the masked words, the segments and the labels of pairs.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loader_conformance.interface import OURS
from loader_conformance.training import environment_of

BATCH = 64
NOT_PADDED = "bertloom pretrain"
"""This loader packs rows end to end, without padding, for the model of bertloom. It is in the table, but the
others are not compared with it."""
BASE = "bertloom ShardDataset"


@dataclass(kw_only=True)
class Rates:
    """Rows per second of a loader in each round."""

    name: str
    whole: list[float] = field(default_factory=list)
    """Of the whole process, from its start to its end."""
    steady: list[float] = field(default_factory=list)
    """After the first batch."""


def measure(names: list[str], data: Path, folder: Path, rivals_python: Path, num_rows: int, rounds: int) -> list[Rates]:
    """Return the rates of the loaders.

    Raises:
        SystemExit: a loader cannot write or read the rows.
    """
    rows = export_rows(data, folder / "rows.npz")
    count = min(num_rows, rows) // BATCH * BATCH
    rates = []
    for name in names:
        job = {"loader": name, "folder": str(data if name in OURS else folder / name), "count": count}
        if name not in OURS:
            run({**job, "action": "write", "rows": str(folder / "rows.npz")}, name, folder, rivals_python)
        rates.append(Rates(name=name))
    for number in range(rounds + 1):
        for found in rates:
            path = data if found.name in OURS else folder / found.name
            job = {"loader": found.name, "folder": str(path), "count": count, "action": "read"}
            begun = time.perf_counter()
            seconds = float(run(job, found.name, folder, rivals_python))
            if number:  # the first round brings files into memory
                found.whole.append(count / (time.perf_counter() - begun))
                found.steady.append((count - BATCH) / seconds)
    return rates


def export_rows(data: Path, path: Path) -> int:
    """Write the token ids of the first copy of a data set to a file, and return the number of rows."""
    from model.loading.data import DataSet

    examples = DataSet(data).examples("train", None)
    numbers = np.arange(examples.rows_per_copy[0])
    columns = examples.read(np.zeros_like(numbers), numbers)
    np.savez(path, ids=columns["input_ids"].astype(np.uint16), lengths=columns["lengths"])
    return len(numbers)


def run(job: dict[str, object], name: str, folder: Path, rivals_python: Path) -> str:
    """Run `speed_process` on one core and return what it prints."""
    path = folder / "speed.json"
    path.write_text(json.dumps(job))
    python = sys.executable if name in OURS else str(rivals_python)
    command = [python, "-m", "loader_conformance.speed_process", str(path)]
    environment = {key: value for key, value in environment_of(name, 0, 1, 0).items() if not key.startswith("MASTER")}
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        command,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        raise SystemExit(f"{name} cannot {job['action']} the rows:\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1]


def table(rates: list[Rates]) -> list[str]:
    """Return the lines of the table of rates."""
    base = next(found for found in rates if found.name == BASE)
    lines = [
        "| loader | rows per second, whole process | ratio | after the first batch | ratio |",
        "|---|---|---|---|---|",
    ]
    for found in rates:
        cells = [found.name + (" (packed, not padded)" if found.name == NOT_PADDED else "")]
        for values, theirs in ((found.whole, base.whole), (found.steady, base.steady)):
            ratio = statistics.median(value / other for value, other in zip(values, theirs))
            cells += [f"{statistics.median(values):,.0f} [{min(values):,.0f}, {max(values):,.0f}]", f"{ratio:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines

"""Compare loaders: which rows do they read after a training stopped and resumed, and how fast are they?

    python benchmarks/loader_conformance
    python benchmarks/loader_conformance --loaders litdata grain --rivals-python .venv-rivals/loaders/bin/python

Every loader reads the same rows, written in its own format. Each scenario stops a training in the middle of an epoch
and resumes it; trainings run in processes of their own, and `kill -9` is SIGKILL. The ordered rows of each global batch are
compared with those of the same loader without a stop. `make conformance` also makes the environment of the rivals. The
report goes to benchmarks/results/loader_conformance.md, and its tables to docs/loader-conformance.md, which explains it.
With another --name the page stays as it is.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_train import sample_data_set
from setting import ROOT, header, write_report

from loader_conformance import speed
from loader_conformance.comparison import Outcome
from loader_conformance.interface import LOADERS, OURS, loader_of
from loader_conformance.scenarios import SCENARIOS
from loader_conformance.table import outcome_table, summary
from loader_conformance.training import TIME_LIMIT_SECONDS, Hangs, Refused, Trainings

RIVALS_PYTHON = ".venv-rivals/loaders/bin/python"
NAME = "loader_conformance"
PAGE = ROOT / "docs" / "loader-conformance.md"
LAST_RESULT = "## The last result"
ABSENT = (
    "ffcv 1.0.2: pip must build it, and its set-up needs the C++ libraries OpenCV and libturbojpeg",
    "megatron-energon 7.4.1: has a wheel for Python 3.11, but no file in benchmarks/loader_conformance/loaders/ yet",
    "torchdata 0.11.0: has no loader of shards of its own; its StatefulDataLoader reads the columns of datasets",
)
"""Other loaders, and why they have no column."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loaders", nargs="+", choices=LOADERS, default=list(LOADERS), help="default: all")
    parser.add_argument("--scenarios", nargs="+", choices=[s.key for s in SCENARIOS], help="default: all")
    parser.add_argument(
        "--rivals-python",
        type=Path,
        default=Path(os.environ.get("LOADERS_PYTHON", ROOT / RIVALS_PYTHON)),
        help=f"Python with benchmarks/rivals/loaders.txt; default: LOADERS_PYTHON or {RIVALS_PYTHON}",
    )
    parser.add_argument("--data", type=Path, help="data set for the rates; default: one made from the shipped sample")
    parser.add_argument("--rows", type=int, default=20_000, help="rows in a round of the rates")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the rates; 0 leaves them out")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT_SECONDS, help="seconds until a part `hangs`")
    parser.add_argument("--name", default=NAME, help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    rivals = [name for name in arguments.loaders if name not in OURS]
    if rivals and not arguments.rivals_python.exists():
        raise SystemExit(f"{arguments.rivals_python} does not exist: run `make conformance`, or give --rivals-python")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = {name: outcomes_of(name, Path(folder), arguments) for name in arguments.loaders}
        rates = rates_of(Path(folder), arguments) if arguments.rounds else []
    minutes = (time.monotonic() - begun) / 60
    versions = versions_of(rivals, arguments.rivals_python)
    lines = header(
        "Loaders that stop and resume",
        f"Trainings on 1,152 rows (or 1,210) in 8 files or more; docs/loader-conformance.md explains the "
        f"outcomes and the settings. The command took {minutes:.0f} minutes.",
        "torch",
    )
    lines += [f"Loaders: {', '.join(versions)}", "", *outcome_table(outcomes), ""]
    lines += [f"Exact: {summary(outcomes)}.", "", "Not compared:", "", *(f"- {reason}" for reason in ABSENT)]
    lines += ["", "## Rows per second", "", *rates] if rates else []
    write_report(arguments.name, lines, is_sample=False)
    if arguments.name == NAME:
        update_page(lines)


def update_page(report: list[str]) -> None:
    """Copy the tables and notes of a report to the page, after its last heading."""
    head = PAGE.read_text(encoding="utf-8").partition(LAST_RESULT)[0]
    tables = report[next(number for number, line in enumerate(report) if line.startswith("Loaders: ")) :]
    shown = [line.replace("## ", "### ", 1) if line.startswith("## ") else line for line in tables]
    PAGE.write_text("\n".join([head + LAST_RESULT, "", *shown]).rstrip() + "\n", encoding="utf-8")


def outcomes_of(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Outcome]:
    """Return the outcome of each scenario."""
    chosen = [s for s in SCENARIOS if not arguments.scenarios or s.key in arguments.scenarios]
    place = folder / name.replace(" ", "-").replace(",", "")
    trainings = Trainings(
        name=name, folder=place, rivals_python=arguments.rivals_python, time_limit=arguments.time_limit
    )
    try:
        trainings.write()
    except (Refused, Hangs) as error:
        raise SystemExit(f"{name} cannot write the rows: {error}") from None
    found = {}
    for scenario in chosen:
        found[scenario.key] = trainings.outcome(scenario)
        print(f"{name}, {scenario.title}: {found[scenario.key]}", file=sys.stderr, flush=True)
    return found


def rates_of(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Return the lines about the rates."""
    (folder / "speed").mkdir()
    data = arguments.data.resolve() if arguments.data else sample_data_set(folder / "speed")
    names = list(dict.fromkeys([speed.BASE, *arguments.loaders]))
    rates = speed.measure(names, data, folder / "speed", arguments.rivals_python, arguments.rows, arguments.rounds)
    text = "the given data set" if arguments.data else "the shipped sample"
    about = (
        f"Real text ({text}), batches of {speed.BATCH}, one core, no worker processes: medians [least, most] of "
        f"{arguments.rounds} interleaved rounds, and the median of the rounds' ratios to {speed.BASE}. Its batches "
        f"also hold the masked words, segments and labels; the others hold token ids alone."
    )
    return [about, "", *speed.table(rates)]


def versions_of(rivals: list[str], python: Path) -> list[str]:
    """Return the name and version of each package of the rivals."""
    packages = list(dict.fromkeys(package for name in rivals for package in loader_of(name).PACKAGES))
    if not packages:
        return ["bertloom of this commit"]
    code = "import sys; from importlib.metadata import version\nfor name in sys.argv[1:]: print(name, version(name))"
    done = subprocess.run([str(python), "-c", code, *packages], capture_output=True, text=True, check=True)
    return ["bertloom of this commit", *done.stdout.splitlines()]


if __name__ == "__main__":
    main()

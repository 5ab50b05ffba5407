"""What the benchmarks share: their input text, the cores they use, the head of a report, and the file it goes to."""

import argparse
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

ROOT = Path(__file__).parent.parent
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
SAMPLE = str(ROOT / "jobs" / "sample" / "en.jsonl")


def add_text_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", nargs="*", help="text, as for `bertloom preprocess`; default: the shipped sample")
    parser.add_argument("--vocab", help="vocabulary; default: one made from the input")


def inputs_of(arguments: argparse.Namespace) -> list[str]:
    return arguments.input or [SAMPLE]


def vocabulary_of(arguments: argparse.Namespace, folder: Path) -> str:
    """Return the path of the given vocabulary, or of one made from the input."""
    if arguments.vocab:
        return arguments.vocab
    path = str(folder / "vocab.txt")
    run_command("build-vocab", "--input", *inputs_of(arguments), "--vocab-size", "8000", "--out", path)
    return path


def run_command(*words: str) -> None:
    """Run `bertloom` with these words and drop its standard output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobs.cli", *words]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def in_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call the function in a new process and return its result, so that no cache is warm before or after."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def pin(number: int) -> None:
    """Limit this process, and those that it starts from now on, to this number of cores, if the system can do that."""
    if CORES and len(CORES) < number:
        raise SystemExit(f"this benchmark needs {number} cores, and this machine offers {len(CORES)}")
    if CORES:
        os.sched_setaffinity(0, CORES[-number:])


def header(title: str, what: str, *packages: str) -> list[str]:
    """Return the first lines of a report: what was measured, when, with which command and on which machine."""
    words = [word if "/" not in word else "/".join(word.split("/")[-2:]) for word in sys.argv[1:]]
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
    return [
        f"# {title}, {time.strftime('%Y-%m-%d')}",
        "",
        what,
        "",
        f"`{command}`, commit {commit()}",
        "",
        machine(*packages),
        "",
    ]


def commit() -> str:
    """Return the commit of this folder."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    found = ""
    with suppress(FileNotFoundError):  # git is not installed
        found = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    return found or "of a release"


def machine(*packages: str) -> str:
    """Return the processor and the versions of Python and these packages."""
    software = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{_processor()}; Python {platform.python_version()}, {software}"


def write_report(name: str, lines: list[str], is_sample: bool) -> None:
    """Print a report and write it to benchmarks/results/. A report on the shipped sample has a file of its own."""
    report = "\n".join(lines) + "\n"
    print(report)
    (ROOT / "benchmarks" / "results" / f"{name}{'-sample' * is_sample}.md").write_text(report, encoding="utf-8")


def spread(values: list[float]) -> str:
    """Return the median of these seconds and their range."""
    return f"{statistics.median(values):.4g} [{min(values):.4g}, {max(values):.4g}]"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"

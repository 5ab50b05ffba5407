"""What the benchmarks share: the text that they run on, their cores, what they ran with, and where the report goes."""

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
    """The path of the vocabulary that was given, or of one made from the input."""
    if arguments.vocab:
        return arguments.vocab
    path = str(folder / "vocab.txt")
    run_command("build-vocab", "--input", *inputs_of(arguments), "--vocab-size", "8000", "--out", path)
    return path


def run_command(*words: str) -> None:
    """`bertloom` with these words; what it writes to standard output is dropped."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobs.cli", *words]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def in_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """What the function gives back, called in a new process: nothing is warm, and nothing stays."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def pin(number: int) -> None:
    """Keeps this process, and those that it starts from now on, on so many cores, where the system can do that."""
    if CORES and len(CORES) < number:
        raise SystemExit(f"this needs {number} cores, and here are {len(CORES)}")
    if CORES:
        os.sched_setaffinity(0, CORES[-number:])


def header(title: str, what: str, *packages: str) -> list[str]:
    """The first lines of a report: what was measured, when, by which command, on what."""
    words = [word if "/" not in word else "/".join(word.split("/")[-2:]) for word in sys.argv[1:]]
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "of a release"
    software = ", ".join(f"{name} {version(name)}" for name in packages)
    return [
        f"# {title}, {time.strftime('%Y-%m-%d')}",
        "",
        what,
        "",
        f"`{command}`, commit {commit}",
        "",
        f"{_processor()}; Python {platform.python_version()}, {software}",
        "",
    ]


def write_report(name: str, lines: list[str], is_sample: bool) -> None:
    """Prints a report and puts it into benchmarks/results/; one on the shipped sample never over a better one."""
    report = "\n".join(lines) + "\n"
    print(report)
    (ROOT / "benchmarks" / "results" / f"{name}{'-sample' * is_sample}.md").write_text(report, encoding="utf-8")


def spread(values: list[float]) -> str:
    """The median of seconds, and their range."""
    return f"{statistics.median(values):.4g} [{min(values):.4g}, {max(values):.4g}]"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"

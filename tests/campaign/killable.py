"""The jobs that the campaign kills, how each is started, and what of its output is compared."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.campaign import preprocess_jobs, training_jobs
from tests.campaign.corpora import write_vocabulary

CLI = ["-m", "jobs.cli"]


@dataclass(frozen=True)
class Killable:
    """A job over its corpus, with any folder for its output."""

    name: str
    num_processes: tuple[int, ...]
    """Numbers of worker processes or ranks that the job may be started with: the output is the same."""
    command: Callable[[Path, int], list[str]]
    """(folder for the output, number of processes) -> command line."""
    contents: Callable[[Path], dict[str, object]]
    """What an unbroken job and one that was killed must have in common: (name, value) of each part."""
    faults: Callable[[Path], list[str]]
    """What `bertloom verify` finds."""
    in_ranks: bool = False
    """Whether the processes are ranks, which torchrun starts."""


def names() -> list[str]:
    """Return the names of all jobs; jobs in ranks and others are mixed."""
    ours = [f"preprocess {kind}" for kind in preprocess_jobs.KINDS]
    return [*ours, *(training_name(kind) for kind in training_jobs.KINDS)]


def training_name(kind: str) -> str:
    num_ranks, _ = training_jobs.KINDS[kind]
    return f"pretrain {kind.strip()}, {num_ranks} rank{'s' * (num_ranks > 1)}"


def make(name: str, folder: Path) -> Killable:
    """Make the corpus of a job in `folder`, and the vocabulary of all jobs beside it."""
    vocabulary = folder.parent / "vocab.txt"
    folder.mkdir(parents=True)
    if not vocabulary.exists():
        write_vocabulary(vocabulary)
    for kind, options in preprocess_jobs.KINDS.items():
        if name == f"preprocess {kind}":
            return preprocess_job(name, options(folder), vocabulary)
    for kind, (num_ranks, options) in training_jobs.KINDS.items():
        if name == training_name(kind):
            return training_job(name, options(folder), num_ranks)
    raise ValueError(f"no job {name!r}: expected one of {names()}")


def preprocess_job(name: str, options: list[str], vocabulary: Path) -> Killable:
    given = options if "--extend" in options else [*options, "--vocab", str(vocabulary)]

    def command(folder: Path, num_workers: int) -> list[str]:
        return [sys.executable, *CLI, *preprocess_jobs.words(given, folder, num_workers)]

    return Killable(name, (1, 2), command, preprocess_jobs.contents, preprocess_jobs.faults)


def training_job(name: str, options: list[str], num_ranks: int) -> Killable:
    launcher = training_jobs.TORCHRUN if num_ranks > 1 else []

    def command(folder: Path, num_processes: int) -> list[str]:
        words = ["pretrain", *options, *training_jobs.FLAGS, "--out", f"{folder}/out"]
        return [sys.executable, *launcher, *CLI, *words]

    contents, faults = training_jobs.contents, training_jobs.faults
    return Killable(name, (num_ranks,), command, contents, faults, in_ranks=num_ranks > 1)

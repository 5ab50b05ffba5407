"""The jobs that the campaign kills, and what of their output is compared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.campaign import preprocess_jobs, training_jobs
from tests.campaign.corpora import write_vocabulary
from tests.campaign.verdict import contents


@dataclass(frozen=True)
class Killable:
    """A job over its corpus, with any folder for its output."""

    name: str
    words: Callable[[Path, int], list[str]]
    """(folder for the output, number of worker processes) -> the command line of `bertloom`."""
    contents: Callable[[Path], Mapping[str, object]]
    """Folder -> what an unbroken job and one that was killed have in common: (name, value) of each part."""
    faults: Callable[[Path], list[str]]
    """Folder -> what `bertloom verify` finds."""
    num_workers: tuple[int, ...] = (1,)
    """Numbers of worker processes that the job may have: the output is the same."""
    num_ranks: int = 1


def names() -> list[str]:
    """Return the names of all jobs."""
    return [f"preprocess {kind}" for kind in preprocess_jobs.KINDS] + [
        f"pretrain {kind}" for kind in training_jobs.KINDS
    ]


def make(name: str, folder: Path) -> Killable:
    """Make the corpus of a job in `folder`, and the vocabulary of all jobs in its parent folder."""
    vocabulary = folder.parent / "vocab.txt"
    folder.mkdir(parents=True)
    if not vocabulary.exists():
        write_vocabulary(vocabulary)
    command, _, kind = name.partition(" ")
    if command == "preprocess":
        options = preprocess_jobs.KINDS[kind](folder)
        given = options if "--extend" in options else [*options, "--vocab", str(vocabulary)]
        faults = preprocess_jobs.faults
        return Killable(name, lambda out, number: preprocess_jobs.words(given, out, number), contents, faults, (1, 2))
    num_ranks, make_options = training_jobs.KINDS[kind]
    options = make_options(folder)
    compared, faults = training_jobs.contents, training_jobs.faults
    return Killable(name, lambda out, _: training_jobs.words(options, out), compared, faults, num_ranks=num_ranks)

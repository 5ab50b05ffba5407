"""Verifies a data set or a run.

    bertloom verify DATASET
    bertloom verify DATASET2 --extends DATASET
    bertloom verify RUN
    bertloom verify RUN --last-steps 1000 --data DATASET

A data set is compared with its manifest: files, checksums, counts and values. For a run, checkpoints and metrics are
checked, and the stream digest is computed again from the data set up to the last checkpoint (see docs/training.md).

Prints a line for each fault. Exit status: 0 without faults, 1 with faults.
"""

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from bertloom import storage
from bertloom.counts import counted
from bertloom.extras import needed_by
from jobs.support.config import parse
from model.loading.cache import DEFAULT_CACHE_GB

MAX_FAULTS = 100


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Verify checksums, counts and values of a data set, or checkpoints, metrics and stream digest of a run."""

    path: Annotated[str, tyro.conf.Positional]
    """Data set or run folder."""
    data: tuple[str, ...] = ()
    """Data set of the run, a folder or a URL, or several, if they have moved since the run was trained."""
    extends: tuple[str, ...] = ()
    """Data sets that this one extends: check also that no document is in both."""
    last_steps: int | None = None
    """Number of the last steps of a run whose rows to read again. The default is all steps."""
    cache_dir: Path | None = None
    """Local folder that caches data from a URL, for a run. The default is ~/.cache/bertloom."""
    cache_gb: float = DEFAULT_CACHE_GB
    """Size limit of the cache, in 10^9 bytes."""

    def __post_init__(self) -> None:
        if self.last_steps is not None and self.last_steps < 1:
            raise ValueError(f"last_steps={self.last_steps} must be at least 1")
        if not is_run(self.path) and (self.data or self.last_steps is not None):
            raise ValueError(f"--data and --last-steps are for run folders, but {self.path} is not one")
        if is_run(self.path) and self.extends:
            raise ValueError(f"--extends is for data sets, but {self.path} is a run folder")


def main(argv: Sequence[str]) -> int:
    """Run `bertloom verify` and return its exit status."""
    config = parse(VerifyConfig, argv, prog="bertloom verify")
    if not storage.exists(config.path):
        raise ValueError(f"{config.path} does not exist: expected a data set or a run folder")
    if is_run(config.path):
        faults, count = verify_run(Path(config.path), config.data, config.last_steps, config.cache_dir, config.cache_gb)
        what = f"{counted(count, 'step')} read again"
    else:
        faults, count = verify(config.path, config.extends)
        what = f"{counted(count, 'file')} read"
    for fault in faults[:MAX_FAULTS]:
        print(fault)
    if len(faults) > MAX_FAULTS:
        print(f"… and {len(faults) - MAX_FAULTS} more")
    print(f"{config.path}: {what}, {counted(len(faults), 'fault')}")
    return 1 if faults else 0


def is_run(path: str) -> bool:
    """Return whether this is a run folder. Anything else is checked as a data set."""
    folder = Path(path)
    names = ("config.toml", "checkpoints")
    return not (folder / "manifest.json").exists() and any((folder / name).exists() for name in names)


def verify(path: str, extends: Sequence[str] = ()) -> tuple[list[str], int]:
    """Return a sentence for each fault of a data set, and the number of files read.

    extends: data sets; a document that one of them and this one have is a fault.
    """
    from pipeline.checks.extended import check_extended
    from pipeline.checks.verify import check_dataset

    return _collect(itertools.chain(check_dataset(path), check_extended(path, extends)), " files")


def verify_run(
    path: Path,
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    last_steps: int | None = None,
    cache_dir: Path | None = None,
    cache_gb: float = DEFAULT_CACHE_GB,
) -> tuple[list[str], int]:
    """Return a sentence for each fault of a run, and the number of steps whose rows were read again."""
    with needed_by("verifying a run"):
        from model.runs.verify import check_run

    given = [data] if isinstance(data, (str, os.PathLike)) else data
    return _collect(check_run(path, given or (), last_steps, cache_dir, cache_gb), " steps")


def _collect(found: Iterator[str | None], unit: str) -> tuple[list[str], int]:
    faults, count = [], 0
    with tqdm(desc="verify", unit=unit, file=sys.stderr, disable=None) as bar:
        for fault in found:
            if fault is None:
                count += 1
                bar.update()
            else:
                faults.append(fault)
    return faults, count

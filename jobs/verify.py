"""Is a data set whole and what its manifest says? Did a run read what it should have read?

    bertloom verify DATASET
    bertloom verify RUN
    bertloom verify RUN --last-steps 1000 --data DATASET

Of a run, checkpoints and metrics are checked, and the stream digest is computed again from its data set up to the last
checkpoint (see docs/training.md).

Exit status 0 where nothing is off; 1 and a line for each fault, with its place, where something is.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from jobs.support.config import parse
from model.loading.cache import DEFAULT_CACHE_GB

MAX_FAULTS = 100


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Checksums, counts, members and values of a data set; checkpoints, metrics and stream digest of a run."""

    path: Annotated[str, tyro.conf.Positional]
    """The data set or the run folder."""
    data: str | None = None
    """The run's data set, a folder or a URL, where it is no longer where the run's config.toml says."""
    last_steps: int | None = None
    """Of a run: read only the rows of so many steps again; all if none is given."""
    cache_dir: Path | None = None
    """Of a run whose data set lies behind a URL: the folder for what is fetched; ~/.cache/bertloom if none is given."""
    cache_gb: float = DEFAULT_CACHE_GB
    """How much of it to keep, in 10^9 bytes."""

    def __post_init__(self) -> None:
        if self.last_steps is not None and self.last_steps < 1:
            raise ValueError(f"last_steps={self.last_steps} must be at least 1")
        if not is_run(self.path) and (self.data is not None or self.last_steps is not None):
            raise ValueError(f"--data and --last-steps are for a run folder, and {self.path} is none")


def main(argv: Sequence[str]) -> int:
    config = parse(VerifyConfig, argv, prog="bertloom verify")
    if is_run(config.path):
        faults, count = verify_run(Path(config.path), config.data, config.last_steps, config.cache_dir, config.cache_gb)
        what = f"{count:,} steps read again"
    else:
        faults, count = verify(config.path)
        what = f"{count} files looked at"
    for fault in faults[:MAX_FAULTS]:
        print(fault)
    if len(faults) > MAX_FAULTS:
        print(f"… and {len(faults) - MAX_FAULTS} more")
    print(f"{config.path}: {what}, {len(faults)} faults")
    return 1 if faults else 0


def is_run(path: str) -> bool:
    """Whether this is a run folder; what is neither that nor a data set is told so by the data set's check."""
    folder = Path(path)
    names = ("config.toml", "checkpoints")
    return not (folder / "manifest.json").exists() and any((folder / name).exists() for name in names)


def verify(path: str) -> tuple[list[str], int]:
    """(every fault of a data set, in a sentence with its place; number of files read whole)."""
    from pipeline.checks.verify import check_dataset

    return _collect(check_dataset(path), " files")


def verify_run(
    path: Path,
    data: str | os.PathLike[str] | None = None,
    last_steps: int | None = None,
    cache_dir: Path | None = None,
    cache_gb: float = DEFAULT_CACHE_GB,
) -> tuple[list[str], int]:
    """(every fault of a run, in a sentence with its place; number of steps whose rows were read again)."""
    from model.runs.verify import check_run

    return _collect(check_run(path, data, last_steps, cache_dir, cache_gb), " steps")


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

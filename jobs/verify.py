"""Is a data set whole and what its manifest says?

    bertloom verify DATASET

Exit status 0 where nothing is off; 1 and a line for each fault, with its place, where something is.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from tqdm import tqdm

from jobs.config import parse
from pipeline.checking import check_dataset

MAX_FAULTS = 100


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Checksums, counts, members and values of a data set."""

    path: Annotated[str, tyro.conf.Positional]
    """The data set."""


def main(argv: Sequence[str]) -> int:
    config = parse(VerifyConfig, argv, prog="bertloom verify")
    faults, num_files = verify(config.path)
    for fault in faults[:MAX_FAULTS]:
        print(fault)
    if len(faults) > MAX_FAULTS:
        print(f"… and {len(faults) - MAX_FAULTS} more")
    print(f"{config.path}: {num_files} files looked at, {len(faults)} faults")
    return 1 if faults else 0


def verify(path: str) -> tuple[list[str], int]:
    """(every fault, in a sentence with its place; number of files read whole)."""
    faults, num_files = [], 0
    with tqdm(desc="verify", unit=" files", file=sys.stderr, disable=None) as bar:
        for fault in check_dataset(path):
            if fault is None:
                num_files += 1
                bar.update()
            else:
                faults.append(fault)
    return faults, num_files

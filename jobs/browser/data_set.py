"""A data set as the pages need it: examples by number, members within a bound of memory, tables and vocabulary."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bertloom.arrays import I64
from bertloom.manifest import read_dataset

if TYPE_CHECKING:
    from pipeline.job import JobConfig
    from pipeline.vocabulary import Vocabulary


class BrowsedDataSet:
    """A finished data set, in a folder or a store."""

    def __init__(self, location: str, cache_dir: Path | None, cache_gb: float) -> None:
        self.location = location
        self.name = location.rstrip("/").rpartition("/")[2]
        self.manifest: dict[str, Any]
        self.shards: pa.Table
        self.manifest, self.shards = read_dataset(location)
        self.rows: list[dict[str, Any]] = self.shards.to_pylist()
        self.firsts: I64 = np.cumsum([0, *(row["examples"] for row in self.rows)])
        """The number of the first example of each shard, and the number of examples: (shards + 1,)."""

    @property
    def num_examples(self) -> int:
        return int(self.firsts[-1])

    @cached_property
    def vocabulary(self) -> Vocabulary:
        from pipeline.dataset import vocabulary_of

        return vocabulary_of(self.location, self.manifest)

    @cached_property
    def job(self) -> JobConfig:
        """The configuration of the job that made it."""
        from pipeline.job import JobConfig

        return JobConfig.from_manifest(self.manifest)

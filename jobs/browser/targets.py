"""The data sets and runs that are shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bertloom import storage
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.run import BrowsedRun


@dataclass
class Targets:
    """What the command was given, by the first part of a page's path: d0, d1, … for data sets, r0, r1, … for runs."""

    cache_dir: Path | None
    cache_gb: float
    data_sets: dict[str, BrowsedDataSet] = field(default_factory=dict)
    runs: dict[str, BrowsedRun] = field(default_factory=dict)

    @classmethod
    def open(cls, paths: Sequence[str], cache_dir: Path | None, cache_gb: float) -> Targets:
        """Open data sets and runs.

        Raises:
            ValueError: a path is neither, or it is damaged.
        """
        targets = cls(cache_dir, cache_gb)
        for path in dict.fromkeys(paths):
            if is_run(path):
                targets.runs[f"r{len(targets.runs)}"] = BrowsedRun(Path(path))
            else:
                targets.open_data_set(path)
        return targets

    def open_data_set(self, path: str) -> str:
        """Open a data set unless it is open already, and return its key."""
        for key, data_set in self.data_sets.items():
            if data_set.location == path:
                return key
        key = f"d{len(self.data_sets)}"
        self.data_sets[key] = BrowsedDataSet(path, self.cache_dir, self.cache_gb)
        return key


def is_run(path: str) -> bool:
    """Return whether a path is a run folder: it has the configuration that `pretrain` or `finetune` wrote."""
    return storage.is_local(path) and os.path.exists(os.path.join(path, "config.toml"))

"""The data sets, runs and models that are shown."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bertloom import storage
from bertloom.store_errors import StoreError
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.models import BrowsedModel
from jobs.browser.run import BrowsedRun, run_folders

if TYPE_CHECKING:
    from model.loading.data import DataSet


@dataclass
class Targets:
    """What the command was given, by the first part of a page's path: d0, d1, … for data sets, r0, r1, … for runs, m0,
    m1, … for folders of models."""

    cache_dir: Path | None
    cache_gb: float
    data_sets: dict[str, BrowsedDataSet] = field(default_factory=dict)
    runs: dict[str, BrowsedRun] = field(default_factory=dict)
    models: dict[str, BrowsedModel] = field(default_factory=dict)
    given: list[str] = field(default_factory=list)
    """The keys of what the command names. The others are the data sets of runs."""
    _training_data: dict[str, DataSet] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, paths: Sequence[str], cache_dir: Path | None, cache_gb: float) -> Targets:
        """Open data sets, runs and models.

        Raises:
            ValueError: a path is none of them, or it is damaged.
        """
        targets = cls(cache_dir, cache_gb)
        for path in dict.fromkeys(paths):
            if is_run(path):
                targets.open_runs(Path(path))
            elif is_model(path):
                key = f"m{len(targets.models)}"
                targets.models[key] = BrowsedModel(Path(path))
                targets.given.append(key)
            else:
                targets.given.append(targets.open_data_set(path))
        for run in targets.runs.values():
            targets.open_data_of(run)
        return targets

    def open_runs(self, path: Path) -> None:
        """Open a run, or the runs of several seeds in one folder."""
        for folder in run_folders(path):
            key, run = f"r{len(self.runs)}", BrowsedRun(folder)
            if any(run.name == other.name for other in self.runs.values()):
                run.name = run.location
            self.runs[key] = run
            self.given.append(key)

    def open_data_of(self, run: BrowsedRun) -> None:
        """Open the data sets in the configuration of a run that are there."""
        for source in run.sources:
            try:
                self.open_data_set(source.path)
            except (ValueError, OSError, StoreError) as error:
                run.data_set_faults[source.path] = str(error)

    def data_set(self, key: str) -> BrowsedDataSet | None:
        """Return the data set of a key, None if there is none. If another one was made in its place, that one is opened.

        Raises:
            ValueError: it was removed, or the other one is not finished yet.
        """
        found = self.data_sets.get(key)
        if found and found.is_replaced:
            with self._lock:
                if self.data_sets[key] is found:
                    self.data_sets[key] = BrowsedDataSet(found.location, self.cache_dir, self.cache_gb)
                    self._training_data.pop(key, None)
                return self.data_sets[key]
        return found

    def training_data(self, key: str) -> DataSet:
        """Return a data set as training reads it. It is opened at the first call."""
        from model.loading.data import DataSet

        self.data_set(key)

        with self._lock:
            if key not in self._training_data:
                self._training_data[key] = DataSet(self.data_sets[key].location, self.cache_dir, self.cache_gb)
            return self._training_data[key]

    def find_data_set(self, shards_digest: str) -> str | None:
        """Return the key of the data set whose shards.parquet has this sha256, None if it is not open."""
        for key in self.data_sets:
            with suppress(ValueError):  # it was removed
                data_set = self.data_set(key)
                if data_set and data_set.manifest["shards_parquet"]["sha256"] == shards_digest:
                    return key
        return None

    def find_location(self, location: str) -> str | None:
        """Return the key of the data set at a place, None if it is not open."""
        return next((key for key, one in self.data_sets.items() if _is_same(one.location, location)), None)

    def open_data_set(self, path: str) -> str:
        """Open a data set unless it is open already, and return its key."""
        if found := self.find_location(path):
            return found
        key = f"d{len(self.data_sets)}"
        self.data_sets[key] = BrowsedDataSet(path, self.cache_dir, self.cache_gb)
        return key


def _is_same(one: str, other: str) -> bool:
    if storage.is_local(one) and storage.is_local(other):
        return os.path.realpath(one) == os.path.realpath(other)
    return one == other


def is_run(path: str) -> bool:
    """Return whether a path is a run folder: it has the configuration that `pretrain` or `finetune` wrote."""
    return storage.is_local(path) and os.path.exists(os.path.join(path, "config.toml"))


def is_model(path: str) -> bool:
    """Return whether a path is a model in transformers' form or that of google-research/bert, or a checkpoint of a run."""
    names = ("config.json", "bert_config.json", "state.json")
    return storage.is_local(path) and any(os.path.exists(os.path.join(path, name)) for name in names)

"""How many documents of each input file were left out because an equal one was kept.

A data set has only their total. The number of an input file is computed: the documents that were read from it, less those
in documents/, the near duplicates and the documents over a budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bertloom.arrays import I64
from bertloom.manifest import DAMAGED
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.near_duplicates import NearDuplicates, near_of_others
from jobs.browser.sliced_work import SlicedWork
from pipeline.checks.sample import read_documents_page
from pipeline.dataset import read_rejects
from pipeline.inputs.sources import source_of
from pipeline.stages.rejected import REJECTS
from pipeline.stages.selection import OVER_BUDGET

LINES = 4096
"""Lines of the log of rejects in one step."""


class EqualDocuments(SlicedWork):
    """The equal documents of each input file that were left out."""

    def __init__(self, data_set: BrowsedDataSet) -> None:
        self.data_set = data_set
        self.inputs: list[dict[str, Any]] = data_set.manifest["inputs"]
        self.kept: I64
        """Documents of each file in documents/."""
        self.near: I64
        """Near duplicates of each file."""
        self.over: I64
        """Documents of each file that are over the budget of its source."""
        self.num_pages = sum(map(len, data_set.pages.values()))
        self.num_read = 0
        """Pages of documents/ that were counted."""
        super().__init__()

    @property
    def numbers(self) -> I64:
        """Equal documents left out, of each file."""
        came = np.array([row["documents"] for row in self.inputs], np.int64)
        return came - self.kept - self.near - self.over

    def _check(self) -> None:
        counters = self.data_set.manifest["counters"]
        expected = counters["documents_duplicate"] - counters.get("documents_near_duplicate", 0)
        expected -= near_of_others(counters)
        found = int(self.numbers.sum())
        if found != expected or (self.numbers < 0).any():
            raise ValueError(
                f"documents/: leaves {found} equal documents, but manifest.json counts {expected}; {DAMAGED}"
            )

    def steps(self) -> Iterator[None]:
        self.kept, self.near, self.over = (np.zeros(len(self.inputs), np.int64) for _ in range(3))
        self.num_read = 0
        places = {row["name"]: i for i, row in enumerate(self.inputs)}
        for of_others in (False, True):
            for column in NearDuplicates(self.data_set, of_others).sources():
                _add(self.near, column, places)
                yield
        for sources in self._over_budget():
            _add(self.over, sources, places)
            yield
        for split, numbers in self.data_set.pages.items():
            for number in numbers:
                page = read_documents_page(self.data_set.location, split, number, self.data_set.manifest)
                _add(self.kept, page["source"].combine_chunks(), places)
                self.num_read += 1
                yield
        self._check()

    def _over_budget(self) -> Iterator[pa.Array]:
        """Yield the names of the files of documents over a budget, some at a time, from the log of rejects."""
        if OVER_BUDGET not in self.data_set.manifest["counters"]["rejected"]:
            return
        rejects = read_rejects(self.data_set.location, REJECTS)
        while some := list(islice(rejects, LINES)):
            yield pa.array([reject["source"] for reject in some if reject["reason"] == OVER_BUDGET], pa.string())


def _add(counts: I64, sources: pa.Array, places: Mapping[str, int]) -> None:
    for found in pc.value_counts(sources).to_pylist():
        name = source_of(found["values"], places)
        if name is None:
            raise ValueError(f"the input {found['values']!r} is not one that manifest.json lists; {DAMAGED}")
        counts[places[name]] += found["counts"]

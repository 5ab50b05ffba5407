"""Finds the examples for which filters hold, for a limited time in each request, and remembers where they are.

A search keeps the number of matches in each member that it has read. A member without a match is not read again, so later
pages need less reading.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jobs.browser.conditions import Conditions
from jobs.browser.data_set import BrowsedDataSet, DamagedFile
from jobs.browser.filters import Filters
from jobs.browser.lru import LruCache
from jobs.browser.per_data_set import PerDataSet

UNKNOWN = -1
"""Number of matches of a member that was not searched."""
SEARCH_BYTES = 16 << 20
"""Bytes of the searches that are kept: two for each member."""
MAX_FAULTS = 20
"""Messages about damaged members that a search keeps."""


class Found(NamedTuple):
    """What a part of a search found."""

    examples: list[int]
    """Their numbers, sorted."""
    at: int | None
    """Where the search goes on; None: everything was searched."""


class Search:
    """A search of a data set. Several threads may use it."""

    def __init__(self, data_set: BrowsedDataSet, filters: Filters) -> None:
        """
        Raises:
            ValueError: the data set cannot have the value of a filter.
        """
        self.data_set = data_set
        self.conditions = Conditions(data_set, filters)
        is_wanted = np.repeat(self.conditions.shards(), np.diff(data_set.first_members))
        self._sizes = np.diff(data_set.member_firsts)
        known = UNKNOWN if self.conditions.all else self._sizes
        self.counts: NDArray[np.int16] = np.where(is_wanted, known, 0).astype(np.int16)
        """Number of matches of each member, UNKNOWN before it was searched: (members,)."""
        self.num_examples = int(self._sizes[is_wanted].sum())
        """Examples that are to be searched."""
        self.damaged: dict[int, str] = {}
        """The members that could not be read, and what `bertloom verify` prints about the first MAX_FAULTS of them."""

    @property
    def num_found(self) -> int:
        """Matches so far."""
        return int(self.counts[self.counts > 0].sum(dtype=np.int64))

    @property
    def num_searched(self) -> int:
        """Examples that were searched so far."""
        return self.num_examples - int(self._sizes[self.counts == UNKNOWN].sum())

    @property
    def is_complete(self) -> bool:
        """Whether all matches were counted."""
        return not (self.counts == UNKNOWN).any()

    @property
    def num_unread(self) -> int:
        """Examples in members that could not be read."""
        return int(self._sizes[[*self.damaged]].sum())

    def may_match(self, first: int, past: int) -> bool:
        """Return whether there may be a match among the examples from `first` to before `past`."""
        return first < past and bool(self.counts[self._member(first) : self._member(past - 1) + 1].any())

    def after(self, first: int, most: int, until: float) -> Found:
        """Return the next matches from example `first` on. until: when to stop, by time.monotonic()."""
        found: list[int] = []
        if first >= self.data_set.num_examples:
            return Found(found, None)
        begin = self._member(first)
        for i, number in enumerate((np.flatnonzero(self.counts[begin:]) + begin).tolist()):
            if i and time.monotonic() > until:
                return Found(found, max(first, int(self.data_set.member_firsts[number])))
            matches = self._matches(number)
            found += matches[matches >= first][: most - len(found)].tolist()
            if len(found) == most:
                return Found(found, found[-1] + 1)
        return Found(found, None)

    def before(self, past: int, most: int, until: float) -> Found:
        """Return the last matches before example `past`. The search goes on before `at`."""
        found: list[int] = []
        if past <= 0:
            return Found(found, None)
        end = self._member(past - 1) + 1
        for i, number in enumerate(np.flatnonzero(self.counts[:end])[::-1].tolist()):
            if i and time.monotonic() > until:
                return Found(found, min(past, int(self.data_set.member_firsts[number + 1])))
            matches = self._matches(number)
            found = [*matches[matches < past][len(found) - most :].tolist(), *found]
            if len(found) == most:
                return Found(found, found[0])
        return Found(found, None)

    def count(self, until: float) -> None:
        """Search members that were not searched before."""
        for number in np.flatnonzero(self.counts == UNKNOWN).tolist():
            self._matches(number)
            if time.monotonic() > until:
                return

    def _member(self, index: int) -> int:
        """Return the number of an example's member among all members."""
        return int(np.searchsorted(self.data_set.member_firsts, index, side="right")) - 1

    def _matches(self, number: int) -> NDArray[np.int64]:
        """Return the numbers of the matches in a member, and take note of how many there are."""
        first = int(self.data_set.member_firsts[number])
        if not self.conditions.all:
            return np.arange(first, first + int(self._sizes[number]))
        try:
            rows = self.conditions.rows(*self.data_set.member_place(number))
        except DamagedFile as error:
            self.damaged[number] = str(error) if len(self.damaged) < MAX_FAULTS else ""
            rows = np.zeros(0, np.intp)
        self.counts[number] = len(rows)
        return rows.astype(np.int64) + first


_searches = PerDataSet(lambda _: LruCache[Search](SEARCH_BYTES, lambda search: search.counts.nbytes))
"""The last searches, by the query of their filters."""


def search_of(data_set: BrowsedDataSet, filters: Filters) -> Search:
    """Return the search of a data set with these filters: a kept one, if there is one."""
    return _searches(data_set).get(filters.query(), lambda: Search(data_set, filters))

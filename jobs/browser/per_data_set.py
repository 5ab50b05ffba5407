"""One object of a kind for each data set, made when a page first needs it."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from jobs.browser.data_set import BrowsedDataSet

T = TypeVar("T")


class PerDataSet(Generic[T]):
    """Objects by data set, which keeps them. Requests run in threads: the object of a data set is made once."""

    def __init__(self, make: Callable[[BrowsedDataSet], T]) -> None:
        self._make = make
        self._lock = threading.Lock()

    def __call__(self, data_set: BrowsedDataSet) -> T:
        with self._lock:
            if self not in data_set.made:
                data_set.made[self] = self._make(data_set)
            made: T = data_set.made[self]
            return made

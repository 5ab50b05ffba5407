"""Values that take long to make. The most recently used ones are kept, up to a total size."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LruCache(Generic[Value]):
    """The most recently used values. Thread-safe: two threads may make the same value, and one of the two is kept."""

    def __init__(self, max_size: int, size: Callable[[Value], int] = lambda value: 1) -> None:
        """max_size: of all kept values together. size: returns the size of one, such as its bytes. By default, values count.

        A value above max_size is not kept.
        """
        self.max_size = max_size
        self.size = 0
        self._size = size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key; make it if it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        size = self._size(value)
        with self._lock:
            if key not in self._values and size <= self.max_size:
                self._values[key] = value
                self.size += size
                while self.size > self.max_size:
                    _, oldest = self._values.popitem(last=False)
                    self.size -= self._size(oldest)
        return value

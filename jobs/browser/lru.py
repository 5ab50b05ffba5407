"""Values that are expensive to make, kept while their bytes are within a bound."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LruCache(Generic[Value]):
    """The most recently used values. Thread-safe: two threads may make the same value, and one of the two is kept."""

    def __init__(self, max_bytes: int, size: Callable[[Value], int]) -> None:
        """max_bytes: of all values that are kept. size: returns the bytes of one. A larger value is not kept."""
        self.max_bytes = max_bytes
        self.num_bytes = 0
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
            if key not in self._values and size <= self.max_bytes:
                self._values[key] = value
                self.num_bytes += size
                while self.num_bytes > self.max_bytes:
                    _, oldest = self._values.popitem(last=False)
                    self.num_bytes -= self._size(oldest)
        return value

"""Work that is done once, a slice of time in each request."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator

SLICE_SECONDS = 0.15
"""How long one request works. The page then shows how far the work is, and asks again."""


class SlicedWork(ABC):
    """Work that goes on where the last request left it. After an error it starts again."""

    def __init__(self) -> None:
        self.is_done = False
        self._steps: Iterator[None] | None = None
        self._lock = threading.Lock()

    @abstractmethod
    def steps(self) -> Iterator[None]:
        """Begin the work and do it; yield after each step, which takes some tens of milliseconds."""

    def go_on(self, seconds: float) -> None:
        """Work for about this time, at least one step. Other threads wait meanwhile."""
        until = time.monotonic() + seconds
        with self._lock:
            if self.is_done:
                return
            if self._steps is None:
                self._steps = self.steps()
            try:
                for _ in self._steps:
                    if time.monotonic() > until:
                        return
            except (OSError, ValueError):
                self._steps = None
                raise
            self.is_done = True

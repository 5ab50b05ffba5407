"""The CPU's heap in a long training.

Every batch has other sizes, and glibc keeps freed blocks for requests of their size: the tiny preset held 0.5 GiB after its
first step and 1.4 GiB after 200, 0.9 of it free. Giving that back now and then keeps it flat.
"""

import ctypes
import time

SECONDS = 30.0
"""Between two times; one takes 0.1 to 0.2 s where half a GiB is given back."""


class Heap:
    """Gives free memory back to the system."""

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other libraries keep less
        self._last = time.monotonic()

    def tick(self) -> None:
        """Trims the heap if it was not for SECONDS."""
        if time.monotonic() - self._last >= SECONDS:
            self.trim()

    def trim(self) -> None:
        """Gives back what is free now."""
        if self._trim:
            self._trim(0)
        self._last = time.monotonic()

"""Keeps resident memory flat in long training on a CPU, and avoids page faults.

glibc maps large blocks separately, and returns the free end of the heap to the system. A step of `tiny` therefore fetched
15,000 pages again that the step before had freed. With `keep_blocks` it fetches 800.

Every batch has different sizes, and glibc keeps freed blocks for requests of the same size. `Heap` returns them to the
system from time to time.

oneDNN keeps the last 1,024 kernels that it compiled, and it compiles some for each number of tokens: GELU in fp32, and
nearly all products in 16 bits. These kernels are between free blocks, which therefore cannot be joined, and the heap grew
for hundreds of steps. `limit_kernels` lets oneDNN keep as many as one step needs.
"""

import ctypes
import os
import time
from collections.abc import Callable, Mapping

SECONDS = 30.0
"""Time between two trims. A trim that returns half a GiB takes 0.1 to 0.2 s."""

FREE_BYTES = 2**28
"""Free bytes at the end of the heap that glibc may keep."""
BLOCK_BYTES = 2**25
"""Size from which glibc maps a block separately. Some versions of glibc allow no larger value."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Numbers of glibc's parameters in malloc.h."""

KERNELS = 16
"""Kernels that oneDNN keeps in fp32. A micro-batch needs two for each width of a GELU."""
KERNELS_IN_16_BITS = 256
"""Kernels that oneDNN keeps in bf16 and fp16. A micro-batch needs about twenty, and six for each length of its sequences."""


def limit_kernels(precision: str) -> None:
    """Limit the number of kernels that oneDNN keeps, unless the environment does. Call it before the first forward pass."""
    number = KERNELS if precision == "fp32" else KERNELS_IN_16_BITS
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(number))


def keep_blocks() -> bool:
    """Let glibc keep freed blocks for the next step, and return whether it will."""
    return set_malloc({M_MMAP_THRESHOLD: BLOCK_BYTES, M_TRIM_THRESHOLD: FREE_BYTES})


def set_malloc(values: Mapping[int, int]) -> bool:
    """Set parameters of glibc's malloc by number, and return whether it took them. Other C libraries lack them."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(number, value) for number, value in values.items())


def trim_heap() -> bool:
    """Return free memory to the operating system; whether there was any. Only glibc keeps enough to matter."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(malloc_trim and malloc_trim(0))


class Heap:
    """Trims the heap at intervals."""

    def __init__(self, trim: Callable[[], object] = trim_heap, clock: Callable[[], float] = time.monotonic) -> None:
        self.trim, self.clock = trim, clock
        self.last_trim = clock()

    def trim_if_due(self) -> None:
        """Trim the heap if the last trim was SECONDS ago or more."""
        if self.clock() - self.last_trim >= SECONDS:
            self.trim()
            self.last_trim = self.clock()

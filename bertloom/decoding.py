"""A bound on the memory for decoding Parquet or Arrow data of unknown origin.

A file of some hundred bytes can decode to gigabytes: a dictionary or a prefix repeats a large value, a list has a billion
equal items, or a buffer is compressed a thousandfold. pyarrow has no option to bound its output, and a footer can be false.
On Linux, a limit of the process makes the allocation fail. Other systems have no such limit, and memory is not bounded.
"""

import mmap
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Batch = TypeVar("Batch")

MAX_BYTES = 1 << 29
"""Bytes that a process may take in addition while one batch is decoded. Batches that programs write take far less."""

STATM = Path("/proc/self/statm")
"""Linux's count of the memory pages of this process."""

_one_at_a_time = threading.Lock()  # the limit is that of the process


@contextmanager
def bounded_decoding() -> Iterator[None]:
    """Let decoding fail that takes more than MAX_BYTES. Threads must not be started inside: each takes its stack at once.

    Raises:
        OSError: decoding took more than MAX_BYTES, or the machine is out of memory.
    """
    if not (used := _used_bytes()):
        yield
        return
    import resource  # not on every system

    with _one_at_a_time:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        known = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min([used + MAX_BYTES, *known]), hard))
        try:
            yield
        except MemoryError as error:
            raise OSError(
                f"it takes more than {MAX_BYTES:,} bytes of memory at once, or more than there are: write it in smaller "
                f"batches or row groups ({error})"
            ) from None
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _used_bytes() -> int:
    """Return the bytes that RLIMIT_DATA counts; 0 where the system does not say."""
    return int(STATM.read_bytes().split()[5]) * mmap.PAGESIZE if STATM.exists() else 0


def decoded(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield what an iterable decodes, each within the bound. It must decode in the thread that asks for it.

    Raises:
        OSError: a batch took more than MAX_BYTES, or the machine is out of memory.
    """
    iterator = iter(batches)
    while True:
        with bounded_decoding():
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch

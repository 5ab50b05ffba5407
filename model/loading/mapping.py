"""Many files as one array of bytes.

One range of addresses is reserved for all files, each file is mapped into its place when it is first needed, and one
NumPy array covers the whole range. So one call gathers rows of any number of files by index arithmetic. With one array per
file, each batch would need a loop over files: with 160 shards that loop took 90 % of the loader's time.
"""

import ctypes
import mmap
import os
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

MAP_FIXED = 0x10
"""The same number on Linux and macOS; missing in Python's mmap module."""
EMPTY = mmap.MAP_PRIVATE | mmap.MAP_ANON | getattr(mmap, "MAP_NORESERVE", 0)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_int64)


class MappedFiles:
    """An array of bytes in which file f begins at `starts[f]`. It reads as zeros where no file is mapped."""

    def __init__(self, sizes: Sequence[int] | np.ndarray, slack: int = 0) -> None:
        """sizes: of the files, in bytes. slack: least number of zeros after the last file."""
        self.sizes = np.asarray(sizes, dtype=np.int64)
        pages = -(-self.sizes // mmap.PAGESIZE)
        self.starts = np.concatenate([[0], np.cumsum(pages)[:-1]]).astype(np.int64) * mmap.PAGESIZE
        total = (int(pages.sum()) + slack // mmap.PAGESIZE + 1) * mmap.PAGESIZE
        # Read-only, so it takes addresses but no memory. The array keeps it alive.
        self.bytes = np.frombuffer(mmap.mmap(-1, total, flags=EMPTY, prot=mmap.PROT_READ), dtype=np.uint8)
        self.is_mapped = np.zeros(len(self.sizes), dtype=bool)

    def map(self, number: int, file: BinaryIO) -> None:
        """Map a file into its place. It may be closed, renamed or removed afterwards, but not truncated.

        Raises:
            ValueError: its size is not the expected one.
        """
        size = os.fstat(file.fileno()).st_size
        if size != self.sizes[number]:
            raise ValueError(f"{file.name} has {size} bytes, expected {self.sizes[number]}: copy it again")
        self._place(number, mmap.MAP_SHARED, file.fileno())
        self.is_mapped[number] = True

    def unmap(self, number: int) -> None:
        """Unmap a file; its place then reads as zeros."""
        self._place(number, EMPTY, -1)
        self.is_mapped[number] = False

    def _place(self, number: int, flags: int, descriptor: int) -> None:
        address = self.bytes.ctypes.data + int(self.starts[number])
        size = int(self.sizes[number])
        if _libc.mmap(address, size, mmap.PROT_READ, flags | MAP_FIXED, descriptor, 0) != address:
            error = ctypes.get_errno()
            raise OSError(error, f"cannot map {size} bytes ({int(self.is_mapped.sum())} files are mapped)")

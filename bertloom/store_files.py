"""Files of stores. A read is tried again until it is whole. A file that is being written is not seen before it is whole."""

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, BinaryIO

from bertloom.store_errors import StoreError, scheme_of
from bertloom.stores import (
    READ_SECONDS,
    SLOWEST,
    Answer,
    fetch_answer,
    file_system,
    named_errors,
    reports_size,
    retry,
    size_of,
)
from bertloom.whole_files import temporary_name

LEAST_BYTES = 1 << 16
"""Of a read from a store: a shorter one takes as long."""
MOST_AHEAD = 8 << 20
UPLOAD_BYTES = 32 << 20
"""A file of less than this is sent in one request, a larger one in parts of this size."""
STREAMED = ("s3", "s3a", "gs", "gcs")
"""Schemes whose client sends a file while it is written. The store shows it once all is there."""
RENAMES = ("hdfs", "webhdfs", "sftp", "ssh", "smb")
"""Schemes with real folders, in which a file is visible while it is being written."""


class StoreFile(io.BufferedIOBase):
    """A file of a store, open to read. What is read in sequence is fetched in blocks that grow to MOST_AHEAD."""

    def __init__(self, path: str, size: int | None = None, ahead: int = 0) -> None:
        """size: of the file, if it is known. ahead: bytes that will be read in sequence from the first position."""
        system, within = file_system(path)
        self.path = path
        self._size = size
        self._version: str | None = None
        self._place = 0
        self._begin, self._block = 0, b""
        self._expected = ahead
        self._ahead = 0
        if size is None and not reports_size(system):
            self._size = retry(path, lambda: int(system.info(within)["size"]))

    @property
    def size(self) -> int:
        """Bytes of the file."""
        if self._size is None:  # the end of the file often holds what is read first
            answer = self._ask(-LEAST_BYTES, LEAST_BYTES)
            if self._size is None:  # an empty file has no last bytes
                self._size = len(answer.content)
            self._begin, self._block = self._size - len(answer.content), answer.content
        return self._size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._place
        elif whence == os.SEEK_END:
            offset += self.size
        self._place = max(0, offset)
        return self._place

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            if self._size is None and not self._block:
                self._fetch(1)  # reports the size
            size = max(0, self.size - self._place)
        pieces: list[bytes] = []
        while size > 0 and (piece := self._next(size)):
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read1(self, size: int = -1, /) -> bytes:
        return self._next(size if size >= 0 else LEAST_BYTES)

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        content = self.read(len(view))
        view[: len(content)] = content
        return len(content)

    def peek(self, size: int = 0, /) -> bytes:
        place = self._place
        content = self._next(max(1, size))
        self._place = place
        return content

    def _next(self, most: int) -> bytes:
        """Return up to `most` bytes from the position, and move it; nothing at the end of the file."""
        inside = self._place - self._begin
        if not 0 <= inside < len(self._block):
            self._fetch(most)
            inside = 0
        content = self._block[inside : inside + most]
        self._place += len(content)
        return content

    def _fetch(self, wanted: int) -> None:
        if self._block and self._place != self._begin + len(self._block):
            self._expected = self._ahead = 0
        elif self._block and self._expected <= 0:
            self._ahead = min(2 * len(self._block), MOST_AHEAD)
        most = max(wanted, self._ahead, LEAST_BYTES, min(self._expected, MOST_AHEAD))
        self._expected -= most
        if self._size is not None:
            most = min(most, self._size - self._place)
        self._begin, self._block = self._place, b""
        if most > 0:
            self._block = self._ask(self._place, most).content

    def _ask(self, start: int, most: int) -> Answer:
        """Return what is there from `start`, whole."""

        def once() -> Answer:
            answer = fetch_answer(*file_system(self.path), start, most, READ_SECONDS + most / SLOWEST)
            size = self._size if answer.total is None else answer.total
            if self._size is not None and size != self._size:
                raise StoreError(
                    f"{self.path} has changed while it was read: it had {self._size} bytes and has {size}. Start again"
                )
            if answer.version and self._version not in (None, answer.version):
                raise StoreError(f"{self.path} has changed while it was read, though not its size. Start again")
            self._version = answer.version
            expected = most if size is None or start < 0 else min(most, max(0, size - start))
            if size is not None and start >= 0 and len(answer.content) < expected:
                raise ConnectionError(f"the answer ended after {len(answer.content)} of {expected} bytes")
            return answer

        answer = retry(self.path, once)
        if answer.total is not None:
            self._size = answer.total
        elif start == 0 and not answer.content:
            self._size = 0
        return answer


def open_store(path: str, size: int | None = None, ahead: int = 0) -> BinaryIO:
    """Open a file of a store; see `StoreFile`. One of a web server without byte ranges is copied to the disk first."""
    if scheme_of(path) not in ("http", "https"):
        return StoreFile(path, size, ahead)  # type: ignore[return-value]  # mypy wants all of BinaryIO's methods
    system, within = file_system(path)
    with retry(path, lambda: system.open(within, "rb")) as file:
        if file.seekable():
            return StoreFile(path, file.size, ahead)  # type: ignore[return-value]  # as above
        whole = tempfile.TemporaryFile()  # noqa: SIM115  handed to the caller
        shutil.copyfileobj(file, whole)
        whole.seek(0)
        return whole


def write_store(path: str, chunks: Iterable[bytes], count: Callable[[bytes], object]) -> None:
    """Write chunks as one file of a store, which appears under its name once it is whole. count: called with each chunk."""
    if scheme_of(path) in STREAMED:
        _stream(path, chunks, count)
        return
    with tempfile.NamedTemporaryFile() as file:
        for chunk in chunks:
            count(chunk)
            file.write(chunk)
        file.flush()
        retry(path, lambda: _copy(file.name, path))


def _stream(path: str, chunks: Iterable[bytes], count: Callable[[bytes], object]) -> None:
    with named_errors(path):
        system, within = file_system(path)
        file = system.open(within, "wb", block_size=UPLOAD_BYTES)
    try:
        for chunk in chunks:
            count(chunk)
            with named_errors(path):
                file.write(chunk)
        with named_errors(path):
            file.close()
    except BaseException:
        file.closed = True  # or it would send what it has when Python frees it
        with suppress(Exception):  # the first error says more
            file.discard()
        raise


def _copy(file: str, path: str) -> None:
    """Copy a local file to a store."""
    system, within = file_system(path)
    if scheme_of(path) not in RENAMES:
        system.put_file(file, within)
        return
    target, size = temporary_name(within), os.path.getsize(file)
    try:
        system.put_file(file, target)
        if system.exists(within):
            system.rm_file(within)
        system.mv(target, within)
        if (found := size_of(system, within)) != size:  # fsspec does not read WebHDFS's answer to a rename
            raise ConnectionError(f"{found or 0} of {size} bytes arrived")
    except BaseException:
        with suppress(Exception):
            system.rm_file(target)
        raise

"""Input files that are open to be read. A change meanwhile is an error: parts would hold texts of two versions."""

import io
import os
from typing import Any, BinaryIO

from bertloom import storage
from bertloom.store_errors import StoreError
from pipeline.inputs.sources import Source

BUFFER_BYTES = 1 << 16


def open_source(source: Source, ahead: int = 0) -> BinaryIO:
    """Open an input file. What is read from it is the content that the job found at its beginning.

    ahead: bytes that will be read in sequence. A store is asked for them at once.

    Raises:
        StoreError: the file has changed since then, here or in a later read. It is no OSError, which would mean a damaged
            file: its other documents would be used.
    """
    if source.modified is None or not storage.is_local(source.path):
        return storage.open_read(source.path, source.size, ahead)
    opened = open(source.path, "rb", buffering=0)  # noqa: SIM115  open as long as the reader is
    return io.BufferedReader(_UnchangedFile(source, opened), BUFFER_BYTES)


class _UnchangedFile(io.RawIOBase):
    """A local file that is compared with its listing after each read, and at its end: a reader may map it into memory."""

    def __init__(self, source: Source, file: io.FileIO) -> None:
        self._source, self._file = source, file
        self.name = source.path
        try:
            self._check()
        except StoreError:
            file.close()
            raise

    def readinto(self, buffer: Any, /) -> int | None:
        size = self._file.readinto(buffer)
        self._check()
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self._file.closed:
            try:
                self._check()
            finally:
                self._file.close()
                super().close()

    def _check(self) -> None:
        source, found = self._source, os.fstat(self._file.fileno())
        if (found.st_size, found.st_mtime) == (source.size, source.modified):
            return
        what = (
            f"it had {source.size:,} bytes and has {found.st_size:,}"
            if found.st_size != source.size
            else "it has another modification time"
        )
        raise StoreError(
            f"{source.path} has changed since the job began ({what}): start the same command again when nothing writes to "
            f"the input"
        )

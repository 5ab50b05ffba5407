"""File objects over a part of another file, or over several such parts one after the other."""

import io
from typing import Any, BinaryIO


class Range(io.RawIOBase):
    """The bytes `start ... start + size - 1` of a file that can seek. Several may share the file."""

    def __init__(self, file: BinaryIO, start: int, size: int):
        self.file, self.start, self.size, self.at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = (0, self.at, self.size)[whence]
        self.at = max(0, begin + offset)
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        self.file.seek(self.start + self.at)
        data = self.file.read(max(0, min(len(buffer), self.size - self.at)))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


class Joined(io.RawIOBase):
    """Files that can seek, one after the other."""

    def __init__(self, *files: BinaryIO):
        self.files, self.at = files, 0
        self.sizes = [file.seek(0, io.SEEK_END) for file in files]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = (0, self.at, sum(self.sizes))[whence]
        self.at = max(0, begin + offset)
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        begin = 0
        for file, size in zip(self.files, self.sizes, strict=True):
            if self.at < begin + size:
                file.seek(self.at - begin)
                data = file.read(min(len(buffer), begin + size - self.at))
                buffer[: len(data)] = data
                self.at += len(data)
                return len(data)
            begin += size
        return 0

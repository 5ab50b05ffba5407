"""The uncompressed bytes of a file in chunks, up to the place where a compressed file is damaged."""

import bz2
import lzma
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import zstandard
from isal import isal_zlib

CHUNK = 1 << 20
HEAD = 1 << 16
CODECS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd", ".xz": "xz"}

_READ = 1 << 14  # compressed bytes read at a time: repetitive text can grow a thousandfold
_FRAMES: dict[str, Callable[[], Any]] = {
    "gzip": lambda: isal_zlib.decompressobj(wbits=31),  # like zlib, three times as fast
    "bzip2": bz2.BZ2Decompressor,
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
    "xz": lzma.LZMADecompressor,
}
_BROKEN: tuple[Any, ...] = (EOFError, OSError, isal_zlib.error, lzma.LZMAError, zstandard.ZstdError)


class Damaged(Exception):
    """A compressed file cannot be read beyond `position`, a byte offset in the uncompressed file."""

    def __init__(self, position: int, message: str):
        super().__init__(message)
        self.position = position


def first_bytes(file: BinaryIO, codec: str | None) -> bytes:
    """Return the first uncompressed bytes of a file: about HEAD of them, or all of a shorter file."""
    file.seek(0)
    if codec is None:
        return file.read(HEAD)
    head = b""
    with suppress(*_BROKEN):
        for data in _frames(file, _FRAMES[codec]):
            head += data
            if len(head) >= HEAD:
                break
    return head


def read_chunks(file: BinaryIO, codec: str | None, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the uncompressed bytes from start to end, about CHUNK at a time. `end` applies only to uncompressed files.

    Raises Damaged after the last byte that can be read of a damaged file.
    """
    if codec is None:
        yield from _plain_chunks(file, start, end)
        return
    file.seek(0)
    position, held, size = 0, [], 0
    try:
        for data in _frames(file, _FRAMES[codec]):
            position += len(data)
            if position > start:
                held.append(data[max(0, len(data) - (position - start)) :])
                size += len(held[-1])
            if size >= CHUNK:
                yield b"".join(held)
                held, size = [], 0
    except _BROKEN as error:
        yield b"".join(held)
        raise Damaged(position, f"{codec} stream broke after {position} bytes of text ({error})") from error
    if held:
        yield b"".join(held)


def _plain_chunks(file: BinaryIO, start: int, end: int | None) -> Iterator[bytes]:
    file.seek(start)
    left = (sys.maxsize if end is None else end) - start
    while chunk := file.read(min(CHUNK, left)):
        left -= len(chunk)
        yield chunk


def _frames(file: BinaryIO, new_frame: Callable[[], Any]) -> Iterator[bytes]:
    """Yield the content of each frame of a compressed file.

    The libraries' own readers lose the text before a damaged place, or accept a truncated file as complete.
    """
    frame = None
    while data := file.read(_READ):
        while data:
            if frame is None:
                data = data.lstrip(b"\0")  # padding between frames
                if not data:
                    break
                frame = new_frame()
            text = frame.decompress(data)
            if text:
                yield text
            data = b""
            if frame.eof:
                data, frame = frame.unused_data, None
    if frame is not None:
        raise EOFError("the file ends before the end-of-stream marker was reached")

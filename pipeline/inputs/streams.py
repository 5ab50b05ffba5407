"""The uncompressed bytes of a file in chunks, up to the place where a compressed file is damaged.

A decoder does not detect at once that a file was changed. It goes on for a while, or up to the next checksum, and returns
wrong text. Only text that is known to be right is used: whole frames (gzip calls them members), whole blocks of bzip2, and
everything in a file that only ends early. In gzip, zstd and xz, a frame may be as long as the file, so these files are
decoded twice, first to find out how far they are right. bzip2 takes ten times as long to decode. Its blocks have checksums,
so it is decoded once, and a bounded piece of text is held back.
"""

import bz2
import lzma
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import zstandard
from isal import isal_zlib

CHUNK = 1 << 20
HEAD = 1 << 16
CODECS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd", ".xz": "xz"}
MAX_WINDOW = 1 << 31  # bytes that zstd and xz may refer back to, and so hold: what `zstd --long=31` writes

MAX_EXPANSION = 10_000
"""Most bytes of text for a compressed byte, beyond the first FREE_TEXT. Text has about 4; a file of one repeated byte that
is made to fill a disk has up to 1,400,000 in bzip2."""
FREE_TEXT = 1 << 28

_READ = 1 << 14  # compressed bytes read at a time
_ZSTD_READ = 1 << 10  # decoded at a time: at most 32 MB of text, since 4 bytes can be a block of 128 KB
_BZIP2_BLOCK = 900_000 * 259 // 5  # bytes of text, at most: 259 equal bytes are 5 in a block
_FRAMES: dict[str, Callable[[], Any]] = {
    "gzip": lambda: isal_zlib.decompressobj(wbits=31),  # like zlib, three times as fast
    "bzip2": bz2.BZ2Decompressor,
    "zstd": lambda: zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj(),
    "xz": lambda: lzma.LZMADecompressor(memlimit=MAX_WINDOW),
}
_BROKEN: tuple[Any, ...] = (EOFError, OSError, ValueError, isal_zlib.error, lzma.LZMAError, zstandard.ZstdError)


class _BadFrame(Exception):
    """A frame that its decoder or its checksum rejects."""


class _EndsEarly(_BadFrame):
    """A frame without its end."""


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
    with suppress(_BadFrame):
        for data in _Frames(file, codec):
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
    held, size = [], 0
    position = 0
    try:
        for text in _right_blocks(file, codec) if codec == "bzip2" else _right_frames(file, codec):
            position += len(text)
            if position > start:
                held.append(text[max(0, len(text) - (position - start)) :])
                size += len(held[-1])
            if size >= CHUNK:
                yield b"".join(held)
                held, size = [], 0
    except _BadFrame as error:
        if held:
            yield b"".join(held)
        raise Damaged(position, f"{codec} stream broke after {position} bytes of text ({error})") from error
    if held:
        yield b"".join(held)


def _right_frames(file: BinaryIO, codec: str) -> Iterator[bytes]:
    """Yield the text of whole frames, and of one that ends early. Raises _BadFrame after it."""
    frames, last = _Frames(file, codec), 0
    broken: _BadFrame | None = None
    try:
        for text in frames:
            last += len(text)
    except _BadFrame as error:
        broken = error if isinstance(error, _EndsEarly) else _counted(error, file, frames.begin)
        last = last if isinstance(error, _EndsEarly) else frames.position
    position = 0
    for text in _Frames(file, codec) if last else ():
        position += len(text)
        yield text[: len(text) - max(0, position - last)]
        if position >= last:
            break
    if broken:
        raise broken


def _right_blocks(file: BinaryIO, codec: str) -> Iterator[bytes]:
    """Yield the text of whole blocks of bzip2. Raises _BadFrame after it."""
    frames, held, size, position = _Frames(file, codec), deque[tuple[int, bytes]](), 0, 0
    try:
        for text in frames:
            held.append((frames.at, text))
            size += len(text)
            while held and (position < frames.position or size - len(held[0][1]) >= _BZIP2_BLOCK):
                _, right = held.popleft()
                size -= len(right)
                position += len(right)
                yield right
    except _EndsEarly:
        yield from (text for _, text in held)
        raise
    except _BadFrame as error:
        while position < frames.position:  # the rest of the frame before
            position += len(held[0][1])
            yield held.popleft()[1]
        raise _counted(error, file, held[0][0] if held else frames.begin) from error
    yield from (text for _, text in held)


def _counted(error: _BadFrame, file: BinaryIO, begin: int) -> _BadFrame:
    """Return the error with the number of bytes from `begin` on, which are not used."""
    size = file.seek(0, 2)
    return _BadFrame(f"{error}; {size - begin} of {size} compressed bytes, from byte {begin} on, are not used")


def _plain_chunks(file: BinaryIO, start: int, end: int | None) -> Iterator[bytes]:
    file.seek(start)
    left = (sys.maxsize if end is None else end) - start
    while chunk := file.read(min(CHUNK, left)):
        left -= len(chunk)
        yield chunk


class _Frames:
    """The content of all frames of a compressed file in pieces of about CHUNK (zstd: 32 MB) at most.

    The libraries' own readers lose the text before a damaged place, or accept a truncated file as complete.
    """

    def __init__(self, file: BinaryIO, codec: str):
        self.file, self.codec = file, codec
        self.begin = 0  # of the frame that is read now, in the compressed file ...
        self.position = 0  # ... and in the text
        self.at = 0  # of the bytes that the last piece of text was decoded from

    def __iter__(self) -> Iterator[bytes]:
        decode = _DECODE[self.codec]
        frame, position = None, 0
        packed = self.file.seek(0)
        while data := self.file.read(_READ):
            packed += len(data)
            more = False
            while data or more:
                if frame is None:
                    data = data.lstrip(b"\0")  # padding between frames
                    if not data:
                        break
                    frame = _FRAMES[self.codec]()
                    self.begin, self.position = packed - len(data), position
                self.at = packed - len(data)
                try:
                    text, data, more = decode(frame, data)
                except _BROKEN as error:
                    raise _BadFrame(_explained(error)) from error
                position += len(text)
                if position > max(FREE_TEXT, MAX_EXPANSION * packed):
                    raise _BadFrame(
                        f"{packed} compressed bytes hold over {MAX_EXPANSION:,} times as much: this is no text"
                    )
                if text:
                    yield text
                if frame.eof:
                    frame, more = None, False
        if frame is not None:
            raise _EndsEarly("the file ends before the end-of-stream marker was reached")


# Each function decodes some bytes of a frame to text of bounded size, because a few bytes can expand to gigabytes. It
# returns (text, bytes that are left, whether there is more text before more bytes are needed).


def _decode_gzip(frame: Any, data: bytes) -> tuple[bytes, bytes, bool]:
    text = frame.decompress(data, CHUNK)
    return text, frame.unused_data if frame.eof else frame.unconsumed_tail, len(text) == CHUNK


def _decode_bounded(frame: Any, data: bytes) -> tuple[bytes, bytes, bool]:
    text = frame.decompress(data, CHUNK)
    return text, frame.unused_data if frame.eof else b"", not frame.needs_input


def _decode_zstd(frame: Any, data: bytes) -> tuple[bytes, bytes, bool]:
    text = frame.decompress(data[:_ZSTD_READ])  # has no bound for the text
    return text, frame.unused_data + data[_ZSTD_READ:], False


_DECODE: dict[str, Callable[[Any, bytes], tuple[bytes, bytes, bool]]] = {
    "gzip": _decode_gzip,
    "bzip2": _decode_bounded,
    "zstd": _decode_zstd,
    "xz": _decode_bounded,
}


def _explained(error: Exception) -> str:
    if isinstance(error, (zstandard.ZstdError, lzma.LZMAError)) and ("memory" in str(error) or "limit" in str(error)):
        return f"its window is larger than the limit of {MAX_WINDOW >> 20} MB: compress it again with a smaller window"
    return str(error)

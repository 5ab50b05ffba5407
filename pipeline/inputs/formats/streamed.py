"""What formats share that are read as a stream of bytes. Their positions are byte offsets in the uncompressed file."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, TypeVar

from bertloom import storage
from pipeline.inputs.sources import Source, Split
from pipeline.inputs.streams import Damaged, read_chunks
from pipeline.inputs.text_encodings import as_utf8
from pipeline.text.records import DAMAGED, Item, Reject

BOM = b"\xef\xbb\xbf"
LINE_END = re.compile(rb"\n")
MAX_LINE_BYTES = 50_000_000
"""A line is held whole, which takes six times its size, and fifteen times where it is unusual."""

BORDER_BYTES = 1 << 16
"""What is read at a time to find a border: in most texts one is near."""

T = TypeVar("T")


class Chunks(Iterator[bytes]):
    """The chunks of a file. Where the file is damaged they end, and `damage` holds the error, or they raise it."""

    def __init__(self, chunks: Iterable[bytes], ends_at_damage: bool):
        self.damage: Damaged | None = None
        self._chunks, self._ends_at_damage = iter(chunks), ends_at_damage

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except Damaged as damage:
            if not self._ends_at_damage:
                raise
            self.damage = damage
            raise StopIteration from None


def read_stream(
    file: BinaryIO,
    split: Split,
    start: int,
    read: Callable[[Chunks, int], Iterator[Item]],
    keeps_unfinished: bool = False,
) -> Iterator[Item]:
    """Yield the records of a split of an open file from byte `start`, then a reject when the file is damaged.

    read: takes the chunks, without a byte order mark, and the position of their first byte.
    keeps_unfinished: `read` also gives out what it has of the record that is cut short where the file is damaged.
    """
    try:
        chunks, begin = text_chunks(file, split, start)
        readable = Chunks(chunks, keeps_unfinished)
        yield from read(readable, begin)
        if readable.damage:
            raise readable.damage
    except Damaged as damage:
        yield Reject(damage.position, DAMAGED, f"{damage}: what came before it was kept")


def text_chunks(file: BinaryIO, split: Split, start: int) -> tuple[Iterator[bytes], int]:
    """Return (the text of a split from byte `start` as UTF-8, in chunks; the position of its first byte).

    A byte order mark is left out. Both the call and the chunks raise Damaged where a compressed file is damaged.
    """
    source = split.source
    if source.encoding:
        chunks = _from_byte(start, as_utf8(read_chunks(file, source.codec), source.encoding))
    else:
        chunks = read_chunks(file, source.codec, start, split.end)
    first = next(chunks, b"")
    while start == 0 and len(first) < len(BOM) and BOM.startswith(first) and (more := next(chunks, b"")):
        first += more  # not after other bytes: they would be lost if the file is damaged there
    if start == 0 and first.startswith(BOM):
        first, start = first[len(BOM) :], len(BOM)
    return itertools.chain([first], chunks), start


def _from_byte(start: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks without their first `start` bytes."""
    for chunk in chunks:
        if len(chunk) > start:
            yield chunk[start:]
        start = max(0, start - len(chunk))


def find_borders(border: re.Pattern[bytes], source: Source, split_bytes: int) -> list[int]:
    """Return the first document border at or after each multiple of `split_bytes`.

    border: matches what is between two documents; the next one begins where the match ends. A long border may be cut in
    two: readers skip the rest of it at the start of a split.
    """
    cuts: list[int] = []
    cut = 0
    with storage.open_read(source.path) as file:
        while cut + split_bytes < source.size:
            cut = _next_border(file, border, cut + split_bytes, source.size)
            if cut >= source.size:
                break
            cuts.append(cut)
    return cuts


def _next_border(file: BinaryIO, border: re.Pattern[bytes], start: int, size: int) -> int:
    """Return where the first border at or after `start` ends. The search holds little in memory."""
    kept, position = b"", start
    file.seek(start)
    while chunk := file.read(BORDER_BYTES):
        data = kept + chunk
        base = position - len(kept)
        if match := border.search(data):
            return base + match.end()
        position = base + len(data)
        kept = data[-4096:]  # a border may begin here
    return size


def line_too_long(position: int, num_bytes: int) -> Reject:
    return Reject(position, "line-too-long", f"{num_bytes} bytes, over {MAX_LINE_BYTES}")


def read_lines(chunks: Iterable[bytes]) -> Iterator[bytes | int]:
    """Yield lines with their line feed. A line over MAX_LINE_BYTES is given as its length."""
    parts: list[bytes] = []
    length = 0  # of the current line, whose bytes are in `parts` unless it is too long
    for chunk in chunks:
        lines = chunk.split(b"\n")
        for piece in lines[:-1]:
            length += len(piece) + 1
            yield length if length > MAX_LINE_BYTES else _join(parts, piece + b"\n")
            parts, length = [], 0
        length += len(lines[-1])
        parts.append(lines[-1])
        if length > MAX_LINE_BYTES:
            parts = []
    if length:
        yield length if length > MAX_LINE_BYTES else _join(parts, b"")


def read_each_line(
    chunks: Iterable[bytes], start: int, items_of: Callable[[bytes, int], Iterable[T]]
) -> Iterator[T | Reject]:
    """Yield the items of each line, or a reject for a line over MAX_LINE_BYTES. items_of: takes a line and its position."""
    at = start
    for line in read_lines(chunks):
        position = at
        if isinstance(line, int):
            at += line
            yield line_too_long(position, line)
            continue
        at += len(line)
        lines = [line]
        del line  # the line and its text may be long: only `items_of` holds both
        yield from items_of(lines.pop(), position)


def _join(parts: list[bytes], last: bytes) -> bytes:
    """Join the parts of a line and empty the list, so that only the caller holds the line."""
    line = b"".join([*parts, last])
    parts.clear()
    return line

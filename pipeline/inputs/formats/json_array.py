"""A JSON array of objects, read as a stream. An element is a record like a line of JSON Lines.

An element ends at the comma or the bracket that follows it, outside of strings and of its own brackets. All bytes up to
there are its record, so text between two elements makes one reject and reading goes on after the comma. Where an element
does not end before the file does, or the array ends before the file does, the rest is one reject.
"""

import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.json_lines import read_object
from pipeline.inputs.formats.streamed import BOM, MAX_LINE_BYTES, read_stream
from pipeline.inputs.sources import ReadConfig, Split
from pipeline.text.records import DAMAGED, SHOWN_CHARACTERS, Item, Reject, Row, first_characters

_SPACE = b" \t\r\n"
_FIRST_OBJECT = re.compile(rb"\[\s*\{\s*[\"}]")
_STRING = (  # the first form, which only looks for quotes, is six times as fast, but knows no quote after two backslashes
    rb'(?:"(?:[^"]*+(?<=[^\\]\\)")*+[^"]*+(?<!\\)"|"(?:[^"\\]++|\\[\s\S])*+")'
)
_OUTSIDE = re.compile(rb'(?:[^"{}\[\],]++|' + _STRING + rb")*+")  # up to what may end or begin something
_INSIDE = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb")*+")  # in brackets, where commas end nothing
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\[\s\S])*+')


class _Scanner:
    """Finds the ends of the elements in bytes that arrive in chunks. It looks at each byte once."""

    def __init__(self) -> None:
        self.at = 0  # where it goes on
        self._depth = 0  # brackets that are open
        self._in_string = False

    def next_end(self, held: bytes) -> int | None:
        """Return where the comma or bracket after the element is, from `at` on. None if more bytes are needed."""
        while True:
            if self._in_string:
                self.at = _end(_IN_STRING, held, self.at)
                if held[self.at : self.at + 1] != b'"':  # nothing is left, or half an escape
                    return None
                self.at, self._in_string = self.at + 1, False
            self.at = _end(_INSIDE if self._depth else _OUTSIDE, held, self.at)
            found = held[self.at : self.at + 1]
            if not found:
                return None
            self.at += 1
            if found == b'"':
                self._in_string = True
            elif found in b"{[":
                self._depth += 1
            elif self._depth:
                self._depth -= 1
            elif found in b",]":
                return self.at - 1


def _end(pattern: re.Pattern[bytes], held: bytes, at: int) -> int:
    match = pattern.match(held, at)
    assert match  # the pattern also matches the empty string
    return match.end()


def read_array(chunks: Iterable[bytes], start: int, config: ReadConfig, is_begun: bool) -> Iterator[Row | Reject]:
    """Yield the rows and rejects of an array. is_begun: the first byte is in the array, not before its bracket."""
    columns = config.text_column, config.id_column, config.document_column
    scanner = _Scanner()
    held, at = b"", start  # the bytes from the element on that is read now, and the position of the first of them
    too_long_at: int | None = None  # where this element begins if it is too long to hold
    chunks = iter(chunks)
    for chunk in chunks:
        held += chunk
        if not is_begun:
            held, at = _without_space(held, at)
            if not held:
                continue
            if not held.startswith(b"["):
                yield _not_read(held, 0, chunks, "expected an array of objects, which begins with [")
                return
            held, at, is_begun = held[1:], at + 1, True
        done = 0
        while (end := scanner.next_end(held)) is not None:
            closes = held[end : end + 1] == b"]"
            raw, position = _without_space(held[done:end], at + done)
            position = position if too_long_at is None else too_long_at
            if at + end - position > MAX_LINE_BYTES:
                yield Reject(position, "record-too-long", f"{at + end - position} bytes, over {MAX_LINE_BYTES}")
            elif raw:
                yield read_object(raw.rstrip(_SPACE), position, *columns)
            elif not closes:
                yield Reject(position, "not-json", "no element before this comma")
            too_long_at, done = None, end + 1
            if closes:
                yield from _after_end(held[end:], at + end, chunks)
                return
        held, at, scanner.at = held[done:], at + done, scanner.at - done
        if too_long_at is None:
            num_blank = len(held) - len(held.lstrip(_SPACE))
            held, at, scanner.at = held[num_blank:], at + num_blank, scanner.at - num_blank
        if len(held) > MAX_LINE_BYTES:
            too_long_at = at if too_long_at is None else too_long_at
            held, at, scanner.at = held[scanner.at :], at + scanner.at, 0
    if is_begun:
        position = at if too_long_at is None else too_long_at
        detail = f"the file ends before its array does: its last {at + len(held) - position} bytes are not used"
        shown = first_characters(held) if too_long_at is None else ""
        yield Reject(position, DAMAGED, f"{detail}, what came before was kept", shown)


def _after_end(held: bytes, at: int, chunks: Iterator[bytes]) -> Iterator[Reject]:
    """Yield a reject if there is more than white space after the end of the array, which is the first byte of `held`."""
    more = held[1:].lstrip(_SPACE)
    while not more:
        chunk = next(chunks, b"")
        if not chunk:
            return
        more = chunk.lstrip(_SPACE)
    yield _not_read(more, at, chunks, "the array ends here")


def _not_read(held: bytes, at: int, chunks: Iterator[bytes], what: str) -> Reject:
    num_bytes = len(held)
    for chunk in chunks:
        num_bytes += len(chunk)
        held = (held + chunk)[: 4 * SHOWN_CHARACTERS] if len(held) < 4 * SHOWN_CHARACTERS else held
    return Reject(at, "not-json", f"{what}: the {num_bytes} bytes that follow are not read", first_characters(held))


def _without_space(raw: bytes, position: int) -> tuple[bytes, int]:
    """Return (the bytes without white space before them, the position of the first that is left)."""
    rest = raw.lstrip(_SPACE)
    return rest, position + len(raw) - len(rest)


def _begins(head: bytes, config: ReadConfig) -> bool:
    return _FIRST_OBJECT.match(head.removeprefix(BOM).lstrip(_SPACE)) is not None


def _read(file: BinaryIO, split: Split, start: int) -> Iterator[Item]:
    def read(chunks: Iterable[bytes], position: int) -> Iterator[Item]:
        return read_array(chunks, position, split.source.read, is_begun=start > 0)

    return read_stream(file, split, start, read)


JSON_ARRAY = Format(
    name="json-array",
    description="a JSON array",
    endings=(),
    shared_endings=(".json",),
    begins=_begins,
    read=_read,
    has_records=True,
    has_encodings=True,
)

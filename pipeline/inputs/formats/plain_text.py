"""Plain text: documents separated by blank lines, a document in each line, or one in each file; or a record in each line."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import BinaryIO

from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.streamed import LINE_END, Chunks, find_borders, read_each_line, read_stream
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.inputs.streams import CHUNK
from pipeline.text.gutenberg import Licence
from pipeline.text.line_breaks import LineBreaks
from pipeline.text.records import (
    MAX_DOCUMENT_BYTES,
    SHOWN_CHARACTERS,
    Document,
    Item,
    Pieces,
    Record,
    Reject,
    Row,
    decode_row,
    decode_text,
    whole_or_pieces,
)

_WHITE_SPACE = (  # other than line breaks: what str.strip() removes, as in Google's reader
    rb"[ \t\v\f\x1c-\x1f]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2(?:\x80[\x80-\x8a\xa8\xa9\xaf]|\x81\x9f)|\xe3\x80\x80"
)
_BLANK = rb"(?:" + _WHITE_SPACE + rb")*+"
_BREAK = rb"(?:\n|\r\n?+)"  # possessive, so that a CRLF is never taken for two line breaks
BLANK_LINES = re.compile(_BREAK + rb"(?:" + _BLANK + _BREAK + rb")+")
_BLANK_LINES_LF = re.compile(rb"\n(?:" + _BLANK + rb"\n)+")  # the same for text without CR; ten times as fast
_LEADING_BLANK_LINES = re.compile(rb"(?:" + _BLANK + rb"(?:" + _BREAK + rb"|\Z))*")
_BLANK_LINE = re.compile(rb"(?:" + _WHITE_SPACE + rb"|[\r\n])*+")
# the bytes that a border can have
_BLANK_BYTES = bytes([*range(9, 14), *range(28, 33), *range(0x80, 0x8B)]) + b"\x9a\x9f\xa0\xa8\xa9\xaf\xc2\xe1\xe2\xe3"


def read_texts(chunks: Iterable[bytes], start: int) -> Iterator[Document]:
    """Yield documents separated by blank lines, in the format of google-research/bert: a line break ends a sentence."""
    long: Pieces | None = None  # a document that is given out piece by piece
    for at, raw, last in _bits(chunks, start):
        text, num_replaced = decode_text(raw)
        if last and not long:
            yield from whole_or_pieces(text, at, num_replaced)
        else:
            long = long or Pieces(at)
            yield from long.add(text, num_replaced, last)
            long = None if last else long


def read_file_as_text(chunks: Iterable[bytes], start: int, line_breaks: LineBreaks) -> Iterator[Document | Reject]:
    """Yield the file as one document. A blank line ends a paragraph."""
    pieces, begun = None, False  # begun: in the middle of a paragraph
    for at, raw, last in _bits(chunks, start):
        if raw or begun:
            pieces = pieces or Pieces(at, None, line_breaks)
            text, num_replaced = decode_text(raw)
            yield from pieces.add(text.replace(b"\n", b"\r") + b"\n" * last, num_replaced, last=False)
        begun = not last
    if pieces:
        yield from pieces.add(b"", 0, last=True)
    else:
        yield Reject(start, "empty-text")


def read_lines_as_texts(chunks: Iterable[bytes], start: int) -> Iterator[Document | Reject]:
    """Yield every line as a document."""
    return read_each_line(chunks, start, _documents_of_line)


def _documents_of_line(line: bytes, position: int) -> Iterable[Document | Reject]:
    if _BLANK_LINE.fullmatch(line):
        return (Reject(position, "blank-line"),)
    text, num_replaced = decode_text(line.strip())
    return whole_or_pieces(text.replace(b"\n", b" "), position, num_replaced)


def read_lines_as_rows(chunks: Iterable[bytes], start: int) -> Iterator[Row | Reject]:
    """Yield every line as a record of a document."""
    return read_each_line(chunks, start, _rows_of_line)


def _rows_of_line(line: bytes, position: int) -> tuple[Row]:
    text, num_replaced = decode_row(line)
    return (Row(text, position, line[: 4 * SHOWN_CHARACTERS], num_replaced),)


def _bits(chunks: Iterable[bytes], start: int) -> Iterator[tuple[int, bytes, bool]]:
    """Yield (position, bytes, is it the last bit) of texts separated by blank lines.

    A text is one bit, or several when it is too long to hold.
    """
    held, at = b"", start  # bytes not given out yet, the position of the first
    begun = False  # whether it is inside a text
    for chunk in itertools.chain(chunks, [b"\n"]):  # the last line may have no line feed
        searched = len(held.rstrip(_BLANK_BYTES))  # a border cannot begin before this byte
        held += chunk
        begin = 0
        for border in (BLANK_LINES if b"\r" in held else _BLANK_LINES_LF).finditer(held, searched):
            blank = 0 if begun else _leading_blanks(held, begin, border.start())
            yield at + begin + blank, held[begin + blank : border.start()], True
            begin, begun = border.end(), False
        held, at = held[begin:], at + begin
        while len(held) > MAX_DOCUMENT_BYTES + CHUNK:
            cut = 0 if begun else _leading_blanks(held)
            if not cut:
                cut = _safe_cut(held)
                yield at, held[:cut], False
                begun = True
            held, at = held[cut:], at + cut
    blank = 0 if begun else _leading_blanks(held)
    yield at + blank, held[blank:], True


def _leading_blanks(raw: bytes, begin: int = 0, end: int | None = None) -> int:
    """Return the size of the blank lines at the start: the rest of a border that a chunk or split cut in two."""
    blank = _LEADING_BLANK_LINES.match(raw, begin, len(raw) if end is None else end)
    assert blank  # the pattern also matches the empty string
    return blank.end() - begin


def _safe_cut(raw: bytes) -> int:
    """Return where a long text may be cut in two bits: before a line break, else a space, else a character."""
    cut = max(raw.rfind(b"\n"), raw.rfind(b"\r"))
    cut -= raw[cut - 1 : cut + 1] == b"\r\n"
    if cut > 0:
        return cut
    cut = raw.rfind(b" ")
    if cut > 0:
        return cut
    last = len(raw) - 1
    for cut in range(last, max(last - 4, 0), -1):  # a character has at most three bytes after its first
        if raw[cut] & 0xC0 != 0x80:
            return cut
    return last  # not UTF-8


def _read(file: BinaryIO, split: Split, start: int) -> Iterator[Item]:
    config = split.source.read
    layouts: dict[str, Callable[[Chunks, int], Iterator[Item]]] = {
        "blank-line": read_texts,
        "line": read_lines_as_texts,
        "file": partial(_read_file, config=config),
    }
    read = layouts[config.text_layout] if config.records == "documents" else read_lines_as_rows
    return read_stream(file, split, start, read, keeps_unfinished=True)


def _read_file(chunks: Chunks, start: int, config: ReadConfig) -> Iterator[Record]:
    licence = Licence()
    bare = licence.strip(chunks) if config.strip_gutenberg else chunks
    records: Iterable[Record] = read_file_as_text(bare, start, config.line_breaks)
    for record in licence.counted(records, start) if config.strip_gutenberg else records:
        if not (chunks.damage and isinstance(record, Reject)):  # a damaged file may hold more than the blank start
            yield record


def _find_cuts(source: Source, split_bytes: int) -> list[int]:
    borders = {"blank-line": BLANK_LINES, "line": LINE_END, "file": None}
    border = borders[source.read.text_layout] if source.read.records == "documents" else LINE_END
    return find_borders(border, source, split_bytes) if border else []


PLAIN_TEXT = Format(
    name="txt",
    description="plain text",
    endings=(".txt",),
    name_pattern=r"wiki\.(train|valid|test)\.(raw|tokens)",
    read=_read,
    find_cuts=_find_cuts,
    has_records=True,
    has_encodings=True,
    has_layouts=True,
)

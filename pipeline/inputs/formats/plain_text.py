"""Plain text in its three layouts: documents parted by blank lines, one document a line, one document a file."""

import itertools
import re
from collections.abc import Iterable, Iterator

from pipeline.inputs.formats.json_lines import line_too_long, read_lines
from pipeline.inputs.streams import CHUNK
from pipeline.text.records import MAX_DOCUMENT_BYTES, Document, Pieces, Reject, decoded, whole_or_pieces

_BLANK = rb"(?:[ \t\v\f]|\xc2\xa0|\xe3\x80\x80)*"  # also the no-break space and the ideographic space
_BREAK = rb"(?:\n|\r\n?+)"  # possessive: the two bytes of one CRLF are never two line breaks
BLANK_LINES = re.compile(_BREAK + rb"(?:" + _BLANK + _BREAK + rb")+")
_BLANK_LINES_LF = re.compile(rb"\n(?:" + _BLANK + rb"\n)+")  # the same where no CR is; ten times as fast
_LEADING_BLANK_LINES = re.compile(rb"(?:" + _BLANK + rb"(?:" + _BREAK + rb"|\Z))*")
_BLANK_BYTES = b" \t\v\f\r\n\xc2\xa0\xe3\x80"  # every byte of a border is one of these


def read_texts(chunks: Iterable[bytes], start: int) -> Iterator[Document]:
    """Documents parted by blank lines, in Google's form: a line break ends a sentence."""
    long: Pieces | None = None  # a document whose first bytes are gone already
    for at, raw, last in _bits(chunks, start):
        text, num_replaced = decoded(raw)
        if last and not long:
            yield from whole_or_pieces(text, at, num_replaced)
        else:
            long = long or Pieces(at)
            yield from long.add(text, num_replaced, last)
            long = None if last else long


def read_file_as_text(chunks: Iterable[bytes], start: int) -> Iterator[Document | Reject]:
    """The file as one document: a blank line ends a paragraph, a single line break is one within it."""
    pieces, begun = None, False  # begun: is it within a paragraph
    for at, raw, last in _bits(chunks, start):
        if raw or begun:
            pieces = pieces or Pieces(at)
            text, num_replaced = decoded(raw)
            yield from pieces.add(text.replace(b"\n", b"\r") + b"\n" * last, num_replaced, last=False)
        begun = not last
    if pieces:
        yield from pieces.add(b"", 0, last=True)
    else:
        yield Reject(start, "empty-text")


def read_lines_as_texts(chunks: Iterable[bytes], start: int) -> Iterator[Document | Reject]:
    """Every line as a document."""
    at = start
    for line in read_lines(chunks):
        if isinstance(line, int):
            yield line_too_long(at, line)
            at += line
            continue
        text, num_replaced = decoded(line.strip())
        if text:
            yield from whole_or_pieces(text.replace(b"\n", b" "), at, num_replaced)
        else:
            yield Reject(at, "blank-line")
        at += len(line)


def _bits(chunks: Iterable[bytes], start: int) -> Iterator[tuple[int, bytes, bool]]:
    """(position, bytes, is it the last bit) of texts that are parted by blank lines; most are one bit, and those too long
    to hold are several."""
    held, at, begun = b"", start, False  # bytes not yet given out, the position of the first, and is it within a text
    for chunk in itertools.chain(chunks, [b"\n"]):  # the last line may lack its end
        searched = len(held.rstrip(_BLANK_BYTES))  # a border may have begun behind it, not before
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
    """Bytes of blank lines at the start: left of a border that the chunk's or the split's end cut through."""
    blank = _LEADING_BLANK_LINES.match(raw, begin, len(raw) if end is None else end)
    assert blank  # it matches nothing at all, too
    return blank.end() - begin


def _safe_cut(raw: bytes) -> int:
    """Where a text without document borders may be cut and read on: before a line break, a space, or a character."""
    cut = max(raw.rfind(b"\n"), raw.rfind(b"\r"))
    cut -= raw[cut - 1 : cut + 1] == b"\r\n"
    if cut > 0:
        return cut
    cut = raw.rfind(b" ")
    if cut > 0:
        return cut
    last = len(raw) - 1
    for cut in range(last, max(last - 4, 0), -1):  # a character has at most three bytes behind its first
        if raw[cut] & 0xC0 != 0x80:
            return cut
    return last  # no character at all

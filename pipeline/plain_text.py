"""Plain text in Google's form: a blank line parts documents, a line break ends a sentence or a paragraph."""

import itertools
import re
from collections.abc import Iterable, Iterator

from pipeline.records import MAX_DOCUMENT_BYTES, Document, Pieces, decoded, whole_or_pieces
from pipeline.streams import CHUNK

_BLANK = rb"(?:[ \t\v\f]|\xc2\xa0|\xe3\x80\x80)*"  # also the no-break space and the ideographic space
_BREAK = rb"(?:\n|\r\n?+)"  # possessive: the two bytes of one CRLF are never two line breaks
BLANK_LINES = re.compile(_BREAK + rb"(?:" + _BLANK + _BREAK + rb")+")
_BLANK_LINES_LF = re.compile(rb"\n(?:" + _BLANK + rb"\n)+")  # the same where no CR is; ten times as fast
_LEADING_BLANK_LINES = re.compile(rb"(?:" + _BLANK + rb"(?:" + _BREAK + rb"|\Z))*")
_BLANK_BYTES = b" \t\v\f\r\n\xc2\xa0\xe3\x80"  # every byte of a border is one of these


def read_text(chunks: Iterable[bytes], start: int) -> Iterator[Document]:
    """Documents parted by blank lines. One that is too long to hold is cut into pieces while it is read."""
    held, at = b"", start  # bytes not yet given out, and the position of the first of them
    long: Pieces | None = None  # a document whose first bytes are gone already
    for chunk in itertools.chain(chunks, [b"\n"]):  # the last line may lack its end
        searched = len(held.rstrip(_BLANK_BYTES))  # a border may have begun behind it, not before
        held += chunk
        begin = 0
        for border in (BLANK_LINES if b"\r" in held else _BLANK_LINES_LF).finditer(held, searched):
            text = held[begin : border.start()]
            if long:
                yield from long.add(*decoded(text), last=True)
                long = None
            else:
                yield from _one_text(text, at + begin)
            begin = border.end()
        held, at = held[begin:], at + begin
        while len(held) > MAX_DOCUMENT_BYTES + CHUNK:
            if not long:
                blank = _leading_blanks(held)
                held, at = held[blank:], at + blank
                long = Pieces(at)
            cut = _safe_cut(held)
            yield from long.add(*decoded(held[:cut]), last=False)
            held, at = held[cut:], at + cut
    if long:
        yield from long.add(*decoded(held), last=True)
    else:
        yield from _one_text(held, at)


def _one_text(raw: bytes, position: int) -> Iterator[Document]:
    blank = _leading_blanks(raw)
    text, num_replaced = decoded(raw[blank:])
    yield from whole_or_pieces(text, position + blank, num_replaced)


def _leading_blanks(raw: bytes) -> int:
    """Bytes of blank lines at the start: left of a border that the chunk's or the split's end cut through."""
    blank = _LEADING_BLANK_LINES.match(raw)
    assert blank  # it matches nothing at all, too
    return blank.end()


def _safe_cut(raw: bytes) -> int:
    """Where a text without document borders may be cut and read on: before a line break, a space, or a character."""
    cut = max(raw.rfind(b"\n"), raw.rfind(b"\r"))
    if cut > 0:
        return cut - (raw[cut - 1 : cut + 1] == b"\r\n" and cut > 1)
    cut = raw.rfind(b" ")
    if cut > 0:
        return cut
    cut = len(raw) - 1
    while cut > 1 and raw[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut

"""What readers give: documents, and records that are none; and how a text becomes one document or several.

In a text as a reader gives it a line feed ends a paragraph and a carriage return is a line break within one. Steps that
look at lines see both; `joined` makes a space of the second.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

MAX_DOCUMENT_BYTES = 4_000_000
SHOWN_CHARACTERS = 200  # of a reject
SLICE = 1_000_000  # characters of a text worked on at a time

_PARAGRAPHS = re.compile(r"\r\s*\r")
_NOT_SPACE = re.compile(r"\S")
_BLANK = " \t\r\n\v\f"
_SPACE = re.compile(rb"\s*")
_SURROGATES = re.compile("[\ud800-\udfff]")
_SENTENCE_ENDS = (b". ", b"! ", b"? ", "。".encode(), "！".encode(), "？".encode())


@dataclass(frozen=True, slots=True)
class Document:
    """One document, or one piece of a text over MAX_DOCUMENT_BYTES."""

    text: bytes
    """Cleaned text; as a reader gives it, with a carriage return for a line break within a paragraph."""
    position: int
    """Where its record begins: a byte of the uncompressed file, or the row of a table."""
    piece: int = 0
    source_key: int | None = None
    """The id of the text's first piece; None: the document's own id."""
    num_replaced: int = 0
    """Bytes or escapes that were no Unicode and became U+FFFD; the last piece tells those of the whole text."""
    record_id: str | None = None
    """What the source itself calls the record (`--id-column`), where it says."""
    cleaned: tuple[str, ...] = ()
    """Names of the cleaning steps that changed it."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is no document, though it should have been one."""

    position: int
    reason: str
    detail: str = ""
    text: str = ""
    """Its first SHOWN_CHARACTERS."""
    record_id: str | None = None
    piece: int = 0


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A record that nobody asked for, such as a redirect: counted, not listed."""

    position: int
    reason: str
    piece: int = 0


Record = Document | Reject | PassedOver


def document_digest(text: bytes) -> bytes:
    """SHA-256 of the cleaned text; its first 8 bytes, big-endian, are the document's id."""
    return hashlib.sha256(text).digest()


def decoded(raw: bytes) -> tuple[bytes, int]:
    """(UTF-8 with line feeds alone, number of U+FFFD put in). Bits cut before a line break, a space or a character may
    be decoded apart."""
    num_replaced = 0
    if not is_utf8(raw):
        repaired = raw.decode(errors="replace").encode()
        num_replaced = repaired.count(b"\xef\xbf\xbd") - raw.count(b"\xef\xbf\xbd")
        raw = repaired
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return raw, num_replaced


def is_utf8(raw: bytes) -> bool:
    """Is it valid UTF-8? By Arrow, which is ten times as fast as to decode it."""
    if raw.isascii():
        return True
    buffers = [None, pa.py_buffer(np.array([0, len(raw)], np.int32)), pa.py_buffer(raw)]
    try:
        pa.Array.from_buffers(pa.utf8(), 1, buffers).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def paragraphs(text: str) -> tuple[bytes, int]:
    """(A text of hard-wrapped lines as UTF-8, with a line feed behind each paragraph and carriage returns within, halves of
    surrogate pairs that became U+FFFD)."""
    slices: list[bytes] = []
    num_surrogates = begin = 0
    while begin < len(text):  # a long text is held twice, not as often as there are steps
        following = _NOT_SPACE.search(text, begin + SLICE)  # white space is not cut: it may hold a paragraph's end
        end = following.start() if following else len(text)
        part = text[begin:end].lstrip(_BLANK)
        if not following:
            part = part.rstrip(_BLANK)
        if "\r" in part:
            part = part.replace("\r\n", "\n")
        part = part.replace("\n", "\r")
        if "\r" in part:
            part = _PARAGRAPHS.sub("\n", part)
        try:
            slices.append(part.encode())
        except UnicodeEncodeError:
            part, number = _SURROGATES.subn("\ufffd", part)
            slices.append(part.encode())
            num_surrogates += number
        begin = end
    return b"".join(slices), num_surrogates


def joined(record: Record) -> Record:
    """The record, of a document the lines of each paragraph on one."""
    if isinstance(record, Document) and b"\r" in record.text:
        return replace(record, text=joined_text(record.text))
    return record


def joined_text(text: bytes) -> bytes:
    """The text with a space for each line break within a paragraph."""
    return text.replace(b"\r", b" ")


def first_characters(raw: bytes) -> str:
    """The first characters of a record, for people to know it by."""
    return raw[: 4 * SHOWN_CHARACTERS].decode(errors="replace")[:SHOWN_CHARACTERS].rstrip("\r\n")


def whole_or_pieces(
    text: bytes, position: int, num_replaced: int = 0, record_id: str | None = None
) -> Iterator[Document]:
    """The document, or its pieces; nothing where it is blank."""
    if len(text) <= MAX_DOCUMENT_BYTES:
        text = text.strip()
        if text:
            yield Document(text, position, 0, None, num_replaced, record_id)
        return
    yield from Pieces(position, record_id).add(text, num_replaced, last=True)


class Pieces:
    """Cuts one text, given bit by bit, at the last paragraph's end, else sentence's, else word's, in each 4 MB.

    Where it is cut depends on the text alone, not on the bits in which it came.
    """

    def __init__(self, position: int, record_id: str | None = None):
        self.position, self.record_id = position, record_id
        self.held: list[bytes] = []  # bits, joined where they are enough for a piece: each sum would copy all before it
        self.size = 0  # of what is held
        self.num_replaced = 0
        self.piece = 0
        self.source_key: int | None = None  # None: there is one piece alone, as far as is known

    def add(self, text: bytes, num_replaced: int, last: bool) -> Iterator[Document]:
        self.held.append(text)
        self.size += len(text)
        self.num_replaced += num_replaced
        if self.size <= MAX_DOCUMENT_BYTES and not last:
            return
        text = b"".join(self.held)
        begin, end = _begin(text, 0), len(text.rstrip())
        while end - begin > MAX_DOCUMENT_BYTES:
            cut = begin + _piece_end(text[begin : begin + MAX_DOCUMENT_BYTES])
            if self.source_key is None:
                self.source_key = int.from_bytes(document_digest(joined_text(text[begin:cut].strip()))[:8], "big")
            yield from self._piece(text[begin:cut], 0)
            begin = _begin(text, cut)
        self.held, self.size = [text[begin:]], len(text) - begin
        if last:
            yield from self._piece(text[begin:], self.num_replaced)

    def _piece(self, text: bytes, num_replaced: int) -> Iterator[Document]:
        text = text.strip()
        if not text:
            return
        yield Document(text, self.position, self.piece, self.source_key, num_replaced, self.record_id)
        self.piece += 1


def _begin(text: bytes, start: int) -> int:
    """Where the white space from `start` on ends."""
    space = _SPACE.match(text, start)
    assert space  # it matches nothing at all, too
    return space.end()


def _piece_end(window: bytes) -> int:
    window = joined_text(window)
    cut = window.rfind(b"\n")
    if cut <= 0:
        cut = max((window.rfind(end) + len(end) for end in _SENTENCE_ENDS if end in window), default=0)
    if cut <= 0:
        cut = window.rfind(b" ")
    if cut <= 0:
        cut = len(window)
        while window[cut - 1] & 0xC0 == 0x80:  # back to the first byte of the last character, which may be cut short
            cut -= 1
        cut -= 1
    return cut

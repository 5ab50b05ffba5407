"""The records of an input file (documents, rejects, records passed over), and the cutting of long texts into pieces.

In a text as a reader yields it, a line feed ends a paragraph and a carriage return is a line break within one. Steps that
work on lines see both; `join_lines` replaces the second by a space.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipeline.text.line_breaks import LineBreaks, decide

MAX_DOCUMENT_BYTES = 4_000_000
SHOWN_CHARACTERS = 200  # of a reject
ID_CHARACTERS = 1000  # of a record's own id, which may be anything
DAMAGED = "damaged-file"  # the reason of a reject for a part of a file that cannot be read
LAST_POSITION = (1 << 63) - 1
ENTRY_MARK = "!"  # between the names of an archive and of a file in it
SLICE = 1_000_000  # characters of a text processed at a time

_PARAGRAPHS = re.compile(r"\r\s*\r")
_NOT_SPACE = re.compile(r"\S")
_FIRST_BLANK_LINES = re.compile(r"(?:\s*(?:[\r\n]|\Z))?")
_LINE_BREAK = re.compile(r"[\r\n]")
_BLANK = " \t\r\n\v\f"
_SPACE = re.compile(rb"\s*")
_SURROGATES = re.compile("[\ud800-\udfff]")
_CHINESE = rb"[\xe3-\xe9]..|\xef[\xbc-\xbf]."  # and Japanese, with their marks
_QUOTES = rb"\xe2\x80[\x94\x98\x99\x9c\x9d\xa6]"  # and dashes, which other languages have, too
_INSIDE_CHINESE = re.compile(
    rb"\r(?:(?:(?<=[\xe3-\xe9]..\r)|(?<=\xef[\xbc-\xbf].\r))(?=%b|%b)|(?<=%b\r)(?=%b))"
    % (_CHINESE, _QUOTES, _QUOTES, _CHINESE),
    re.DOTALL,
)
_SENTENCE_ENDS = (b". ", b"! ", b"? ", "。".encode(), "！".encode(), "？".encode())


@dataclass(frozen=True, slots=True)
class EntryPlace:
    """Where an entry, which is a file in an archive, is."""

    name: str
    """Its name in the archive; `inner.tar!a.txt` in an archive inside the archive; "" for the archive itself."""
    first: int
    """Position, in the archive, of its beginning."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document, or one piece of a text over MAX_DOCUMENT_BYTES."""

    text: bytes
    """UTF-8. Before cleaning, a carriage return is a line break within a paragraph."""
    position: int
    """Where its record begins: a byte offset in the uncompressed file, or a row number. In an archive a number that grows
    from record to record; `position - entry.first` is the position in its file."""
    piece: int = 0
    source_key: int | None = None
    """Id of the text's first piece; None: the document's own id."""
    num_replaced: int = 0
    """Bytes or escapes that were not valid Unicode and became U+FFFD. The last piece has the number for the whole text."""
    record_id: str | None = None
    """The record's own id in the source (`--id-column`), if any; of several records, that of the first."""
    last_record: int | None = None
    """Where the last of its records begins in its file, if it has several (`--records`). Of a piece, the last one that was
    read when it was cut."""
    cleaned: tuple[str, ...] = ()
    """Names of the cleaning steps that changed it."""
    entry: EntryPlace | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that should be a document but cannot be used."""

    position: int
    reason: str
    detail: str = ""
    text: str = ""
    """Its first SHOWN_CHARACTERS."""
    record_id: str | None = None
    piece: int = 0
    entry: EntryPlace | None = None
    test_sets: tuple[str, ...] = ()
    """Names of the test sets (`--exclude`) with which it shares a run of words."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Records that are not meant to be documents, such as a redirect: counted, not listed."""

    position: int
    """Where the first of them begins, or the document that they are part of."""
    reason: str
    piece: int = 0
    number: int = 1
    entry: EntryPlace | None = None


Record = Document | Reject | PassedOver


@dataclass(frozen=True, slots=True)
class Row:
    """A record with a text of its own, as its file holds it. pipeline/inputs/rows.py makes documents of rows."""

    text: str
    """May hold lone surrogates."""
    position: int
    shown: bytes
    """The first bytes of the record, for the list of rejects: at least 4 * SHOWN_CHARACTERS, or all of them."""
    num_replaced: int = 0
    record_id: str | None = None
    document: str | None = None
    """The value of `--document-column` as Python writes it, so that 1 and "1" differ. None without this option."""


Item = Record | Row
"""What the reader of a format yields."""


def place_of(source: str, record: Document | Reject) -> tuple[str, int]:
    """Return (file, position there) of a record of a source. The file of a record in an archive is `ARCHIVE!ENTRY`."""
    entry = record.entry
    return (source, record.position) if entry is None else place_in_entry(source, entry, record.position)


def place_in_entry(source: str, entry: EntryPlace, position: int) -> tuple[str, int]:
    """Return (file, position there) for a position in an entry of an archive."""
    return f"{source}{ENTRY_MARK}{entry.name}" if entry.name else source, position - entry.first


def document_digest(text: bytes) -> bytes:
    """Return the SHA-256 of a cleaned text. Its first 8 bytes, big-endian, are the document's id."""
    return hashlib.sha256(text).digest()


def document_id(text: bytes) -> int:
    """Return the id of a text whose line breaks within paragraphs may not be joined yet."""
    return int.from_bytes(document_digest(join_text_lines(text))[:8], "big")


def decode_text(raw: bytes) -> tuple[bytes, int]:
    """Return (valid UTF-8 whose line breaks are line feeds, number of U+FFFD inserted).

    A text that is cut before a line break, a space or a character may be decoded bit by bit.
    """
    num_replaced = 0
    if not is_utf8(raw):
        text, num_replaced = decode_row(raw)
        raw = text.encode()
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return raw, num_replaced


def decode_row(raw: bytes) -> tuple[str, int]:
    """Return (text with its line breaks as they are, number of U+FFFD inserted)."""
    try:
        return raw.decode(), 0
    except UnicodeDecodeError:
        text = raw.decode(errors="replace")
        return text, text.count("\ufffd") - raw.count("\ufffd".encode())


def is_utf8(raw: bytes) -> bool:
    """Return whether it is valid UTF-8, by Arrow, which is ten times as fast as decoding."""
    if raw.isascii():
        return True
    import pyarrow as pa  # not at the top: --help does not need it

    buffers = [None, pa.py_buffer(np.array([0, len(raw)], np.int32)), pa.py_buffer(raw)]
    try:
        pa.Array.from_buffers(pa.utf8(), 1, buffers).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def paragraphs(text: str) -> tuple[bytes, int]:
    """Convert a text in which blank lines end paragraphs to the form of a reader.

    Returns (UTF-8 with a line feed after each paragraph and carriage returns within, lone surrogates that became U+FFFD).
    """
    slices: list[bytes] = []
    num_surrogates = 0
    first = _FIRST_BLANK_LINES.match(text)
    assert first  # the pattern also matches the empty string
    last = _LINE_BREAK.search(text, len(text.rstrip()))
    begin, stop = first.end(), last.start() if last else len(text)
    while begin < stop:  # in slices, so that a long text is held twice and not once for each step
        following = _NOT_SPACE.search(text, begin + SLICE, stop)  # not within white space, which may end a paragraph
        end = following.start() if following else stop
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


def join_lines(record: Record) -> Record:
    """Return the record; in a document, the lines of each paragraph are joined."""
    if isinstance(record, Document) and b"\r" in record.text:
        return replace(record, text=join_text_lines(record.text))
    return record


def join_text_lines(text: bytes) -> bytes:
    """Return the text with its lines joined: by a space, except between Chinese characters, where it would part words."""
    if not text.isascii():
        text = _INSIDE_CHINESE.sub(b"", text)
    return text.replace(b"\r", b" ")


def first_characters(raw: bytes) -> str:
    """Return the first characters of a record, for the list of rejects."""
    return raw[: 4 * SHOWN_CHARACTERS].decode(errors="replace")[:SHOWN_CHARACTERS].rstrip("\r\n")


def shown_id(value: object) -> str:
    """Return a record's own id as the list of rejects shows it. JSON can hold lone surrogates, which UTF-8 cannot."""
    try:
        text = str(value)
    except RecursionError:
        text = f"a {type(value).__name__} that is nested too deeply"
    return text[:ID_CHARACTERS].encode(errors="replace").decode()


def whole_or_pieces(
    text: bytes,
    position: int,
    num_replaced: int = 0,
    record_id: str | None = None,
    line_breaks: LineBreaks = "space",
) -> Iterator[Document]:
    """Yield the document, or its pieces when it is long, or nothing when it is blank."""
    if len(text) <= MAX_DOCUMENT_BYTES:
        text = text.strip()
        if b"\r" in text and decide(text, line_breaks) == "paragraph":
            text = text.replace(b"\r", b"\n")
        if text:
            yield Document(text, position, 0, None, num_replaced, record_id)
        return
    yield from Pieces(position, record_id, line_breaks).add(text, num_replaced, last=True)


def or_empty(
    documents: Iterator[Document], position: int, raw: bytes, record_id: str | None, detail: str = ""
) -> Iterator[Document | Reject]:
    """Yield the documents, or a reject that shows the first characters of `raw` when there are none."""
    yield next(documents, None) or Reject(position, "empty-text", detail, first_characters(raw), record_id)
    yield from documents


class Pieces:
    """Cuts one text, added bit by bit, into pieces of at most MAX_DOCUMENT_BYTES.

    A cut is at the last end of a paragraph, else of a sentence, else of a word. It depends only on the text, not on the
    bits in which it arrives.
    """

    def __init__(self, position: int, record_id: str | None = None, line_breaks: LineBreaks = "space"):
        self.position, self.record_id, self.line_breaks = position, record_id, line_breaks
        self.held: list[bytes] = []  # joined once they fill a piece: joining each bit would copy all before it
        self.size = 0  # of what is held
        self.num_replaced = 0
        self.piece = 0
        self.source_key: int | None = None  # None while there is only one piece

    def add(self, text: bytes, num_replaced: int, last: bool) -> Iterator[Document]:
        self.held.append(text)
        self.size += len(text)
        self.num_replaced += num_replaced
        if self.size <= MAX_DOCUMENT_BYTES and not last:
            return
        text = b"".join(self.held)
        begin, end = _begin(text, 0), len(text.rstrip())
        if last or end - begin > MAX_DOCUMENT_BYTES:
            self.line_breaks = decide(text, self.line_breaks)
        if self.line_breaks == "paragraph":
            text = text.replace(b"\r", b"\n")
        while end - begin > MAX_DOCUMENT_BYTES:
            cut = begin + _piece_end(text[begin : begin + MAX_DOCUMENT_BYTES])
            if self.source_key is None:
                self.source_key = document_id(text[begin:cut].strip())
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
    """Return where the white space at `start` ends."""
    space = _SPACE.match(text, start)
    assert space  # the pattern also matches the empty string
    return space.end()


def _piece_end(window: bytes) -> int:
    """Return where to end the piece that begins with these bytes."""
    window = window.replace(b"\r", b" ")
    cut = window.rfind(b"\n")
    if cut <= 0:
        cut = max((window.rfind(end) + len(end) for end in _SENTENCE_ENDS if end in window), default=0)
    if cut <= 0:
        cut = window.rfind(b" ")
    if cut <= 0:
        cut = len(window)
        while window[cut - 1] & 0xC0 == 0x80:  # back to the first byte of the last character, which may be incomplete
            cut -= 1
        cut -= 1
    return cut

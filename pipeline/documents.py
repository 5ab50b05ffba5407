"""Splits to documents: decode, find the borders, clean, cut what is too long, and turn away what cannot be used.

Cleaned text is UTF-8 without carriage returns in which a line feed means "a sentence ends here". A plain text file has
a blank line between documents and a line break between sentences or paragraphs (Google's form). In JSON Lines a single
line break inside `text` is a space and a blank line ends a paragraph. The same text gives the same bytes, and so the
same document id, in every form and however its file is cut.
"""

import bz2
import gzip
import hashlib
import itertools
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import zstandard

from pipeline import storage
from pipeline.inputs import BLANK_LINES, CHUNK, LEADING_BLANK_LINES, Split

MAX_DOCUMENT_BYTES = 4_000_000
MAX_LINE_BYTES = 1_000_000_000  # a JSON line has to be held whole
BOM = b"\xef\xbb\xbf"

_PARAGRAPHS = re.compile(r"\n\s*\n")
_SURROGATES = re.compile("[\ud800-\udfff]")
_SENTENCE_ENDS = (b". ", b"! ", b"? ", "。".encode(), "！".encode(), "？".encode())


@dataclass(frozen=True, slots=True)
class Document:
    """One document, or one piece of a text over MAX_DOCUMENT_BYTES."""

    text: bytes
    """Cleaned text."""
    position: int
    """Byte of the uncompressed file where its record begins."""
    piece: int = 0
    source_key: int | None = None
    """The id of the text's first piece; None: the document's own id."""
    num_replaced: int = 0
    """Bytes or escapes that were no Unicode and became U+FFFD; the last piece tells those of the whole text."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is no document."""

    position: int
    reason: str
    detail: str


def document_digest(text: bytes) -> bytes:
    """SHA-256 of the cleaned text; its first 8 bytes, big-endian, are the document's id."""
    return hashlib.sha256(text).digest()


def read_documents(split: Split, start: int | None = None) -> Iterator[Document | Reject]:
    """The documents and rejects of a split in the order of the file; from byte `start`, a document border, if given."""
    begin = split.start if start is None else start
    source = split.source
    with storage.open_read(source.path) as file:
        try:
            chunks = _chunks(file, source.codec, begin, split.end)
            first = next(chunks, b"")
            while len(first) < len(BOM) and (more := next(chunks, b"")):  # a compressed stream may come in small bits
                first += more
            if begin == 0 and first.startswith(BOM):
                first, begin = first[len(BOM) :], len(BOM)
            read = _text_documents if source.format == "txt" else _json_documents
            yield from read(itertools.chain([first], chunks), begin)
        except _Damaged as damage:
            yield Reject(damage.position, "damaged-archive", f"{damage}: what came before it was kept")


# ---------------------------------------------------------------------------------------------------- bytes


class _Damaged(Exception):
    def __init__(self, position: int, message: str):
        super().__init__(message)
        self.position = position


def _chunks(file: BinaryIO, codec: str | None, start: int, end: int | None) -> Iterator[bytes]:
    """The uncompressed bytes from start to end, about CHUNK at a time."""
    if codec is None:
        file.seek(start)
        left = end - start if end is not None else None
        while left is None or left > 0:
            chunk = file.read(CHUNK if left is None else min(CHUNK, left))
            if not chunk:
                return
            if left is not None:
                left -= len(chunk)
            yield chunk
        return
    position = 0
    stream = _decompressed(file, codec)
    while True:
        try:
            chunk = next(stream)
        except StopIteration:
            return
        except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
            raise _Damaged(position, f"{codec} stream broke after {position} bytes of text ({error})") from error
        position += len(chunk)
        if position > start:
            yield chunk[max(0, len(chunk) - (position - start)) :]


def _decompressed(file: BinaryIO, codec: str) -> Iterator[bytes]:
    if codec == "zstd":
        yield from _zstd(file)
        return
    stream = gzip.GzipFile(fileobj=file) if codec == "gzip" else bz2.BZ2File(file)
    while chunk := stream.read1(CHUNK):  # read() would withhold what came before a broken place
        yield chunk


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    """Every frame in turn. The library's stream reader takes a file cut short for a whole one; this does not."""
    frame, fresh = zstandard.ZstdDecompressor().decompressobj(), True
    while data := file.read(1 << 16):
        while data:
            if frame.eof:
                frame, fresh = zstandard.ZstdDecompressor().decompressobj(), True
            chunk = frame.decompress(data)
            fresh = False
            if chunk:
                yield chunk
            data = frame.unused_data if frame.eof else b""
    if not fresh and not frame.eof:
        raise EOFError("the file ends before the end-of-stream marker was reached")


# ---------------------------------------------------------------------------------------------------- plain text


def _text_documents(chunks: Iterable[bytes], start: int) -> Iterator[Document]:
    """Documents parted by blank lines. One that is too long to hold is cut into pieces while it is read."""
    held, at = b"", start  # bytes not yet given out, and the position of the first of them
    long: _Pieces | None = None  # a document whose first bytes are gone already
    for chunk in itertools.chain(chunks, [b"\n"]):  # the last line may lack its end
        held += chunk
        if long:
            border = BLANK_LINES.search(held)
            if border:
                yield from long.add(*_clean(held[: border.start()]), last=True)
                held, at, long = held[border.end() :], at + border.end(), None
        if not long:
            begin = 0
            for border in BLANK_LINES.finditer(held):
                yield from _one_text(held[begin : border.start()], at + begin)
                begin = border.end()
            held, at = held[begin:], at + begin
        while len(held) > MAX_DOCUMENT_BYTES + CHUNK:
            if not long:
                blank = _leading_blanks(held)
                held, at = held[blank:], at + blank
                long = _Pieces(at)
            cut = _safe_cut(held)
            yield from long.add(*_clean(held[:cut]), last=False)
            held, at = held[cut:], at + cut
    if long:
        yield from long.add(*_clean(held), last=True)
    else:
        yield from _one_text(held, at)


def _one_text(raw: bytes, position: int) -> Iterator[Document]:
    blank = _leading_blanks(raw)
    text, num_replaced = _clean(raw[blank:])
    yield from _documents(text, position + blank, num_replaced)


def _leading_blanks(raw: bytes) -> int:
    """Bytes of blank lines at the start: left of a border that the chunk's or the split's end cut through."""
    blank = LEADING_BLANK_LINES.match(raw)
    assert blank  # it matches nothing at all, too
    return blank.end()


def _clean(raw: bytes) -> tuple[bytes, int]:
    """(UTF-8 with line feeds alone, number of U+FFFD put in). Pieces cut by _safe_cut may be cleaned apart."""
    try:
        raw.decode()
        num_replaced = 0
    except UnicodeDecodeError:
        repaired = raw.decode(errors="replace").encode()
        num_replaced = repaired.count(b"\xef\xbf\xbd") - raw.count(b"\xef\xbf\xbd")
        raw = repaired
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return raw, num_replaced


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


# ---------------------------------------------------------------------------------------------------- JSON Lines


def _json_documents(chunks: Iterable[bytes], start: int) -> Iterator[Document | Reject]:
    at = start
    for line in _lines(chunks):
        if isinstance(line, int):
            yield Reject(at, "line-too-long", f"{line} bytes, over {MAX_LINE_BYTES}")
            at += line
            continue
        yield from _json_document(line, at)
        at += len(line)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes | int]:
    """Lines with their line feed; of one over MAX_LINE_BYTES only the length."""
    parts: list[bytes] = []
    length = 0  # of the line begun, whose bytes are in `parts` unless it is too long
    for chunk in chunks:
        lines = chunk.split(b"\n")
        for piece in lines[:-1]:
            length += len(piece) + 1
            yield length if length > MAX_LINE_BYTES else b"".join([*parts, piece, b"\n"])
            parts, length = [], 0
        length += len(lines[-1])
        parts.append(lines[-1])
        if length > MAX_LINE_BYTES:
            parts = []
    if length:
        yield length if length > MAX_LINE_BYTES else b"".join(parts)


def _json_document(line: bytes, position: int) -> Iterator[Document | Reject]:
    raw, num_replaced = _clean(line.strip().removeprefix(BOM))
    if not raw:
        yield Reject(position, "blank-line", "")
        return
    try:
        record = json.loads(raw.decode())  # of bytes it would guess UTF-16
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        yield Reject(position, "not-json", f"{error}: {_start_of(raw)}")
        return
    if not isinstance(record, dict):
        yield Reject(position, "not-an-object", _start_of(raw))
        return
    if "text" not in record:
        yield Reject(position, "no-text-field", _SURROGATES.sub("\ufffd", f"fields: {', '.join(record)}"[:200]))
        return
    text = record["text"]
    if not isinstance(text, str):
        yield Reject(position, "text-not-a-string", _start_of(raw))
        return
    num_surrogates = 0
    if b"\\u" in raw:  # only an escape can hold half a character
        text, num_surrogates = _SURROGATES.subn("\ufffd", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _PARAGRAPHS.sub("\r", text.strip(" \t\n\v\f")).replace("\n", " ").replace("\r", "\n")
    documents = list(_documents(text.encode(), position, num_replaced + num_surrogates))
    if not documents:
        yield Reject(position, "empty-text", _start_of(raw))
    yield from documents


def _start_of(raw: bytes) -> str:
    return raw[:200].decode(errors="replace")


# ---------------------------------------------------------------------------------------------------- long texts


def _documents(text: bytes, position: int, num_replaced: int) -> Iterator[Document]:
    """The document, or its pieces; nothing where it is blank."""
    if len(text) <= MAX_DOCUMENT_BYTES:
        text = text.strip()
        if text:
            yield Document(text, position, 0, None, num_replaced)
        return
    yield from _Pieces(position).add(text, num_replaced, last=True)


class _Pieces:
    """Cuts one text, given bit by bit, at the last paragraph's end, else sentence's, else word's, in each 4 MB.

    Where it is cut depends on the text alone, not on the bits in which it came.
    """

    def __init__(self, position: int):
        self.position = position
        self.pending = b""
        self.num_replaced = 0
        self.piece = 0
        self.source_key: int | None = None

    def add(self, text: bytes, num_replaced: int, last: bool) -> Iterator[Document]:
        self.pending += text
        self.num_replaced += num_replaced
        while True:
            self.pending = self.pending.lstrip()
            if len(self.pending) <= MAX_DOCUMENT_BYTES or len(self.pending.rstrip()) <= MAX_DOCUMENT_BYTES:
                break
            cut = _piece_end(self.pending[:MAX_DOCUMENT_BYTES])
            yield from self._piece(self.pending[:cut], 0)
            self.pending = self.pending[cut:]
        if last:
            yield from self._piece(self.pending, self.num_replaced)

    def _piece(self, text: bytes, num_replaced: int) -> Iterator[Document]:
        text = text.strip()
        if not text:
            return
        if self.source_key is None:
            self.source_key = int.from_bytes(document_digest(text)[:8], "big")
        yield Document(text, self.position, self.piece, self.source_key, num_replaced)
        self.piece += 1


def _piece_end(window: bytes) -> int:
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

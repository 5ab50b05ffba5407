"""Web archives: .warc with pages in HTML, and .wet with their text. A document is the text of a page.

warcio reads the records; the extra `web` installs it.
"""

import io
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.html_text import text_of_page
from pipeline.inputs.formats.streamed import read_stream
from pipeline.inputs.formats.whole_texts import MAX_PAGE_BYTES
from pipeline.inputs.sources import Split
from pipeline.text.records import (
    DAMAGED,
    Item,
    PassedOver,
    Record,
    Reject,
    decode_text,
    first_characters,
    or_empty,
    whole_or_pieces,
)

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's numbers for the codings of HTTP
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s\"';,]+)", re.IGNORECASE)


def read_archive(chunks: Iterable[bytes], start: int) -> Iterator[Record]:
    """Yield a record for each page and each other entry of an archive."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    records = ArchiveIterator(io.BufferedReader(_Stream(chunks)), no_record_parse=True)
    position = start
    try:
        for record in records:
            headers = _headers(record) if record.rec_type == "response" else None
            wanted = record.rec_type == "conversion" or _is_page(headers)
            raw = record.raw_stream.read(MAX_PAGE_BYTES + 1) if wanted else b""
            position = start + records.get_record_offset()  # this reads to the end of the record, in small chunks
            length = record.rec_headers.get_header("Content-Length") or ""
            if not length.isdigit() or record.raw_stream.limit > 0:
                yield _damaged(position, f"the file ends within a record of {length or 'some'} bytes", raw)
                return
            if wanted:
                yield from _read_page(raw, position, headers, record.rec_headers.get_header("WARC-Target-URI"))
            else:
                yield PassedOver(position, "not-a-page")
    except ArchiveLoadFailed as error:
        yield _damaged(position, " ".join(str(error).split()), b"")


def _damaged(position: int, detail: str, shown: bytes) -> Reject:
    return Reject(position, DAMAGED, f"{detail}: what came before it was kept", first_characters(shown))


class _Stream(io.RawIOBase):
    """A file object over chunks."""

    def __init__(self, chunks: Iterable[bytes]):
        self.chunks, self.held = iter(chunks), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.held:
            chunk = next(self.chunks, None)
            if chunk is None:
                return 0
            self.held = chunk
        size = min(len(buffer), len(self.held))
        buffer[:size], self.held = self.held[:size], self.held[size:]
        return size


def _headers(record: Any) -> Any:
    """Return the HTTP headers of a response. warcio's iterator could read them, but ends at a record without an address."""
    from warcio.statusandheaders import StatusAndHeadersParser

    with suppress(EOFError):
        return StatusAndHeadersParser([], verify=False).parse(record.raw_stream)


def _is_page(headers: Any) -> bool:
    kind = (headers and headers.get_header("Content-Type") or "").lower()
    return kind.startswith(("text/html", "application/xhtml+xml")) and headers.get_statuscode() == "200"


def _read_page(raw: bytes, position: int, headers: Any, address: str | None) -> Iterator[Record]:
    """Yield the documents of a page. raw: at most MAX_PAGE_BYTES + 1 bytes of HTML, or of plain text without `headers`."""
    page, shown = raw, first_characters(raw)
    if headers and len(raw) <= MAX_PAGE_BYTES:
        try:
            page = _unpacked(headers, raw)
        except ValueError as error:
            yield Reject(position, "page-not-unpacked", str(error), shown, address)
            return
    if len(page) > MAX_PAGE_BYTES:
        yield Reject(position, "page-too-long", f"over {MAX_PAGE_BYTES} bytes", shown, address)
        return
    try:
        text, num_replaced = (text_of_page(page, _charset(headers)).encode(), 0) if headers else decode_text(page)
    except ValueError as error:
        yield Reject(position, "page-too-deep", str(error), shown, address)
        return
    lines = b"\n".join(filter(None, map(bytes.strip, text.split(b"\n"))))
    documents = whole_or_pieces(lines, position, num_replaced, address)
    yield from or_empty(documents, position, page, address, "no text in the page")


def _charset(headers: Any) -> str | None:
    named = _CHARSET.search(headers.get_header("Content-Type"))
    return named[1] if named else None


def _unpacked(headers: Any, raw: bytes) -> bytes:
    """Return at most MAX_PAGE_BYTES + 1 bytes of a page. Raises ValueError where its body cannot be unpacked.

    warcio's own readers have no limit, fail on Brotli, and hide damage.
    """
    import brotli
    from warcio.bufferedreaders import ChunkedDataReader

    if (headers.get_header("Transfer-Encoding") or "").lower() == "chunked":
        raw = ChunkedDataReader(io.BytesIO(raw)).read()
    coding = (headers.get_header("Content-Encoding") or "identity").strip().lower()
    if coding == "identity" or not raw:
        return raw
    unpacker: Any
    try:
        if coding == "br":
            unpacker = brotli.Decompressor()
            page, whole = unpacker.process(raw, output_buffer_limit=MAX_PAGE_BYTES + 1), unpacker.is_finished()
        elif coding in _WINDOW_BITS:
            bits = _WINDOW_BITS[coding]
            if coding == "deflate" and (raw[0] & 15 != 8 or int.from_bytes(raw[:2], "big") % 31):
                bits = -15  # without a zlib header, as some servers send it
            unpacker = zlib.decompressobj(bits)
            page, whole = unpacker.decompress(raw, MAX_PAGE_BYTES + 1), unpacker.eof
        else:
            raise ValueError(f"expected one of {', '.join(_WINDOW_BITS)}, br")
        if not whole and len(page) <= MAX_PAGE_BYTES:
            raise ValueError("the page ends early")
    except (brotli.error, zlib.error, ValueError) as error:
        if raw.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            return raw  # many crawlers unpack a page but keep the header
        raise ValueError(f"Content-Encoding {coding}: {error}") from None
    return bytes(page)


def _read(file: BinaryIO, split: Split, start: int) -> Iterator[Item]:
    return read_stream(file, split, start, read_archive)


WEB_ARCHIVE = Format(
    name="warc",
    description="a web archive",
    endings=(".warc", ".wet"),
    magic=rb"WARC/1\.",
    read=_read,
    versions=("resiliparse", "warcio"),
    packages=("warcio", "resiliparse"),
)

"""Web archives (.warc, and .wet with the text taken out already): their pages as text, a document a page.

Records are read by warcio; of those that are no pages nothing is held. Of a page in HTML resiliparse takes the main content,
without tables, menus and the like. A line of it is a paragraph. Both packages are an extra, `web`.
"""

import io
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from pipeline.text.records import PassedOver, Record, Reject, decoded, first_characters, whole_or_pieces

MAX_PAGE_BYTES = 8_000_000  # packed, and unpacked: resiliparse takes forty times as much; Common Crawl keeps 5 MB

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's numbers for the codings of HTTP
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s\"';,]+)", re.IGNORECASE)
_SKIPPED = ["table", "nav", "header", "footer", "aside", "form"]


def check_packages(path: str) -> None:
    """ValueError where a package that is needed to read `path` is not installed."""
    if not (find_spec("warcio") and find_spec("resiliparse")):
        raise ValueError(f"{path}: web archives need warcio and resiliparse: pip install -e '.[web]'")


def read_archive(chunks: Iterable[bytes], start: int) -> Iterator[Record]:
    """The pages in these bytes, and the records that are none."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    records = ArchiveIterator(io.BufferedReader(_Stream(chunks)), no_record_parse=True)
    position = start
    try:
        for record in records:
            headers = _headers(record) if record.rec_type == "response" else None
            wanted = record.rec_type == "conversion" or _is_page(headers)
            raw = record.raw_stream.read(MAX_PAGE_BYTES + 1) if wanted else b""
            position = start + records.get_record_offset()  # it reads on to the record's end, a little at a time
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
    return Reject(position, "damaged-file", f"{detail}: what came before it was kept", first_characters(shown))


class _Stream(io.RawIOBase):
    """Chunks as a file."""

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
    """Of a response, those of HTTP. Where the iterator reads them, a record without an address ends it."""
    from warcio.statusandheaders import StatusAndHeadersParser

    with suppress(EOFError):
        return StatusAndHeadersParser([], verify=False).parse(record.raw_stream)


def _is_page(headers: Any) -> bool:
    kind = (headers and headers.get_header("Content-Type") or "").lower()
    return kind.startswith(("text/html", "application/xhtml+xml")) and headers.get_statuscode() == "200"


def _read_page(raw: bytes, position: int, headers: Any, address: str | None) -> Iterator[Record]:
    """raw: at most MAX_PAGE_BYTES + 1 bytes of a page in HTML or, where there are no headers, of its text."""
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
    text, num_replaced = (_text_of_page(headers, page).encode(), 0) if headers else decoded(page)
    lines = b"\n".join(filter(None, map(bytes.strip, text.split(b"\n"))))
    documents = list(whole_or_pieces(lines, position, num_replaced, address))
    if not documents:
        yield Reject(position, "empty-text", "no text in the page", first_characters(page), address)
    yield from documents


def _unpacked(headers: Any, raw: bytes) -> bytes:
    """The bytes of a page, at most MAX_PAGE_BYTES + 1; ValueError where its body cannot be unpacked.

    warcio's own readers know no end of a page, fail on Brotli, and pass over what is broken.
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
                bits = -15  # without zlib's head, as some servers send it
            unpacker = zlib.decompressobj(bits)
            page, whole = unpacker.decompress(raw, MAX_PAGE_BYTES + 1), unpacker.eof
        else:
            raise ValueError(f"expected one of {', '.join(_WINDOW_BITS)}, br")
        if not whole and len(page) <= MAX_PAGE_BYTES:
            raise ValueError("the page ends early")
    except (brotli.error, zlib.error, ValueError) as error:
        if raw.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            return raw  # many crawlers unpack a page, and keep the header
        raise ValueError(f"Content-Encoding {coding}: {error}") from None
    return page


def _text_of_page(headers: Any, page: bytes) -> str:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

    named = _CHARSET.search(headers.get_header("Content-Type"))
    charset = map_encoding_to_html5(named[1], fallback_utf8=False) if named else None
    html = bytes_to_str(page, charset or detect_encoding(page) or "utf-8")
    return extract_plain_text(
        html, main_content=True, list_bullets=False, alt_texts=False, comments=False, skip_elements=_SKIPPED
    )

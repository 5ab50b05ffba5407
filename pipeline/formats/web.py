"""Web archives (.warc, and .wet with the text taken out already): their pages as text, a document a page.

Records are read by warcio. Of a page in HTML resiliparse takes the main content, without tables, menus and the like. A line
of it is a paragraph. Both packages are an extra, `web`.
"""

import io
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from pipeline.formats.records import PassedOver, Record, Reject, decoded, first_characters, whole_or_pieces

_SKIPPED = ["table", "nav", "header", "footer", "aside", "form"]


def check_packages(path: str) -> None:
    """ValueError where a package that is needed to read `path` is not installed."""
    if not (find_spec("warcio") and find_spec("resiliparse")):
        raise ValueError(f"{path}: web archives need warcio and resiliparse: pip install 'bertloom[web]'")


def read_archive(chunks: Iterable[bytes], start: int) -> Iterator[Record]:
    """The pages in these bytes, and the records that are none."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed
    from warcio.statusandheaders import StatusAndHeadersParserException

    records = ArchiveIterator(io.BufferedReader(_Stream(chunks)))
    position = start
    try:
        for record in records:
            payload = record.content_stream().read()
            record.raw_stream.read()
            position = start + records.get_record_offset()
            length = record.rec_headers.get_header("Content-Length") or ""
            if not length.isdigit() or record.raw_stream.limit > 0:
                yield _damaged(position, f"the file ends within a record of {length or 'some'} bytes", payload)
                return
            yield from _read_record(record, payload, position)
    except (ArchiveLoadFailed, StatusAndHeadersParserException) as error:
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


def _read_record(record: Any, payload: bytes, position: int) -> Iterator[Record]:
    if record.rec_type == "conversion":
        text, num_replaced = decoded(payload)
    elif _is_page(record):
        text, num_replaced = _text_of_page(record, payload).encode(), 0
    else:
        yield PassedOver(position, "not-a-page")
        return
    address = record.rec_headers.get_header("WARC-Target-URI")
    lines = b"\n".join(filter(None, map(bytes.strip, text.split(b"\n"))))
    documents = list(whole_or_pieces(lines, position, num_replaced, address))
    if not documents:
        yield Reject(position, "empty-text", "no text in the page", first_characters(payload), address)
    yield from documents


def _is_page(record: Any) -> bool:
    if record.rec_type != "response" or not record.http_headers:
        return False
    kind = (record.http_headers.get_header("Content-Type") or "").lower()
    return record.http_headers.get_statuscode() == "200" and kind.startswith(("text/html", "application/xhtml+xml"))


def _text_of_page(record: Any, payload: bytes) -> str:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    _, _, charset = record.http_headers.get_header("Content-Type").lower().partition("charset=")
    html = bytes_to_str(payload, charset.strip(" \"';") or detect_encoding(payload) or "utf-8")
    return extract_plain_text(
        html, main_content=True, list_bullets=False, alt_texts=False, comments=False, skip_elements=_SKIPPED
    )

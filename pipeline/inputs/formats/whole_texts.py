"""What formats share whose files are one document each. Such a file is held whole, so its size is limited."""

from collections.abc import Callable, Iterator
from typing import BinaryIO

from pipeline.inputs.formats.streamed import BOM, Chunks, read_stream
from pipeline.inputs.sources import Split
from pipeline.text.records import SHOWN_CHARACTERS, Item, Reject, Row, decode_text, first_characters

MAX_PAGE_BYTES = 8_000_000
"""A parsed page may take forty times as much. Common Crawl cuts pages at 5 MB."""


def read_mark_up(text_of: Callable[[str], str], file: BinaryIO, split: Split, start: int) -> Iterator[Item]:
    """Yield the row of a file that is UTF-8, or a reject. text_of: as for `read_whole`, with the decoded text."""

    def text_of_page(page: bytes, has_mark: bool) -> tuple[str, int]:
        source, num_replaced = decode_text(page)
        return text_of(source.decode()), num_replaced

    return read_whole(text_of_page, file, split, start)


def read_whole(
    text_of: Callable[[bytes, bool], tuple[str, int]], file: BinaryIO, split: Split, start: int
) -> Iterator[Item]:
    """Yield the row of a file, or a reject.

    text_of: takes (bytes without a byte order mark of UTF-8, whether there was one) and returns (text, bytes that were not
    valid and became U+FFFD). It raises ValueError for a page that takes too long.
    """

    def read(chunks: Chunks, position: int) -> Iterator[Item]:
        page = bytearray()
        for chunk in chunks:
            page += chunk
            if len(page) > MAX_PAGE_BYTES:
                shown = first_characters(bytes(page[: 4 * SHOWN_CHARACTERS]))
                yield Reject(position, "page-too-long", f"over {MAX_PAGE_BYTES} bytes", shown)
                return
        if chunks.damage and not page.strip():
            return
        raw = bytes(page)
        try:
            text, num_replaced = text_of(raw, position == len(BOM))
        except ValueError as error:
            yield Reject(position, "page-too-deep", str(error), first_characters(raw))
        else:
            yield Row(text, position, raw[: 4 * SHOWN_CHARACTERS], num_replaced)

    return read_stream(file, split, start, read, keeps_unfinished=True)

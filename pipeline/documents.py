"""Splits to documents: decode, find the borders, clean, cut what is too long, and turn away what cannot be used.

Cleaned text is UTF-8 without carriage returns in which a line feed means "a sentence ends here". The same text gives the
same bytes, and so the same document id, in every form and however its file is cut.
"""

import itertools
from collections.abc import Iterator

from pipeline import storage
from pipeline.inputs import Split
from pipeline.json_lines import BOM, read_json_lines
from pipeline.plain_text import read_text
from pipeline.records import Document, Reject
from pipeline.streams import Damaged, read_chunks


def read_documents(split: Split, start: int | None = None) -> Iterator[Document | Reject]:
    """The documents and rejects of a split in the order of the file; from byte `start`, a document border, if given."""
    begin = split.start if start is None else start
    source = split.source
    with storage.open_read(source.path) as file:
        try:
            chunks = read_chunks(file, source.codec, begin, split.end)
            first = next(chunks, b"")
            while len(first) < len(BOM) and (more := next(chunks, b"")):
                first += more
            if begin == 0 and first.startswith(BOM):
                first, begin = first[len(BOM) :], len(BOM)
            read = read_text if source.format == "txt" else read_json_lines
            yield from read(itertools.chain([first], chunks), begin)
        except Damaged as damage:
            yield Reject(damage.position, "damaged-archive", f"{damage}: what came before it was kept")

"""Where files may be cut, so that several workers share one: at document borders, and so that it never shows in the shards.

A compressed file cannot be cut, nor one that is not UTF-8: it is one split, read as a stream.
"""

import re
from typing import BinaryIO

from bertloom import storage
from pipeline.inputs.formats.plain_text import BLANK_LINES
from pipeline.inputs.formats.registry import TABLES
from pipeline.inputs.formats.tables import split_table
from pipeline.inputs.formats.web_archive import check_packages
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.inputs.streams import CHUNK

_LINE_END, _PAGE_END = re.compile(rb"\n"), re.compile(rb"</page>")


def split_source(source: Source, split_bytes: int, config: ReadConfig | None = None) -> list[Split]:
    """Cuts a file near every multiple of `split_bytes`, at the first document border from there on."""
    config = config or ReadConfig()
    if source.format in TABLES:
        return split_table(source, split_bytes, config.text_column)
    if source.format == "warc":
        check_packages(source.path)  # before the work begins
    border = _border(source, config)
    cuts = [0]
    if border and not (source.codec or source.encoding):
        with storage.open_read(source.path) as file:
            while cuts[-1] + split_bytes < source.size:
                cut = _next_border(file, border, cuts[-1] + split_bytes, source.size)
                if cut >= source.size:
                    break
                cuts.append(cut)
    ends = [*cuts[1:], source.size]
    splits = [Split(source, start, end, end - start) for start, end in zip(cuts, ends, strict=True)]
    return [*splits[:-1], Split(source, cuts[-1], None, splits[-1].num_bytes)]


def split_size(total_bytes: int) -> int:
    """Bytes of text a split: 8 MB, and from 100 GB of input on 64 MB, so that a bucket need not ask too many parts."""
    return 64_000_000 if total_bytes >= 100_000_000_000 else 8_000_000


def _border(source: Source, config: ReadConfig) -> re.Pattern[bytes] | None:
    """What ends a document; None where the file is one document, or cannot be cut."""
    if source.format == "warc":
        return None
    if source.format == "mediawiki":
        return _PAGE_END
    if source.format == "jsonl" or config.text_layout == "line":
        return _LINE_END
    return BLANK_LINES if config.text_layout == "blank-line" else None


def _next_border(file: BinaryIO, border: re.Pattern[bytes], start: int, size: int) -> int:
    """The first document border at `start` or later; a search that needs no more memory than two chunks."""
    kept, at = b"", start
    file.seek(start)
    while chunk := file.read(CHUNK):
        data = kept + chunk
        base = at - len(kept)
        match = border.search(data)
        while match and match.end() == len(data):  # blank lines may go on in the next chunk
            more = file.read(CHUNK)
            if not more:
                return size
            data += more
            at += len(more)
            match = border.search(data)
        if match:
            return base + match.end()
        at = base + len(data)
        kept = data[-4096:]  # a border may begin here
    return size

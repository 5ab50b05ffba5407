"""Splits to documents: decode, find the borders, clean, cut what is too long, and turn away what cannot be used.

Cleaned text is UTF-8 without carriage returns in which a line feed means "a sentence ends here". The same text gives the
same bytes, and so the same document id, in every form and however its file is cut.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from pipeline.inputs.formats.json_lines import BOM, read_json_lines
from pipeline.inputs.formats.mediawiki import read_pages, read_site
from pipeline.inputs.formats.plain_text import read_file_as_text, read_lines_as_texts, read_texts
from pipeline.inputs.formats.registry import TABLES
from pipeline.inputs.formats.tables import read_table
from pipeline.inputs.formats.web_archive import read_archive
from pipeline.inputs.sources import ReadConfig, Split
from pipeline.inputs.streams import Damaged, first_bytes, read_chunks
from pipeline.inputs.text_encodings import as_utf8
from pipeline.text.cleaning import CleanConfig, clean
from pipeline.text.records import Record, Reject
from pipeline.text.versions import cleaning_versions, version_of


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """What decides which documents the inputs hold."""

    clean: CleanConfig = field(default_factory=CleanConfig)
    read: ReadConfig = field(default_factory=ReadConfig)


def text_versions(config: CleanConfig, form: str) -> dict[str, str]:
    """Return name -> version of what decides the texts of a file of this format."""
    used = {"mwparserfromhell": form == "mediawiki", "resiliparse": form == "warc", "warcio": form == "warc"}
    return {name: version_of(name) for name, is_used in used.items() if is_used} | cleaning_versions(config)


def read_documents(
    split: Split,
    start: int | None = None,
    config: TextConfig | None = None,
    repeated_lines: NDArray[np.uint64] | None = None,
    keep_lines: bool = False,
) -> Iterator[Record]:
    """The documents and rejects of a split in the order of the file; from `start`, the position of one, if given.

    repeated_lines: hashes of those to leave out, sorted (pipeline/stages/line_repeats.py).
    keep_lines: give a line break within a paragraph as a carriage return, not as a space.
    """
    config = config or TextConfig()
    begin = split.start if start is None else start
    records: Iterator[Record]
    if split.source.format in TABLES:
        records = read_table(split, begin, config.read.text_column, config.read.id_column)
    else:
        records = _read_stream(split, begin, config.read)
    yield from clean(records, config.clean, repeated_lines, keep_lines)


def _read_stream(split: Split, begin: int, config: ReadConfig) -> Iterator[Record]:
    source = split.source
    with storage.open_read(source.path) as file:
        try:
            site = read_site(first_bytes(file, source.codec)) if source.format == "mediawiki" else None
            if source.encoding:
                chunks = _skip(as_utf8(read_chunks(file, source.codec), source.encoding), begin)
            else:
                chunks = read_chunks(file, source.codec, begin, split.end)
            first = next(chunks, b"")
            while len(first) < len(BOM) and (more := next(chunks, b"")):
                first += more
            if begin == 0 and first.startswith(BOM):
                first, begin = first[len(BOM) :], len(BOM)
            chunks = itertools.chain([first], chunks)
            if site:
                yield from read_pages(chunks, begin, site, whole=split.end is None)
            elif source.format == "warc":
                yield from read_archive(chunks, begin)
            else:
                yield from _read_text(chunks, begin, source.format, config)
        except Damaged as damage:
            yield Reject(damage.position, "damaged-file", f"{damage}: what came before it was kept")


def _read_text(chunks: Iterable[bytes], begin: int, form: str, config: ReadConfig) -> Iterator[Record]:
    """The records of plain text or JSON Lines. Raises Damaged behind what a reader holds when the file breaks off."""
    damages: list[Damaged] = []
    chunks = _up_to_damage(chunks, damages)
    if form == "jsonl":
        yield from read_json_lines(chunks, begin, config.text_column, config.id_column)
    elif config.text_layout == "line":
        yield from read_lines_as_texts(chunks, begin)
    elif config.text_layout == "file":
        for record in read_file_as_text(chunks, begin):
            if not (damages and isinstance(record, Reject)):  # nobody knows that the rest of it is blank, too
                yield record
    else:
        yield from read_texts(chunks, begin)
    if damages:
        raise damages[0]


def _up_to_damage(chunks: Iterable[bytes], damages: list[Damaged]) -> Iterator[bytes]:
    """The chunks; where they break off they end, and `damages` says so."""
    try:
        yield from chunks
    except Damaged as damage:
        damages.append(damage)


def _skip(chunks: Iterable[bytes], num_bytes: int) -> Iterator[bytes]:
    """The bytes behind the first `num_bytes`."""
    for chunk in chunks:
        if len(chunk) > num_bytes:
            yield chunk[num_bytes:]
        num_bytes = max(0, num_bytes - len(chunk))

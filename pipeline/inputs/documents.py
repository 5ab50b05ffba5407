"""Splits to documents: read the records, clean their text, and reject what cannot be used.

Cleaned text is UTF-8 without carriage returns in which a line feed ends a sentence. The same text gives the same bytes, and
so the same document id, in every format and however its file is cut.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from bertloom.arrays import U64
from pipeline.inputs.archives import read_records
from pipeline.inputs.formats.registry import FORMATS, format_named
from pipeline.inputs.source_files import open_source
from pipeline.inputs.sources import ReadConfig, Split
from pipeline.text.cleaning import CleanConfig, clean
from pipeline.text.records import Record, Reject
from pipeline.text.versions import NOT_INSTALLED, cleaning_versions, version_of


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Which documents the input files hold."""

    clean: CleanConfig = field(default_factory=CleanConfig)
    read: ReadConfig = field(default_factory=ReadConfig)


def text_versions(config: CleanConfig, form: str) -> dict[str, str]:
    """Return package -> version of what decides the texts of a file of this format."""
    own = format_named(form)
    forms = [own] if own.read else FORMATS  # an archive may hold any format
    found = {name: version_of(name) for name in sorted({name for one in forms for name in one.versions})}
    if not own.read:
        found = {name: version for name, version in found.items() if version != NOT_INSTALLED}
    return found | cleaning_versions(config)


def read_documents(
    split: Split,
    start: int | None = None,
    config: CleanConfig | None = None,
    repeated_lines: U64 | None = None,
    keep_lines: bool = False,
    is_whole: bool = True,
) -> Iterator[Record]:
    """Yield the documents and rejects of a split in the order of the file.

    start: position of the first record to read; by default the start of the split.
    repeated_lines: hashes of lines to leave out, sorted (pipeline/stages/line_repeats.py).
    keep_lines: give a line break within a paragraph as a carriage return, not as a space.
    is_whole: whether all of the split will be read. If so, a store is asked for all of it at once.

    Raises:
        MemoryError: there is too little memory for the file, which the message names.
        StoreError: a store does not give the file, or the file has changed since it was found.
    """
    if split.source.left_out:
        yield Reject(0, "left-out", "--leave-out names this file, so it was not read")
        return
    begin = split.start if start is None else start
    try:
        source = split.source
        with open_source(source, split.num_bytes if is_whole else 0) as file:
            records = read_records(file, split, begin)
            yield from clean(records, config or CleanConfig(), repeated_lines, keep_lines)
    except MemoryError as error:
        raise MemoryError(
            f"{split.source.path} needs more than there is{f' ({error})' if str(error) else ''}"
        ) from None

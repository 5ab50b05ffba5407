"""Where the documents of a token part are from: its input files and, of archives, the entries.

Both are sections of the part, Arrow streams. A document's row has the number of its file in the part.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from bertloom import storage
from pipeline.arrow_streams import as_stream
from pipeline.text.records import DAMAGED
from pipeline.tokens import PartRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFile:
    """What a part holds of one input file."""

    name: str
    format: str
    """Name of its format."""
    num_documents: int
    num_sentences: int
    num_tokens: int
    text_bytes: int
    num_rejected: int
    is_damaged: bool


def files_table(files: Sequence[PartFile]) -> bytes:
    """Return the section `files` of a part."""
    columns = {field.name: pa.array([getattr(file, field.name) for file in files]) for field in fields(PartFile)}
    return as_stream(pa.table(columns))


def read_files(folder: str, part: PartRecord) -> list[PartFile]:
    """Return the input files of a part in the order of their numbers."""
    table = _read(folder, part, "files")
    return [PartFile(**row) for row in table.to_pylist()]


def read_names(folder: str, part: PartRecord) -> Any:
    """Return the names of the input files of a part: a pyarrow array of strings."""
    return pa.array([part.source]) if part.num_files == 1 else _read(folder, part, "files")["name"]


def damaged_files(parts: Iterable[PartRecord], folder: str) -> set[str]:
    """Return the names of the files that are damaged."""
    damaged = [part for part in parts if DAMAGED in part.rejected]
    return {file.name for part in damaged for file in read_files(folder, part) if file.is_damaged}


def files_of(parts: Iterable[PartRecord], folder: str) -> Iterator[PartFile]:
    """Yield the files of all parts. A file in several parts comes once for each."""
    for part in parts:
        yield from read_files(folder, part)


def entries_table(entries: Sequence[tuple[int, int, str]]) -> bytes:
    """Return the section `entries` of a part from (number of the archive, position of the entry, its name), in order."""
    if not entries:
        return b""
    numbers, firsts, names = zip(*entries, strict=True)
    columns = {"file": pa.array(numbers, pa.uint32()), "first": pa.array(firsts, pa.int64()), "name": pa.array(names)}
    return as_stream(pa.table(columns))


def read_entries(folder: str, part: PartRecord) -> pa.Table | None:
    """Return the table of the entries of a part; None if none of its files is an archive."""
    return _read(folder, part, "entries") if part.sections["entries"][1] else None


def _read(folder: str, part: PartRecord, section: str) -> pa.Table:
    with storage.open_read(storage.join(folder, part.name)) as file:
        return pa.ipc.open_stream(storage.read_at(file, *part.sections[section])).read_all()

"""Archives: an entry, which is a file in an archive, is read like any other file, and its records name it.

The format of an entry is found by its name and its content. An entry that is compressed, or that is read by random access,
goes to a temporary file, unless the archive itself gives random access to it. An archive in an archive is read; one within
that is passed over. A document never crosses entries.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import SEEK_END
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from pipeline.inputs.formats.entry_names import never_read, shown_name
from pipeline.inputs.formats.format import Entry, Format
from pipeline.inputs.formats.registry import codec_by_content, find_format, format_by_name, format_named
from pipeline.inputs.rows import records_of
from pipeline.inputs.sources import Source, Split
from pipeline.inputs.splitting import check_options
from pipeline.inputs.streams import Damaged, first_bytes, read_chunks
from pipeline.inputs.text_encodings import encoding_of
from pipeline.text.records import DAMAGED, ENTRY_MARK, LAST_POSITION, EntryPlace, PassedOver, Record, Reject

MAX_UNPACKED_BYTES = 8_000_000_000  # of a temporary file
HELD_BYTES = 16_000_000  # of a temporary file in memory; a larger one is on disk


class _NotRead(Exception):
    """An entry is not read. Holds what is reported of it."""

    def __init__(self, record: Reject | PassedOver):
        super().__init__(record.reason)
        self.record = record


@dataclass(frozen=True)
class _Opened:
    """An entry, ready to be read."""

    file: BinaryIO
    form: Format
    source: Source
    damage: str
    """Why it was not unpacked to its end, or ""."""


def read_records(file: BinaryIO, split: Split, start: int) -> Iterator[Record]:
    """Yield the records of a split of an open file, from the one at this position."""
    source, form = split.source, format_named(split.source.format)
    if form.read:
        yield from records_of(form, file, split, start)
        return
    if source.read.format and not format_named(source.read.format).read:  # of the archive, and not of its entries
        source = replace(source, read=replace(source.read, format=None))
        split = replace(split, source=source)
    with ExitStack() as stack:
        damage = ""
        if source.codec and form.needs_seek:
            try:
                file, damage = _unpack(file, source.codec, stack)
            except _NotRead as error:
                yield replace(error.record, entry=EntryPlace("", 0))
                return
            split = replace(split, source=replace(source, codec=None, size=_size(file)))
        yield from _read_archive(form, file, split, start, depth=0)
        if damage:
            yield Reject(
                LAST_POSITION, DAMAGED, f"{damage}: what came before it was kept", entry=EntryPlace("", LAST_POSITION)
            )


def _read_archive(form: Format, file: BinaryIO, split: Split, start: int, depth: int) -> Iterator[Record]:
    """Yield the records of a split of an open archive. depth: number of archives around it."""
    assert form.open_entries
    for entry in form.open_entries(file, split):
        if split.end is not None and entry.position >= split.end:
            return
        if not isinstance(entry, Entry):
            if entry.position >= start:
                yield entry
        elif entry.position + entry.space > start:
            for record in _read_entry(entry, split.source, max(0, start - entry.position), depth):
                yield _placed(record, entry)


def _placed(record: Record, entry: Entry) -> Record:
    """Return a record of an entry with its place in the archive."""
    name, first, inner = shown_name(entry.name), entry.position, record.entry
    if inner:
        name, first = f"{name}{ENTRY_MARK}{inner.name}" if inner.name else name, first + inner.first
    return replace(record, position=entry.position + record.position, entry=EntryPlace(name, first))


def _read_entry(entry: Entry, archive: Source, start: int, depth: int) -> Iterator[Record]:
    """Yield the records of an entry, from the one at this position in it."""
    at, last = 0, entry.space - 1  # the second for what follows all records
    try:
        with ExitStack() as stack:
            opened = _open(entry, archive, stack)
            split = Split(opened.source, 0, None)
            records: Iterator[Record] = iter(())
            if opened.form.read and start < last:
                records = records_of(opened.form, opened.file, split, start)
            elif opened.form.open_entries:
                if depth:
                    raise _NotRead(PassedOver(0, "nested-archive"))
                inner = _numbered(_read_archive(opened.form, opened.file, split, 0, depth + 1))
                records = (record for record in inner if record.position >= start)
            for record in records:
                if record.position >= last:
                    raise _NotRead(Reject(last, "too-large", f"its records need over {last} positions"))
                at = record.position
                yield record
            if opened.damage:
                yield Reject(last, DAMAGED, f"{opened.damage}: what came before it was kept")
    except _NotRead as error:
        if error.record.position >= start:
            yield error.record
    except ValueError as error:  # what would end the job in a file that is not in an archive
        if at >= start:
            yield Reject(at, "unreadable-file", str(error))


def _open(entry: Entry, archive: Source, stack: ExitStack) -> _Opened:
    """Return an entry. Raises _NotRead, and ValueError if its name and content do not agree or an option does not fit."""
    if reason := never_read(entry.name):
        raise _NotRead(PassedOver(0, reason))
    name = ENTRY_MARK + shown_name(entry.name)
    file, packing, damage, size = entry.file, entry.codec, "", entry.size
    head = first_bytes(file, packing)
    if codec_by_content(head) and (packing or not file.seekable()):  # such files are decoded twice
        file, damage = _unpack(file, packing, stack)
        packing, size = None, _size(file)
    try:
        form, codec, text = find_format(archive.path + name, head, file, archive.read)
    except ValueError:
        if format_by_name(entry.name)[0] is None and not archive.read.format:
            raise _NotRead(PassedOver(0, "unknown-format")) from None
        raise
    if fault := entry.find_fault():
        raise _NotRead(Reject(0, DAMAGED, f"{fault}: nothing of the file is used"))
    codec = packing or codec
    if form.needs_seek and (codec or not file.seekable()):
        file, more = _unpack(file, codec, stack)
        codec, size, damage = None, _size(file), damage or more
    encoding = encoding_of(text, archive.read.encoding) if form.has_encodings else None
    source = replace(
        archive,
        path=archive.path + name,
        name=archive.name + name,
        format=form.name,
        codec=codec,
        encoding=encoding,
        size=size,
    )
    file.seek(0)
    check_options(form, source)
    return _Opened(file, form, source, damage)


def _unpack(file: BinaryIO, codec: str | None, stack: ExitStack) -> tuple[BinaryIO, str]:
    """Return (a temporary file with the content of a file, why it ends early or ""). Raises _NotRead if it is too large."""
    unpacked = cast(BinaryIO, stack.enter_context(SpooledTemporaryFile(HELD_BYTES)))  # noqa: SIM115  the stack closes it
    size, damage = 0, ""
    try:
        for chunk in read_chunks(file, codec):
            size += len(chunk)
            if size > MAX_UNPACKED_BYTES:
                detail = f"over {MAX_UNPACKED_BYTES:,} bytes, which must be unpacked to be read"
                raise _NotRead(Reject(0, "too-large", detail))
            unpacked.write(chunk)
    except Damaged as error:
        damage = str(error)
    unpacked.seek(0)
    return unpacked, damage


def _size(file: BinaryIO) -> int:
    size = file.seek(0, SEEK_END)
    file.seek(0)
    return size


def _numbered(records: Iterator[Record]) -> Iterator[Record]:
    """Number the records of an archive in an archive without large gaps: each file begins where the last one ended."""
    at, base, first = -1, 0, -1
    for record in records:
        entry = record.entry
        if entry is None:  # a file that is passed over
            at += 1
            yield replace(record, position=at)
            continue
        if entry.first != first:
            base, first = at + 1, entry.first
        position = base + record.position - first
        at = max(at, position)
        yield replace(record, position=position, entry=replace(entry, first=base))

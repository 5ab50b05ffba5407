"""Tar archives (`.tar`, `.tar.gz`, `.tgz`): a stream of files, each after a header.

A header of 512 bytes has the name and the size of a file. Headers before it may hold a long name or size. `tarfile` parses a
header. Its own loop over an archive takes a damaged header for the end, and holds a long name of any length.

An uncompressed archive is cut between files and read by random access. A compressed one is a stream.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import SEEK_END, RawIOBase
from typing import Any, BinaryIO, cast

from bertloom import storage
from pipeline.inputs.formats.entry_names import decode_name
from pipeline.inputs.formats.format import Entry, Format
from pipeline.inputs.formats.ranges import Range
from pipeline.inputs.sources import Source, Split
from pipeline.inputs.streams import HEAD, Damaged, read_chunks
from pipeline.text.records import DAMAGED, EntryPlace, PassedOver, Reject

BLOCK = 512
PLACES = 1 << 28
"""Positions for each block of a file: at least as many as MAX_EXPANSION and FREE_TEXT allow bytes of text."""
MAX_BLOCKS = 1 << 35  # 16 TB, so that positions have 63 bits
MAX_FIELDS = 1 << 20  # bytes of a long name, or of the fields of a pax header

_FIELD = re.compile(rb"(\d{1,8}) ([^=]*)=")
_FIELDS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class _Broken(Exception):
    """An archive cannot be read beyond `place`, a byte of it."""

    def __init__(self, place: int, message: str):
        super().__init__(message)
        self.place = place


class _Tape:
    """The bytes of an archive, read forward."""

    def __init__(self, file: BinaryIO, codec: str | None):
        self.file, self.at = file, 0
        self.can_seek = codec is None and file.seekable()
        self.size = file.seek(0, SEEK_END) if self.can_seek else 0
        self.chunks = iter(()) if self.can_seek else read_chunks(file, codec)
        self.held, self.begin = b"", 0  # a chunk, and how much of it was used
        self.broken = "the archive ends early"  # why there is no more

    def read(self, size: int) -> bytes:
        """Return `size` bytes, or fewer where the archive ends or cannot be read further."""
        if self.can_seek:
            self.file.seek(self.at)
            data = self.file.read(size)
        else:
            data = self._next(size)
            while len(data) < size and (more := self._next(size - len(data))):
                data += more
        self.at += len(data)
        return data

    def _next(self, size: int) -> bytes:
        if self.begin == len(self.held):
            try:
                self.held, self.begin = next(self.chunks, b""), 0
            except Damaged as damage:
                self.held, self.begin, self.broken = b"", 0, str(damage)
        data = self.held[self.begin : self.begin + size]
        self.begin += len(data)
        return data

    def skip_to(self, place: int) -> bool:
        """Go forward to a byte; False if the archive ends before it."""
        if self.can_seek:
            self.at = min(place, self.size)
        while self.at < place and (data := self._next(place - self.at)):
            self.at += len(data)
        return self.at == place


class _Streamed(RawIOBase):
    """A file of an archive that is a stream. It can go back while only the first HEAD bytes were read."""

    def __init__(self, tape: _Tape, size: int):
        self.tape, self.size, self.at = tape, size, 0
        self.head = b""

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0 and (offset >= self.at or self.at <= len(self.head))
        if self.at <= len(self.head):
            self.at = min(offset, len(self.head))
        while self.at < offset and self.read(min(HEAD, offset - self.at)):
            pass
        return self.at

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self.size - self.at)
        if self.at < len(self.head):
            data = self.head[self.at : self.at + size]
        else:
            data = self.tape.read(size)
            if self.at == len(self.head) < HEAD:
                self.head += data
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


@dataclass(frozen=True)
class _Header:
    begin: int
    """Byte of the first of its headers."""
    name: str
    size: int
    kind: str
    """file, folder, or why it is passed over."""
    end: int
    """Byte of the next header."""


def _position(place: int) -> int:
    return place // BLOCK * PLACES


def _read_header(tape: _Tape) -> _Header | None:
    """Return the header of the next file, or None at the end, which blocks of zeros mark. _Broken where there is none."""
    begin: int | None = None
    name, fields, ended = b"", dict[bytes, bytes](), False
    while True:
        at, block = tape.at, tape.read(BLOCK)
        if len(block) < BLOCK:
            if ended and begin is None and not block:
                return None
            raise _Broken(at, tape.broken)
        if not block.strip(b"\0"):  # what follows the end of an archive may be another one
            if begin is not None:
                raise _Broken(at, "a long name without a file")
            ended = True
            continue
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise _Broken(at, f"no header of a file: {error}") from None
        if info.type == tarfile.XGLTYPE:  # for all files that follow, such as a comment
            tape.skip_to(tape.at + _padded(info.size))
            continue
        begin = at if begin is None else begin
        if info.type in _FIELDS:
            fields |= _parse_fields(_read_fields(tape, info.size), at)
        elif info.type in _LONG:
            text = _read_fields(tape, info.size).partition(b"\0")[0]
            name = text if info.type == tarfile.GNUTYPE_LONGNAME else name
        else:
            raw = fields.get(b"path") or name or info.name.encode("utf-8", "surrogateescape")
            size = fields.get(b"size", b"%d" % info.size)
            if not size.isdigit() or len(size) > 18 or tape.at + _padded(int(size)) >= MAX_BLOCKS * BLOCK:
                raise _Broken(at, f"a file of {size.decode(errors='replace')[:20]} bytes")
            more = block[482] if info.type == tarfile.GNUTYPE_SPARSE else 0
            while more:  # blocks that list where the data of a sparse file belong
                block = tape.read(BLOCK)
                more = len(block) == BLOCK and block[504]
            has_data = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
            end = tape.at + _padded(int(size)) * has_data
            return _Header(begin, decode_name(raw, "latin-1"), int(size), _kind(info, fields), end)


def _kind(info: tarfile.TarInfo, fields: dict[bytes, bytes]) -> str:
    if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith(b"GNU.sparse.") for key in fields):
        return "sparse-file"
    if info.issym() or info.islnk():
        return "link"
    if info.isdir():
        return "folder"
    return "file" if info.isreg() else "not-a-file"


def _padded(size: int) -> int:
    """Return the bytes of the blocks that hold `size` bytes of data."""
    return -(-size // BLOCK) * BLOCK


def _read_fields(tape: _Tape, size: int) -> bytes:
    if not 0 <= size <= MAX_FIELDS:
        raise _Broken(tape.at, f"a name, or fields, of {size} bytes: over {MAX_FIELDS}")
    return tape.read(_padded(size))[:size]


def _parse_fields(data: bytes, place: int) -> dict[bytes, bytes]:
    """Return the fields of a pax header. Each is its length, a space, its key, "=", its value and a line feed."""
    fields, at = dict[bytes, bytes](), 0
    while at < len(data):
        found = _FIELD.match(data, at)
        end = at + int(found[1]) if found else 0
        if not found or not found.end() < end <= len(data):
            raise _Broken(place, "fields that cannot be read")
        fields[found[2]] = data[found.end() : end - 1]
        at = end
    return fields


def _headers(tape: _Tape) -> Iterator[_Header]:
    """Yield the headers of all files from where the tape is. _Broken where the archive cannot be read further."""
    while header := _read_header(tape):
        yield header
        if not tape.skip_to(header.end):
            raise _Broken(tape.at, f"{tape.broken}, within {header.name}")


def _open_entries(file: BinaryIO, split: Split) -> Iterator[Entry | Reject | PassedOver]:
    tape = _Tape(file, split.source.codec)
    tape.skip_to(split.start // PLACES * BLOCK)
    last = split.start
    try:
        for header in _headers(tape):
            begin = _position(header.begin)
            last = _position(header.end)
            if header.kind == "file":
                inside: RawIOBase = _Streamed(tape, header.size)
                if tape.can_seek:
                    inside = Range(file, tape.at, max(0, min(header.size, tape.size - tape.at)))
                yield Entry(
                    name=header.name,
                    position=begin,
                    space=last - begin,
                    size=header.size,
                    file=cast(BinaryIO, inside),
                )
            elif header.kind != "folder":
                yield PassedOver(begin, header.kind)
    except _Broken as error:
        position = max(last, _position(error.place))
        detail = f"{error}: what came before it was kept"
        yield Reject(position, DAMAGED, detail, entry=EntryPlace("", position - error.place))


def _find_cuts(source: Source, split_bytes: int) -> list[int]:
    if not storage.is_local(source.path):
        return []  # the headers are between the files, so all of it would be read
    cuts, cut = list[int](), 0
    with storage.open_read(source.path) as file:
        try:
            for header in _headers(_Tape(file, None)):
                if header.begin >= cut + split_bytes:
                    cut = header.begin
                    cuts.append(_position(cut))
        except _Broken:
            pass  # the reader will report it
    return cuts


TAPE_ARCHIVE = Format(
    name="tar",
    description="a tar archive",
    endings=(".tar",),
    magic=rb"[\s\S]{257}ustar(?:\0|  \0)",
    open_entries=_open_entries,
    position_unit="entry",
    find_cuts=_find_cuts,
)

"""Zip archives: the directory at their end lists the files.

`zipfile` reads the directory. A file is given to its reader in a form that pipeline/inputs/streams.py reads within limits
and checks, because `zipfile` unpacks some methods without a limit: deflate as gzip, LZMA as .lzma.
"""

import io
import stat
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, cast
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from bertloom import storage
from pipeline.inputs.formats.entry_names import decode_name, shown_name
from pipeline.inputs.formats.format import Entry, Format
from pipeline.inputs.formats.ranges import Joined, Range
from pipeline.inputs.sources import Source, Split
from pipeline.inputs.streams import FREE_TEXT, MAX_EXPANSION, Damaged, read_chunks
from pipeline.text.records import DAMAGED, EntryPlace, PassedOver, Reject

PLACES = 1 << 40  # positions for each file
MAX_ENTRIES = 1_000_000  # each takes about 700 bytes of memory
MAX_DIRECTORY_BYTES = 200_000_000
ENTRY_BYTES = 500  # of text, whose tokens take as long as an entry of the directory

_ZSTD, _XZ = 93, 95
_CODECS = {ZIP_STORED: None, ZIP_DEFLATED: "gzip", ZIP_BZIP2: "bzip2", ZIP_LZMA: "xz", _ZSTD: "zstd", _XZ: "xz"}
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_OTHER_KINDS = {"[Content_Types].xml", "mimetype", "META-INF/MANIFEST.MF", "AndroidManifest.xml"}
_IS_ENCRYPTED, _IS_UTF8 = 0x1, 0x800
_ERRORS = (BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError)


class _Directory(io.RawIOBase):
    """A zip archive whose directory is read only if it is not too large."""

    def __init__(self, file: BinaryIO):
        self.file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset < 0 and whence == io.SEEK_SET:
            raise ValueError(f"its directory is at byte {offset}")
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise ValueError(f"a directory of {size} bytes, over {MAX_DIRECTORY_BYTES}")
        data = self.file.read(size)
        if data.count(b"PK\1\2") > MAX_ENTRIES:
            raise ValueError(f"more than {MAX_ENTRIES} files: pack them as .tar, which has no limit")
        return data


def _entries(file: BinaryIO) -> tuple[list[ZipInfo], int]:
    """Return (the entries in the order of their data, byte where the last one's data end at most). Raises _ERRORS."""
    archive = ZipFile(cast(BinaryIO, _Directory(file)))
    return sorted(archive.infolist(), key=lambda info: info.header_offset), archive.start_dir


def _open_entries(file: BinaryIO, split: Split) -> Iterator[Entry | Reject | PassedOver]:
    try:
        infos, end = _entries(file)
        if (total := sum(info.file_size for info in infos)) > max(FREE_TEXT, MAX_EXPANSION * split.source.size):
            raise ValueError(f"its files have {total} bytes, over {MAX_EXPANSION:,} times as much: this is no text")
    except _ERRORS as error:
        yield Reject(0, DAMAGED, f"{error}: nothing of the archive is used", entry=EntryPlace("", 0))
        return
    if _OTHER_KINDS & {info.filename for info in infos}:
        yield PassedOver(0, "not-an-archive")
        return
    end = min(end, file.seek(0, io.SEEK_END))
    ends = [min(info.header_offset, end) for info in infos[1:]] + [end]
    for number, info in enumerate(infos):
        if number * PLACES >= split.start and not info.filename.endswith("/"):
            yield _entry(file, info, number * PLACES, ends[number])


def _entry(file: BinaryIO, info: ZipInfo, position: int, end: int) -> Entry | Reject | PassedOver:
    """Return an entry, or what is wrong with it. end: byte where its data must have ended."""
    kind = info.external_attr >> 16
    if stat.S_ISLNK(kind):
        return PassedOver(position, "link")
    if stat.S_IFMT(kind) not in (0, stat.S_IFREG):
        return PassedOver(position, "not-a-file")
    if info.flag_bits & _IS_ENCRYPTED:
        return PassedOver(position, "encrypted")
    name = _name(info)
    entry = EntryPlace(shown_name(name), position)
    if info.compress_type not in _CODECS:
        detail = f"method {info.compress_type}; expected deflate, or no compression"
        return Reject(position, "unknown-compression", detail, entry=entry)
    begin = info.header_offset + _LOCAL_HEADER.size
    magic = b""
    if info.header_offset >= 0 and begin <= end:
        file.seek(info.header_offset)
        magic, *lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        begin += sum(lengths)
    if magic != b"PK\3\4" or begin + info.compress_size > end:
        return Reject(position, DAMAGED, "its data are not where the directory says", entry=entry)
    packed = cast(BinaryIO, Range(file, begin, info.compress_size))
    if info.compress_type == ZIP_DEFLATED:
        packed = _as_gzip(packed, info)
    elif info.compress_type == ZIP_LZMA:
        packed = _as_lzma(packed, info)
    codec = _CODECS[info.compress_type]
    return Entry(
        name=name,
        position=position,
        space=PLACES,
        size=info.compress_size,
        file=packed,
        codec=codec,
        find_fault=partial(_find_fault, packed, codec, info),
    )


def _name(info: ZipInfo) -> str:
    """Return the name of an entry. `zipfile` takes every name that is not marked as UTF-8 for the code page 437."""
    if info.flag_bits & _IS_UTF8:
        return info.filename.replace("\\", "/")
    return decode_name(info.filename.encode("cp437", "replace"), "cp437").replace("\\", "/")


def _as_gzip(deflated: BinaryIO, info: ZipInfo) -> BinaryIO:
    """Return deflated data as a gzip file, whose checksum is that of the directory."""
    end = struct.pack("<II", info.CRC, info.file_size & 0xFFFFFFFF)
    return cast(BinaryIO, Joined(io.BytesIO(_GZIP_HEADER), deflated, io.BytesIO(end)))


def _as_lzma(packed: BinaryIO, info: ZipInfo) -> BinaryIO:
    """Return LZMA data, which begin with a version and the length of the properties, as a .lzma file."""
    head = packed.read(9)
    size = -1 if info.flag_bits & 2 else info.file_size  # -1: a mark ends the data
    begin = head[4:9] + struct.pack("<q", size)
    data = cast(BinaryIO, Range(packed, 9, max(0, info.compress_size - 9)))
    return cast(BinaryIO, Joined(io.BytesIO(begin), data))


def _find_fault(packed: BinaryIO, codec: str | None, info: ZipInfo) -> str:
    """Return why the text of an entry would be wrong, or ""."""
    if codec == "gzip":
        return ""  # its reader compares the checksum
    size = checksum = 0
    try:
        for chunk in read_chunks(packed, codec):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
            if size > info.file_size:
                break
    except Damaged:
        return ""  # its reader will report it
    return "" if (size, checksum) == (info.file_size, info.CRC) else "its checksum or its size is wrong"


def _find_cuts(source: Source, split_bytes: int) -> list[int]:
    with storage.open_read(source.path) as file:
        try:
            infos, _ = _entries(file)
        except _ERRORS:
            return []  # the reader will report it
    least = max(split_bytes, ENTRY_BYTES * len(infos))
    cuts, size = list[int](), 0
    for number, info in enumerate(infos):
        if size >= least:
            cuts.append(number * PLACES)
            size = 0
        size += info.file_size
    return cuts


ZIP_ARCHIVE = Format(
    name="zip",
    description="a zip archive",
    endings=(".zip",),
    magic=rb"PK\x03\x04|PK\x05\x06",
    open_entries=_open_entries,
    needs_seek=True,
    position_unit="entry",
    find_cuts=_find_cuts,
    text_per_byte=3.0,  # its files are compressed
)

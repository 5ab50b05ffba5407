"""Archives that are damaged, or made to crash, to hang or to fill memory: what can be read is read, the rest is counted."""

import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from pipeline.inputs import streams
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import tape_archive, zip_archive
from pipeline.inputs.sources import Split
from pipeline.inputs.splitting import split_source
from pipeline.text.records import Document, Record, place_of
from tests.pipeline.archive_files import METHODS, PACK, make_tar, make_zip

A, B, C = ("a.txt", b"Text A."), ("b.txt", b"Text B."), ("c.txt", b"Text C.")
TAR = make_tar([A, B, C], "", tarfile.GNU_FORMAT)  # a header and a block of data each, from bytes 0, 1024 and 2048


def read(folder: Path, name: str, data: bytes) -> list[Record]:
    (folder / name).write_bytes(data)
    [source] = find_sources([str(folder / name)])
    whole = list(read_documents(Split(source, 0, None)))
    assert [item for split in split_source(source, 1) for item in read_documents(split)] == whole
    return whole


def essence(items: list[Record]) -> list[str]:
    return [item.text.decode() if isinstance(item, Document) else item.reason for item in items]


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A header of a tar with a valid checksum. size: 12 bytes."""
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" * 3 + size + b"00000000000\0" + b" " * 8 + kind)
    block += bytes(100) + b"ustar\00000"
    block = block.ljust(512, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_a_damaged_header_in_a_tar_is_one_reject_with_its_byte(tmp_path):
    data = bytearray(TAR)
    data[1030] ^= 1
    items = read(tmp_path, "a.tar", data)
    assert essence(items) == ["Text A.", "damaged-file"]
    assert place_of("a.tar", items[1]) == ("a.tar", 1024)
    assert items[1].detail == "no header of a file: bad checksum: what came before it was kept"


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_tar_that_ends_within_a_file_keeps_what_it_has(tmp_path, ending):
    items = read(tmp_path, f"a.tar{ending}", PACK[ending](TAR[:1541]))
    assert essence(items) == ["Text A.", "Text", "damaged-file"]
    assert place_of("a.tar", items[2]) == ("a.tar", 1541)
    assert "ends early, within b.txt" in items[2].detail


def test_a_compressed_tar_is_read_up_to_the_place_where_it_is_damaged(tmp_path):
    text = " ".join(str(zlib.crc32(b"%d" % i)) for i in range(20_000)).encode()
    packed = PACK[".gz"](make_tar([A, ("b.txt", text), C]))
    first, second, reason = essence(read(tmp_path, "a.tar.gz", packed[: len(packed) // 2]))
    assert (first, reason) == ("Text A.", "damaged-file")
    assert text.startswith(second.encode()) and len(second) > len(text) // 3
    wrong = bytearray(packed)
    wrong[-5] ^= 1  # of the checksum
    assert essence(read(tmp_path, "a.tar.gz", wrong)) == ["damaged-file"]


def test_a_tar_without_its_end_is_reported(tmp_path):
    assert essence(read(tmp_path, "a.tar", TAR[:3072])) == ["Text A.", "Text B.", "Text C.", "damaged-file"]
    assert essence(read(tmp_path, "a.tar", b"")) == ["damaged-file"]
    with pytest.raises(ValueError, match="its first bytes are not those of a tar archive"):
        read(tmp_path, "a.tar", bytes(10240))


def test_a_tar_after_the_end_of_another_is_read_and_anything_else_there_is_reported(tmp_path):
    assert essence(read(tmp_path, "a.tar", TAR + make_tar([C]))) == ["Text A.", "Text B.", "Text C.", "Text C."]
    assert essence(read(tmp_path, "a.tar", TAR + b"garbage")) == ["Text A.", "Text B.", "Text C.", "damaged-file"]
    assert essence(read(tmp_path, "a.tar", TAR + b"garbage" * 512)) == ["Text A.", "Text B.", "Text C.", "damaged-file"]


@pytest.mark.parametrize(
    ("size", "kind", "message"),
    [
        (b"\x80" + b"\x7f" * 11, b"0", "a file of "),
        (b"\xff" * 11 + b"\xfe", b"0", "a file of -2 bytes"),
        (b"77777777777\0", b"L", "over 1048576"),
        (b"77777777777\0", b"x", "over 1048576"),
        (b"\xff" * 11 + b"\xfe", b"x", "of -2 bytes"),
        (b"not a number", b"0", "no header of a file: invalid header"),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_header_with_an_impossible_size_is_a_reject(tmp_path, size, kind, message, ending):
    items = read(tmp_path, f"a.tar{ending}", PACK[ending](TAR[:1024] + header(b"x.txt", size, kind) + TAR[1024:]))
    assert essence(items) == ["Text A.", "damaged-file"]
    assert message in items[1].detail


def test_a_file_larger_than_the_tar_gives_what_there_is(tmp_path):
    data = header(b"x.txt", b"77777777777\0") + b"Text."
    for name in ("a.tar", "a.tar.gz"):
        items = read(tmp_path, name, PACK[name[5:]](data))
        assert essence(items) == ["Text.", "damaged-file"]


@pytest.mark.parametrize("fields", [b"12 path=", b"999 path=x\n", b"path", b"0 a=b\n", b"99999999999999999999 a=b\n"])
def test_fields_of_a_pax_header_that_cannot_be_read_are_a_reject(tmp_path, fields):
    pax = header(b"pax", b"%011o\0" % len(fields), b"x") + fields.ljust(512, b"\0")
    items = read(tmp_path, "a.tar", TAR[:1024] + pax + TAR[1024:])
    assert essence(items) == ["Text A.", "damaged-file"]
    assert items[1].detail.startswith("fields that cannot be read")


def test_headers_without_a_file_are_read_in_little_memory(tmp_path):
    field = b"1000000 path=" + b"x" * 999_986 + b"\n"
    pax = header(b"pax", b"%011o\0" % len(field), b"x") + field.ljust(1_000_448, b"\0")
    long = header(b"long", b"%011o\0" % 512, b"L") + b"y" * 512
    (tmp_path / "a.tar").write_bytes((pax + long) * 50)
    [source] = find_sources([str(tmp_path / "a.tar")])
    tracemalloc.start()
    assert essence(list(read_documents(Split(source, 0, None)))) == ["damaged-file"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_tar_that_expands_to_gigabytes_ends_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "FREE_TEXT", 1 << 20)
    monkeypatch.setattr(streams, "MAX_EXPANSION", 100)
    items = read(tmp_path, "a.tar.gz", PACK[".gz"](make_tar([A, ("b.txt", bytes(4_000_000))])))
    assert essence(items) == ["damaged-file"]
    assert "times as much: this is no text" in items[0].detail


@pytest.mark.parametrize("method", METHODS)
def test_a_file_of_a_zip_with_a_wrong_checksum_is_a_reject_and_the_others_are_read(tmp_path, method):
    data = bytearray(make_zip([A, ("b.txt", b"Text B, which is longer. " * 10), C], method))
    entry = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[entry + 16] ^= 1
    items = read(tmp_path, "a.zip", data)
    assert essence(items) == ["Text A.", "damaged-file", "Text C."]
    assert place_of("a.zip", items[1]) == ("a.zip!b.txt", 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_file_of_a_zip_with_a_changed_byte_gives_no_wrong_text(tmp_path, method):
    text = " ".join(str(zlib.crc32(b"%d" % i)) for i in range(500)).encode()
    data = make_zip([A, ("b.txt", text), C], method)
    begin = data.index(b"b.txt") + 5
    for place in range(begin + 20, data.index(b"c.txt") - 40, 301):
        wrong = bytearray(data)
        wrong[place] ^= 4
        found = essence(read(tmp_path, "a.zip", wrong))
        assert (found[0], found[-1]) == ("Text A.", "Text C.") and "damaged-file" in found
        assert all(text.startswith(one.encode()) for one in found[1:-2])


def change(data: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    """Change a field in the directory's entry of a file."""
    at = data.rindex(name) - 46 + offset
    return data[:at] + value + data[at + len(value) :]


def test_files_of_a_zip_that_cannot_be_read_are_counted(tmp_path):
    data = make_zip([A, B, C])
    assert essence(read(tmp_path, "a.zip", change(data, b"b.txt", 8, b"\1"))) == ["Text A.", "encrypted", "Text C."]
    items = read(tmp_path, "a.zip", change(data, b"b.txt", 10, b"\x09"))
    assert essence(items) == ["Text A.", "unknown-compression", "Text C."]
    assert items[1].detail == "method 9; expected deflate, or no compression"
    link = change(data, b"b.txt", 38, struct.pack("<I", 0o120777 << 16))
    assert essence(read(tmp_path, "a.zip", link)) == ["Text A.", "link", "Text C."]
    pipe = change(data, b"b.txt", 38, struct.pack("<I", 0o010644 << 16))
    assert essence(read(tmp_path, "a.zip", pipe)) == ["Text A.", "not-a-file", "Text C."]


def test_files_of_a_zip_that_share_data_are_read_once(tmp_path):
    data = make_zip([A, B, C])
    same = change(data, b"b.txt", 42, struct.pack("<I", 0))
    assert essence(read(tmp_path, "a.zip", same)) == ["damaged-file", "damaged-file", "Text C."]
    twice = change(change(data, b"b.txt", 42, struct.pack("<I", 0)), b"b.txt", 16, struct.pack("<I", zlib.crc32(A[1])))
    assert essence(read(tmp_path, "a.zip", twice)) == ["damaged-file", "Text A.", "Text C."]
    longer = change(data, b"b.txt", 20, struct.pack("<I", 1000))
    assert essence(read(tmp_path, "a.zip", longer)) == ["Text A.", "damaged-file", "Text C."]
    far = change(data, b"b.txt", 42, struct.pack("<I", 0x7FFFFFFF))
    assert sorted(essence(read(tmp_path, "a.zip", far))) == ["Text A.", "Text C.", "damaged-file"]


def test_files_of_a_zip_that_would_be_beyond_its_end_are_rejects(tmp_path):
    data = make_zip([A, B, C])
    for name in (b"b.txt", b"c.txt"):  # the first one is followed by the second one, which is beyond the end, too
        data = change(data, name, 42, struct.pack("<I", 0x7FFF0000 + 100 * name[0]))
    assert essence(read(tmp_path, "a.zip", data)) == ["Text A.", "damaged-file", "damaged-file"]


def test_a_zip_without_its_directory_is_one_reject(tmp_path):
    data = make_zip([A, B, C])
    items = read(tmp_path, "a.zip", data[:-30])
    assert essence(items) == ["damaged-file"]
    assert items[0].detail == "File is not a zip file: nothing of the archive is used"


def test_a_zip_with_too_many_files_is_one_reject(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_archive, "MAX_ENTRIES", 2)
    [item] = read(tmp_path, "a.zip", make_zip([A, B, C]))
    assert item.reason == "damaged-file" and "more than 2 files: pack them as .tar" in item.detail
    monkeypatch.setattr(zip_archive, "MAX_ENTRIES", 3)
    monkeypatch.setattr(zip_archive, "MAX_DIRECTORY_BYTES", 100)
    [item] = read(tmp_path, "a.zip", make_zip([A, B, C]))
    assert "a directory of 153 bytes, over 100" in item.detail


def test_a_zip_that_expands_to_gigabytes_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_archive, "FREE_TEXT", 1 << 20)
    monkeypatch.setattr(zip_archive, "MAX_EXPANSION", 100)
    [item] = read(tmp_path, "a.zip", make_zip([(f"{i}.txt", bytes(900_000)) for i in range(10)]))
    assert item.reason == "damaged-file" and "its files have 9000000 bytes" in item.detail


def test_a_file_of_a_zip_that_is_larger_than_it_says_is_a_reject(tmp_path):
    data = make_zip([A, ("b.txt", bytes(20_000_000)), C], "bzip2")
    items = read(tmp_path, "a.zip", change(data, b"b.txt", 24, struct.pack("<I", 10)))
    assert essence(items) == ["Text A.", "damaged-file", "Text C."]


def test_a_zip64_is_read(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, archive.open("a.txt", "w", force_zip64=True) as entry:
        entry.write(b"Text A.")
    assert essence(read(tmp_path, "a.zip", file.getvalue())) == ["Text A."]


def test_positions_of_a_tar_have_room_for_all_that_a_file_can_expand_to():
    blocks = 1 + (1 << 20)  # of a file of 512 MB
    assert tape_archive.PLACES * blocks > streams.MAX_EXPANSION * 512 * blocks
    assert tape_archive.PLACES * 2 > streams.FREE_TEXT
    assert tape_archive.PLACES * tape_archive.MAX_BLOCKS <= 1 << 63
    assert zip_archive.PLACES * zip_archive.MAX_ENTRIES < 1 << 63

"""What a file holds is told by its name and its first bytes, and never guessed where they disagree."""

import bz2
import gzip
import io
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bertloom import storage
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.formats.registry import FORMATS, find_format, format_by_name, format_named
from pipeline.inputs.sources import ReadConfig

TABLE = pa.table({"text": ["one", "two"]})


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink)
    return sink.getvalue()


def arrow(new=pa.ipc.new_file) -> bytes:
    sink = io.BytesIO()
    with new(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue()


XML = b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">\n</mediawiki>'
TEXT, JSON = b"One sentence.\n", b'{"text": "one"}\n'
PACKED = {
    ".gz": gzip.compress(TEXT, mtime=0),
    ".bz2": bz2.compress(TEXT),
    ".xz": lzma.compress(TEXT),
    ".zst": zstandard.ZstdCompressor().compress(TEXT),
}


def found(tmp_path: Path, name: str, data: bytes) -> tuple[str, str | None]:
    (tmp_path / name).write_bytes(data)
    with open(tmp_path / name, "rb") as file:
        form, codec, _ = find_format(name, data[:65536], file)
    return form.name, codec


def by_name(name: str) -> tuple[str | None, str | None]:
    form, codec = format_by_name(name)
    return form and form.name, codec


@pytest.mark.parametrize(
    "path, expected",
    [
        ("a.txt", ("txt", None)),
        ("a.jsonl", ("jsonl", None)),
        ("a.b.txt.gz", ("txt", "gzip")),
        ("x/a.jsonl.bz2", ("jsonl", "bzip2")),
        ("gs://b/a.txt.zst", ("txt", "zstd")),
        ("a.txt.xz", ("txt", "xz")),
        ("a.parquet", ("parquet", None)),
        ("data-00000-of-00001.arrow", ("arrow", None)),
        ("enwiki-20251101-pages-articles.xml.bz2", ("mediawiki", "bzip2")),
        ("zhwiki-20251101-pages-articles1.xml-p1p187712.bz2", ("mediawiki", "bzip2")),
        ("a.CSV", ("csv", None)),
        ("a.tsv.gz", ("tsv", "gzip")),
        ("a", (None, None)),
        ("a.gz", (None, "gzip")),
        ("a.txt.gz.gz", (None, "gzip")),
        ("a.json", (None, None)),
        ("a.txt.lz4", (None, None)),
    ],
)
def test_a_name_shows_format_and_codec(path, expected):
    assert by_name(path) == expected


@pytest.mark.parametrize(
    "name, data",
    [
        ("a.txt", TEXT),
        ("a.jsonl", JSON),
        ("a.parquet", parquet()),
        ("a.arrow", arrow()),
        ("b.arrow", arrow(pa.ipc.new_stream)),
        ("a.xml", XML),
        ("b.xml", b'<?xml version="1.0"?>\n' + XML),
        ("a.txt", b""),
        ("a.jsonl", b""),
        ("a.txt", b"PARIS is a city."),
        ("a.txt", b"BZhang wrote this."),
        ("a.txt", b"PK is a name."),
        ("a.txt", b"<p>HTML is text, too.</p>"),
        ("a.txt", b"\x1f\x8b"),
    ],
)
def test_a_file_has_the_format_of_its_name_when_its_bytes_agree(tmp_path, name, data):
    assert found(tmp_path, name, data) == by_name(name)


@pytest.mark.parametrize("ending", PACKED)
def test_a_compressed_file_has_the_format_of_its_name_when_its_bytes_agree(tmp_path, ending):
    name = f"a.txt{ending}"
    for data in (PACKED[ending], PACKED[ending][:20], b"", b"no archive at all"):  # the reader will say what is broken
        assert found(tmp_path, name, data) == by_name(name)


@pytest.mark.parametrize(
    "name, data, said",
    [
        ("a.txt", PACKED[".gz"], "its first bytes are those of gzip, but its name says not compressed"),
        ("a.jsonl", PACKED[".bz2"], "those of bzip2, but its name says not compressed"),
        ("a.txt.gz", PACKED[".zst"], "those of zstd, but its name says gzip"),
        ("a.txt.gz", PACKED[".xz"], "those of xz, but its name says gzip"),
        ("a.jsonl", parquet(), "those of Parquet, but its name says JSON Lines"),
        ("a.txt", arrow(), "those of Arrow IPC, but its name says plain text"),
        ("a.jsonl.gz", gzip.compress(parquet(), mtime=0), "those of Parquet, but its name says JSON Lines"),
        ("a.jsonl.gz", parquet(), "those of Parquet, but its name says gzip"),
        ("a.parquet", arrow(), "those of Arrow IPC, but its name says Parquet"),
        ("a.parquet", JSON, "not those of Parquet, but its name says Parquet"),
        ("a.arrow", TEXT, "not those of Arrow IPC, but its name says Arrow IPC"),
        ("a.xml", b"<html></html>", "not those of a MediaWiki dump, but its name says a MediaWiki dump"),
        ("a.txt", XML, "those of a MediaWiki dump, but its name says plain text"),
        ("a.txt.gz", gzip.compress(PACKED[".gz"], mtime=0), "is compressed twice, the second time as gzip"),
        ("a.txt", b"PK\x03\x04...", "those of a zip archive, but its name says plain text"),
        ("a.txt", b"7z\xbc\xaf\x27\x1c...", "is a 7z archive, which cannot be read. Unpack it"),
        ("a.txt", b"%PDF-1.7", "is a PDF"),
        ("notes.doc", TEXT, "its name does not show its format. Expected a name that ends in .txt, .jsonl"),
        ("a.gz", PACKED[".gz"], "its name does not show its format"),
        ("README", b"", "its name does not show its format"),
    ],
)
def test_a_contradiction_between_name_and_bytes_is_an_error_that_names_both(tmp_path, name, data, said):
    with pytest.raises(ValueError) as error:
        found(tmp_path, name, data)
    assert str(error.value).startswith(f"{name}: ") and said in str(error.value)


ARRAY, PRETTY = b'[\n {"text": "one"}\n]', b'{\n "text": "one"\n}'


@pytest.mark.parametrize(
    "name, data, expected",
    [
        ("a.json", JSON, "jsonl"),
        ("a.json", b'\xef\xbb\xbf {"text": "one"}', "jsonl"),
        ("a.json", b'{"body": "one"}\n{"body": "two"}\n', "jsonl"),
        ("a.json", '{"text": "one"}\n{"text": "two"}\n'.encode("utf-16"), "jsonl"),
        ("a.json", b'{"text": "' + b"x" * 70_000 + b'"}\n', "jsonl"),
        ("a.json", ARRAY, "json-array"),
        ("a.json", b'[{"text": "one"}', "json-array"),
        ("a.json", b" [ { } ]", "json-array"),
        ("a.json", b'[ {"text": "one"} ]'.decode().encode("utf-16"), "json-array"),
        ("a.JSON.gz", gzip.compress(ARRAY, mtime=0), "json-array"),
        ("wiki_00", JSON, "jsonl"),
        ("wiki.0001", JSON, "jsonl"),
        ("part-00000.bz2", bz2.compress(JSON), "jsonl"),
        ("part-00000", parquet(), "parquet"),
        ("package.json", PRETTY, None),
        ("config.json", b'{"size": 1}', None),
        ("config.json", b'{"size": 1}\n\n', None),
        ("numbers.json", b"[1, 2]", None),
        ("broken.json", b'{"text": "one"\n', None),
        ("empty.json", b"", None),
        ("_SUCCESS", b"", None),
        ("README", b"A text.", None),
        ("program", b"\x7fELF\0\0", None),
        ("packed", gzip.compress(JSON, mtime=0), None),  # without .gz
        ("a.log", JSON, None),  # another ending is not looked into
    ],
)
def test_below_a_folder_the_first_bytes_decide_where_a_name_may_be_of_any_format(tmp_path, name, data, expected):
    (tmp_path / "known.txt").write_bytes(TEXT)
    (tmp_path / name).write_bytes(data)
    notes: list[str] = []
    found = {source.name: source.format for source in find_sources([str(tmp_path)], notes)}
    assert found.pop("known.txt") == "txt" and found == ({name: expected} if expected else {})
    assert (f"{tmp_path}: 1 of 2 files skipped (" in "".join(notes)) == (expected is None)


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("package.json", PRETTY, "one JSON object"),
        ("config", PRETTY, "one JSON object"),
        ("texts.json", b'[\n  "One text.",\n  "Another."\n]', "a JSON array"),
        ("numbers.json", b"[-1, 2]", "a JSON array"),
        ("rows.json", b'[["a", "b"]]', "a JSON array"),
    ],
)
def test_a_named_file_of_other_json_is_an_error_that_says_what_was_expected(tmp_path, name, data, kind):
    (tmp_path / name).write_bytes(data)
    said = rf": is {kind}, not records of which each is an object with a field 'text'\. Write its texts as JSON Lines"
    with pytest.raises(ValueError, match=name + said):
        find_sources([str(tmp_path / name)])


def test_a_folder_without_a_file_that_can_be_read_is_an_error_that_says_why(tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_bytes(PRETTY)
    with pytest.raises(ValueError, match=r"no file can be read, such as .*/a\.json: is one JSON object, not records"):
        find_sources([str(tmp_path)])


def test_only_files_whose_names_may_be_of_any_format_are_opened(tmp_path, monkeypatch):
    for name in ("a.txt", "b.doc", "c.py", "d.json", "e"):
        (tmp_path / name).write_bytes(JSON)
    opened, open_read = [], storage.open_read
    monkeypatch.setattr(storage, "open_read", lambda path: opened.append(Path(path).name) or open_read(path))
    assert [source.name for source in find_sources([str(tmp_path)])] == ["a.txt", "d.json", "e"]
    assert sorted(opened) == ["a.txt", "d.json", "e"]


def test_format_reads_files_of_any_name_and_content_as_this_format(tmp_path):
    for name, data in (
        ("a.txt", b"1\tOne.\n"),
        ("b", b"2\tTwo.\n"),
        ("c.md.gz", gzip.compress(b"3\tThree.\n", mtime=0)),
    ):
        (tmp_path / name).write_bytes(data)
    config = ReadConfig(format="tsv", text_column="1")
    found = {source.name: (source.format, source.codec) for source in find_sources([str(tmp_path)], config=config)}
    assert found == {"a.txt": ("tsv", None), "b": ("tsv", None), "c.md.gz": ("tsv", "gzip")}


def test_format_is_refused_where_it_is_unknown_or_the_first_bytes_are_of_another_one(tmp_path):
    (tmp_path / "a.txt").write_bytes(parquet())
    with pytest.raises(ValueError, match="--format sql: expected one of txt, .*jsonl, json-array, csv, tsv, parquet"):
        find_sources([str(tmp_path)], config=ReadConfig(format="sql"))
    with pytest.raises(ValueError, match=r"a\.txt: its first bytes are those of Parquet\. --format csv does not fit"):
        find_sources([str(tmp_path)], config=ReadConfig(format="csv"))
    (tmp_path / "a.txt").write_bytes(TEXT)
    with pytest.raises(ValueError, match=r"its first bytes are not those of Parquet\. --format parquet does not fit"):
        find_sources([str(tmp_path)], config=ReadConfig(format="parquet"))


@pytest.mark.parametrize(
    "name, data, expected",
    [
        ("part-0000", parquet(), ("parquet", None)),
        ("cache", arrow(pa.ipc.new_stream), ("arrow", None)),
        ("dump.bz2", bz2.compress(XML), ("mediawiki", "bzip2")),
        ("dump", bz2.compress(XML), None),
    ],
)
def test_magic_bytes_decide_when_the_name_shows_no_format(tmp_path, name, data, expected):
    if expected:
        assert found(tmp_path, name, data) == expected
    else:
        with pytest.raises(ValueError, match="those of bzip2, but its name says not compressed"):
            found(tmp_path, name, data)


def test_positions_are_rows_in_tables_and_bytes_in_all_other_files():
    rows = [form.name for form in FORMATS if form.position_unit == "row"]
    assert rows == ["parquet", "arrow"] and format_named("mediawiki").position_unit == "byte"


def test_a_source_has_its_format_codec_and_size(tmp_path):
    (tmp_path / "a.parquet").write_bytes(parquet())
    [source] = find_sources([str(tmp_path)])
    assert (source.format, source.codec, source.size) == ("parquet", None, len(parquet()))


@pytest.mark.parametrize("name", ["undefined", "hex", "utf8mb4"])
def test_a_name_that_is_not_a_text_encoding_is_refused(name):
    with pytest.raises(ValueError, match=f"--encoding {name}: Python has no such text encoding. Expected auto"):
        ReadConfig(encoding=name)

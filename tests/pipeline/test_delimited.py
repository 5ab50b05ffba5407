"""CSV and TSV: the records are those of Python's `csv`, and their positions are exact."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import delimited
from pipeline.inputs.formats.delimited import DELIMITERS, _fields, _find_delimiter, _records
from pipeline.inputs.formats.streamed import Chunks
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.inputs.splitting import split_source
from pipeline.text.records import Document, PassedOver, Record, Reject

PIECES = ["a", "b", '"', '"', '""', ",", ",", ";", "\n", "\r\n", "\r", "é", "中", " ", "\0"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
CHUNK = st.sampled_from([1, 2, 3, 7, 1 << 20])


def records(data: bytes, chunk: int, start: int = 0, delimiter: str | None = ",") -> list[tuple[int, bytes | Reject]]:
    chunks = [data[i : i + chunk] for i in range(start, len(data), chunk)]
    return list(_records(Chunks(chunks, ends_at_damage=True), start, delimiter))


def source_of(folder: Path, data: bytes, name: str = "a.csv", **options: Any) -> Source:
    (folder / name).write_bytes(data)
    [source] = find_sources([str(folder / name)], config=ReadConfig(**options))
    return source


def read(source: Source, split_bytes: int = 1 << 20) -> list[Record]:
    return [record for split in split_source(source, split_bytes) for record in read_documents(split)]


def texts(items: list[Record]) -> list[str]:
    return [item.text.decode() for item in items if isinstance(item, Document)]


def rejects(items: list[Record]) -> list[tuple[int, str, str]]:
    return [(item.position, item.reason, item.detail) for item in items if isinstance(item, Reject)]


@settings(max_examples=400)
@example('a,"b\nc"x,"""\r"\r,d', 1)
@example('"\n"\n,a"b,"c', 2)
@given(TEXT, CHUNK)
def test_the_records_are_those_of_pythons_csv_and_reading_may_begin_at_each(text, chunk):
    data = text.encode()
    found = records(data, chunk)
    twin = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    unclosed = next((i for i, (_, raw) in enumerate(found) if isinstance(raw, Reject)), None)
    rows = [_fields(raw, ",", True)[0] for _, raw in found[:unclosed] if isinstance(raw, bytes) and raw.strip(b"\r\n")]
    if unclosed is None:
        assert rows == twin and b"".join(raw for _, raw in found if isinstance(raw, bytes)) == data
    else:  # the last record of the twin; reading goes on after its first line
        assert rows == twin[:-1]
        first_line = data[found[unclosed][0] :].splitlines(keepends=True)[0]
        assert found[unclosed + 1 :] == records(data, 1 << 20, found[unclosed][0] + len(first_line))
    for i, (position, _) in enumerate(found):
        assert records(data, 5, position) == found[i:]


@given(TEXT, CHUNK)
def test_in_tsv_each_line_is_a_record(text, chunk):
    found = [raw for _, raw in records(text.encode(), chunk, delimiter=None)]
    assert found == text.encode().splitlines(keepends=True)


@settings(max_examples=250)
@given(TEXT, st.integers(1, 20), st.sampled_from([1, 2, 1 << 20]), CHUNK)
def test_a_record_beyond_the_limits_is_a_reject_wherever_reading_begins(text, max_bytes, max_lines, chunk):
    data = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "MAX_LINE_BYTES", max_bytes)
        patch.setattr(delimited, "MAX_RECORD_LINES", max_lines)
        found = records(data, chunk)
        for i, (position, raw) in enumerate(found):
            assert isinstance(raw, Reject) or (len(raw) <= max_bytes and len(raw.splitlines()) <= max_lines)
            assert records(data, 1 << 20, position) == found[i:]
            following = found[i + 1][0] if i + 1 < len(found) else len(data)
            assert isinstance(raw, Reject) or following - position == len(raw)


def test_an_unclosed_quote_in_every_line_takes_linear_time(monkeypatch):
    looked = []
    ends = delimited._ends_in_quotes
    monkeypatch.setattr(delimited, "_ends_in_quotes", lambda *line: looked.append(1) or ends(*line))
    monkeypatch.setattr(delimited, "MAX_LINE_BYTES", 3000)
    found = records(b'a","\n' * 10_000, 1 << 16)
    assert len(found) == 10_000 and all(isinstance(raw, Reject) for _, raw in found)
    assert len(looked) <= 2 * 10_000


@settings(max_examples=150)
@given(st.lists(TEXT, min_size=1, max_size=12), st.integers(1, 60), CHUNK, st.sampled_from([".csv", ".tsv"]))
def test_a_file_cut_at_any_size_gives_the_same_records(tmp_path_factory, fields, split_bytes, chunk, ending):
    folder = tmp_path_factory.getbasetemp()
    if ending == ".csv":
        sink = io.StringIO(newline="")
        csv.writer(sink).writerows([["text", "n"], *([field, i] for i, field in enumerate(fields))])
        data = sink.getvalue().encode()
    else:
        data = "".join(["text\tn\n", *(f"{field}\t{i}\n" for i, field in enumerate(fields))]).encode()
    source = source_of(folder, data, f"cut{ending}", encoding="utf-8")  # letters between NUL are UTF-16
    whole = list(read_documents(Split(source, 0, None)))
    assert read(source, split_bytes) == whole
    for i, item in enumerate(whole):
        assert list(read_documents(Split(source, 0, None), item.position)) == whole[i:]


def test_a_record_is_a_document_with_the_byte_of_its_first_line_as_position(tmp_path):
    data = b'id,text\n1,One.\n\n2,"Two, ""quoted"".\r\n\r\nMore."\n3,\xe4\xb8\xad\xe6\x96\x87\n'
    items = read(source_of(tmp_path, data))
    assert items[0] == PassedOver(0, "header")
    assert [(d.position, d.text.decode()) for d in items if isinstance(d, Document)] == [
        (8, "One."),
        (16, 'Two, "quoted".\nMore.'),
        (46, "中文"),
    ]
    assert rejects(items) == [(15, "blank-line", "")]
    assert [d.record_id for d in items if isinstance(d, Document)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "options",
    [
        {"records": "sentences", "records_per_document": 3},
        {"records": "sentences", "document_column": "book"},
        {"records": "lines", "document_start": "^Title"},
    ],
)
@pytest.mark.parametrize("split_bytes", [30, 200, 10_000])
def test_records_that_are_sentences_or_lines_make_the_same_documents_as_in_json_lines(tmp_path, options, split_bytes):
    rows = [{"book": i // 4, "text": f"Title {i}." if i % 5 == 0 else f"Sentence, number {i}."} for i in range(40)]
    files = {"a.jsonl": "".join(json.dumps(row) + "\n" for row in rows), "b.json": json.dumps(rows)}
    csv.DictWriter(sink := io.StringIO(newline=""), ["book", "text"]).writerows(
        [{"book": "book", "text": "text"}, *rows]
    )
    files["c.csv"] = sink.getvalue()
    files["d.tsv"] = "book\ttext\n" + "".join(f"{row['book']}\t{row['text']}\n" for row in rows)
    found = [
        texts(read(source_of(tmp_path, data.encode(), name, **options), split_bytes)) for name, data in files.items()
    ]
    assert len(found[0]) >= 8 and all(one == found[0] for one in found)


def test_in_tsv_a_quote_is_text_like_any_other(tmp_path):
    items = read(source_of(tmp_path, b'1\t"Never closed.\n2\tShe said "yes".\n', "a.tsv", text_column="1"))
    assert texts(items) == ['"Never closed.', 'She said "yes".']


@pytest.mark.parametrize(
    "data, name, options, expected",
    [
        (b"text,id\na,1\n", "a.csv", {}, ["a"]),
        (b"a,1\nb,2\n", "a.csv", {"text_column": "0"}, ["a", "b"]),
        (b"text,1\nb,2\n", "a.csv", {"text_column": "0"}, ["text", "b"]),  # a number is no name of a column
        (b"text,n\nb,2\n", "a.csv", {"text_column": "0"}, ["b"]),
        (b"text,n\nb,2\n", "a.csv", {"text_column": "0", "header": "no"}, ["text", "b"]),
        (b"a,b\nc,d\n", "a.csv", {"text_column": "1", "header": "yes"}, ["d"]),
        (b" text , id\na,1\n", "a.csv", {}, ["a"]),
        (b"\xef\xbb\xbftext,id\r\na,1\r\n", "a.csv", {}, ["a"]),
        (b"\n\ntext,id\na,1\n", "a.csv", {}, ["a"]),
        (b"text,id\ra,1\rb,2", "a.csv", {}, ["a", "b"]),
        ("text,id\näöü,1\n".encode("utf-16"), "a.csv", {}, ["äöü"]),
        ("text,id\nžluť,1\n".encode("cp1250"), "a.csv", {"encoding": "cp1250"}, ["žluť"]),
        (b"text,id\na\0b,1\n", "a.csv", {}, ["a\0b"]),
        (b"text,id\na\xffb,1\n", "a.csv", {}, ["a\ufffdb"]),
        (b"", "a.csv", {}, []),
        (b"text\n", "a.tsv", {}, []),
    ],
)
def test_headers_marks_line_ends_and_encodings(tmp_path, data, name, options, expected):
    for packed in (False, True):
        path, content = (f"{name}.gz", gzip.compress(data, mtime=0)) if packed else (name, data)
        assert texts(read(source_of(tmp_path, content, path, **options))) == expected


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"id;text\n1;a, b, c\n", ";"),
        (b"id\ttext\n1\ta, b; c\n", "\t"),
        (b"id|text\n1|a, b\n", "|"),
        (b"id,text\n1,a; b\n2,c; d\n", ","),
        (b"1,5;a\n2,5;b\n", ";"),
        (b"1,Yes; no.\n2,Yes.\n", ","),
        (b'1;"a, b\n;;c"\n2;"d, e, f"\n', ";"),
        (b"text\nOne; two.\n", ","),
        (b"", ","),
    ],
)
def test_the_delimiter_of_a_csv_file_is_found_from_its_first_records(data, expected):
    assert _find_delimiter(data, "text") == expected


@given(st.sampled_from(DELIMITERS), st.lists(st.lists(TEXT, min_size=3, max_size=3), min_size=1, max_size=20))
def test_the_delimiter_with_which_a_table_with_a_header_was_written_is_found(delimiter, rows):
    sink = io.StringIO(newline="")
    csv.writer(sink, delimiter=delimiter).writerows([["id", "text", "more"], *rows])
    assert _find_delimiter(sink.getvalue().encode(), "text") == delimiter


@pytest.mark.parametrize(
    "data, options, said",
    [
        (
            b"id,body\n1,a\n",
            {},
            "a.csv: has no column 'text'. Its columns are 'id', 'body': choose one with --text-column, or,",
        ),
        (
            b"1,a\n",
            {"text_column": "2"},
            "has no column 2: its first record is '1', 'a'. Choose --text-column by its number",
        ),
        (b"1,a\n", {"header": "no"}, "has no names with --header no, so there is no 'text'. Choose --text-column by"),
        (
            b"text,text\na,b\n",
            {},
            "has 2 columns with the name 'text'. Give the column's number with --text-column, from 0",
        ),
        (b'"text,id\na,1\n', {}, "its first record cannot be read (unclosed-quote: its quote is not closed within"),
    ],
)
def test_columns_that_do_not_fit_are_an_error_before_the_job_begins(tmp_path, data, options, said):
    for name, content in (("a.csv", data), ("a.csv.gz", gzip.compress(data, mtime=0))):
        with pytest.raises(ValueError) as error:
            split_source(source_of(tmp_path, content, name, **options), 100)
        assert said.removeprefix("a.csv: ") in str(error.value) and name in str(error.value)


def test_records_that_cannot_be_used_are_rejects_with_their_place(tmp_path):
    data = b'id,text\n1,a,b\n2\n3,"never closed\n4,good\n5,\n'
    items = read(source_of(tmp_path, data))
    assert texts(items) == ["good"]
    assert [(position, reason) for position, reason, _ in rejects(items)] == [
        (8, "wrong-columns"),
        (14, "wrong-columns"),
        (16, "unclosed-quote"),
        (39, "empty-text"),
    ]
    assert rejects(items)[0][2] == "3 columns, the first record has 2"


def test_a_damaged_file_is_kept_up_to_its_last_whole_record(tmp_path):
    lines = "".join(f'{i},"Text {i * 7919} is one.\n\nIt has, as {i * 104729}, more."\n' for i in range(2000))
    packed = gzip.compress(b"id,text\n" + lines.encode(), mtime=0)
    source = source_of(tmp_path, packed[: len(packed) // 2], "a.csv.gz")
    items = read(source)
    kept = texts(items)
    assert len(kept) > 500 and kept == [
        f"Text {i * 7919} is one.\nIt has, as {i * 104729}, more." for i in range(len(kept))
    ]
    assert {reason for _, reason, _ in rejects(items)} - {"wrong-columns", "unclosed-quote"} == {"damaged-file"}
    assert len(rejects(items)) <= 2

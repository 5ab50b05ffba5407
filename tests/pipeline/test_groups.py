"""Records that are sentences or lines: the documents that they are part of, however their file is cut or packed."""

import csv
import io
import json
import re
import tarfile
import tracemalloc
from collections import Counter
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs import groups, streams
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import streamed, tables
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.inputs.splitting import split_source
from pipeline.text import records
from pipeline.text.records import Document, PassedOver, Record, Reject, join_lines, paragraphs, whole_or_pieces
from tests.pipeline.reading import with_options
from tests.pipeline.test_tables import as_arrow_file, as_arrow_stream, as_parquet

MODES: dict[str, dict[str, Any]] = {
    "lines": {"records": "lines"},
    "lines without headings": {"records": "lines", "skip_lines": "^ =.*= $"},
    "titles": {"records": "lines", "document_start": "^ = [^=].* = $"},
    "titles and headings": {"records": "lines", "document_start": "^ = [^=].* = $", "skip_lines": "^ =.*= $"},
    "empty titles": {"records": "lines", "document_start": r"^\s*$"},
    "column": {"records": "sentences", "document_column": "book"},
    "numbers": {"records": "sentences", "records_per_document": 3},
}
TEXTS = ["", " ", "\u3000", "a", "Two. Three.", " b ", " = T = ", " = T = \r", " = = S = = ", "中文。", "= not = one ="]
BROKEN = [" c\n\nd", "e\r\nf", "\n", "\ud800"]  # records that no line of text can hold


@dataclass
class Given:
    """A record of a file. text: None for one that is rejected."""

    text: str | None
    book: Any


def records_of(texts: list[str], books: list[Any]) -> st.SearchStrategy[list[Given]]:
    text = st.sampled_from(texts) | st.sampled_from(["a", "b. c"]) | st.none()
    return st.lists(st.builds(Given, text, st.sampled_from(books)), max_size=14)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("groups")


def source_of(folder: Path, name: str, data: bytes, form: str | None = None, **options: Any) -> Source:
    (folder / name).write_bytes(data)
    [source] = find_sources([str(folder / name)], None, ReadConfig(encoding="utf-8", format=form))
    return with_options(source, **{"line_breaks": "space", **options})


def twin(given: list[Given], positions: list[int], reason: str, options: dict[str, Any]) -> list[Record]:
    """Return the records of a file, all of which are in a list."""

    def found(name: str, text: str) -> bool:
        return name in options and re.search(options[name], text.rstrip("\r\n")) is not None

    def begins(i: int) -> bool:
        """Whether a document begins with record i: look back to the last record that tells."""
        text = given[i].text
        if "document_start" in options and found("document_start", text):
            return True
        if not text.strip():
            return False
        for j in range(i - 1, -1, -1):
            before = given[j].text
            if before is None:
                return True
            if size := options.get("records_per_document"):
                if before.strip():
                    return i // size != j // size
            elif "document_column" in options:
                if before.strip():
                    return repr(given[i].book) != repr(given[j].book)
            elif "document_start" not in options or found("document_start", before) or before.strip():
                return "document_start" not in options and not before.strip()
        return True

    items: list[Record] = []
    group: list[int] = []

    def end() -> None:
        texts, passed, num_replaced, last = [], Counter(), 0, None
        for i in group:
            text = given[i].text
            if not text.strip() or found("skip_lines", text):
                passed["skipped-line" if text.strip() else "empty-record"] += 1
                continue
            data, number = paragraphs(text)
            texts.append(data)
            num_replaced += number
            last = positions[i]
        if group:
            first = positions[group[0]]
            data, breaks = b"\n".join(texts), options.get("line_breaks", "space")
            documents = list(whole_or_pieces(data, first, num_replaced, f"id{group[0]}", breaks))
            items.extend(replace(document, last_record=last) for document in documents)
            for piece, (why, number) in enumerate(sorted(passed.items()), len(documents)):
                items.append(PassedOver(first, why, piece, number))
        group.clear()

    for i, record in enumerate(given):
        if record.text is None:
            end()
            items.append(Reject(positions[i], reason))
        else:
            if begins(i):
                end()
            group.append(i)
    end()
    return items


def essence(items: list[Record], has_ids: bool = True) -> list[Any]:
    return [
        replace(i, record_id=i.record_id if has_ids else None, last_record=None if i.source_key else i.last_record)
        if isinstance(i, Document)
        else (i.position, i.reason, i.piece, getattr(i, "number", 1))
        for i in items
    ]


def check(source: Source, expected: list[Record], split_bytes: int, has_ids: bool = True) -> None:
    """Check the records of a file in one split, in many, and from each record on."""
    expected = list(map(join_lines, expected))
    whole = list(read_documents(Split(source, 0, None)))
    assert essence(whole, has_ids) == essence(expected, has_ids)
    splits = split_source(source, split_bytes)
    parts = [list(read_documents(split)) for split in splits]
    assert [item for part in parts for item in part] == whole
    for split, part in zip((*splits, Split(source, 0, None)), (*parts, whole), strict=True):
        for position in {item.position for item in part}:
            again = list(read_documents(split, position))
            assert again == [item for item in part if item.position >= position]


def small_buffers(patch: pytest.MonkeyPatch, chunk: int, most: int) -> None:
    """Make files be read and texts be cut in small bits."""
    patch.setattr(streams, "CHUNK", chunk)
    patch.setattr(streamed, "BORDER_BYTES", chunk)
    patch.setattr(tables, "BATCH_ROWS", 1 + chunk % 3)
    for module in (records, groups):
        patch.setattr(module, "MAX_DOCUMENT_BYTES", most)


ANY_MODE = pytest.mark.parametrize("options", MODES.values(), ids=MODES)
SPLITS = st.integers(1, 200)
CHUNKS = st.sampled_from([1, 5, 64, 1 << 20])
MOST = st.sampled_from([12, 40, 4_000_000])


@ANY_MODE
@settings(max_examples=40)
@given(
    given=records_of([*TEXTS, *BROKEN], [1, "1", 1.0, None, "b"]),
    split_bytes=SPLITS,
    chunk=CHUNKS,
    most=MOST,
    breaks=st.sampled_from(["auto", "paragraph", "space"]),
)
def test_objects_of_json_lines_are_grouped_as_by_the_twin(folder, options, given, split_bytes, chunk, most, breaks):
    options = {**options, "line_breaks": breaks}
    lines, positions, size = [], [], 0
    for i, record in enumerate(given):
        row = {"id": f"id{i}", "text": record.text, "book": record.book}
        line = "not JSON\n" if record.text is None else json.dumps(row) + "\n"
        positions.append(size)
        lines.append(line.encode())
        size += len(lines[-1])
    source = source_of(folder, "a.jsonl", b"".join(lines), **options)
    with pytest.MonkeyPatch.context() as patch:
        small_buffers(patch, chunk, most)
        check(source, twin(given, positions, "not-json", options), split_bytes)


@pytest.mark.parametrize("name", [name for name in MODES if name != "column"])
@settings(max_examples=40)
@given(given=records_of(TEXTS, [""]), split_bytes=SPLITS, chunk=CHUNKS, most=MOST, bom=st.booleans())
def test_lines_of_a_text_file_are_grouped_as_by_the_twin(folder, name, given, split_bytes, chunk, most, bom):
    lines, positions, size = [], [], 3 * bom
    for record in given:
        line = b"x" * 100 if record.text is None else record.text.encode()
        positions.append(size)
        lines.append(line + b"\n")
        size += len(lines[-1])
    source = source_of(folder, "a.txt", b"\xef\xbb\xbf" * bom + b"".join(lines), **MODES[name])
    with pytest.MonkeyPatch.context() as patch:
        small_buffers(patch, chunk, most)
        patch.setattr(streamed, "MAX_LINE_BYTES", 100)
        check(source, twin(given, positions, "line-too-long", MODES[name]), split_bytes, has_ids=False)


@ANY_MODE
@settings(max_examples=40)
@given(given=records_of([*TEXTS, *BROKEN[:-1]], ["1", "2", ""]), split_bytes=SPLITS, chunk=CHUNKS, most=MOST)
def test_records_of_csv_are_grouped_as_by_the_twin(folder, options, given, split_bytes, chunk, most):
    data, positions = b"id,text,book\n", []
    for i, record in enumerate(given):
        sink = io.StringIO()
        fields = ["one field"] if record.text is None else [f"id{i}", record.text, record.book]
        csv.writer(sink).writerow(fields)
        positions.append(len(data))
        data += sink.getvalue().encode()
    source = source_of(folder, "a.csv", data, **options)
    with pytest.MonkeyPatch.context() as patch:
        small_buffers(patch, chunk, most)
        expected = twin(given, positions, "wrong-columns", options)
        check(source, [PassedOver(0, "header"), *expected], split_bytes)


@ANY_MODE
@settings(max_examples=40)
@given(given=records_of([*TEXTS, *BROKEN], [1, "1", None]), chunk=CHUNKS, most=MOST)
def test_objects_of_a_json_array_are_grouped_as_by_the_twin(folder, options, given, chunk, most):
    data, positions = b"[", []
    for i, record in enumerate(given):
        row = {"id": f"id{i}", "text": record.text, "book": record.book}
        data += b", " if i else b""
        positions.append(len(data))
        data += json.dumps(row if record.text is not None else []).encode()
    source = source_of(folder, "array.json", data + b"]", "json-array", **options)
    with pytest.MonkeyPatch.context() as patch:
        small_buffers(patch, chunk, most)
        check(source, twin(given, positions, "not-an-object", options), 1)


@ANY_MODE
def test_a_document_does_not_cross_the_files_of_an_archive(folder, options):
    texts = ["a", "b", " = T = ", "c", "", "d", " = = S = = "]
    files = {
        f"{i}.jsonl": "".join(json.dumps({"text": text, "book": i}) + "\n" for text in texts).encode() for i in range(2)
    }
    whole = []
    with tarfile.open(folder / "a.tar", "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
            whole += read_documents(Split(source_of(folder, name, data, **options), 0, None))
    [source] = find_sources([str(folder / "a.tar")], None, ReadConfig(**options))
    found = list(read_documents(Split(source, 0, None)))
    assert [replace(item, position=item.position - item.entry.first, entry=None) for item in found] == whole
    for item in found:
        assert list(read_documents(Split(source, 0, None), item.position)) == [
            i for i in found if i.position >= item.position
        ]


FORMS = {"a.parquet": as_parquet, "file.arrow": as_arrow_file, "stream.arrow": as_arrow_stream}


@pytest.mark.parametrize(("name", "mode"), list(product(FORMS, MODES)))
@settings(max_examples=15)
@given(
    given=records_of([*TEXTS, *BROKEN[:-1]], ["1", "2", None]),
    split_bytes=SPLITS,
    rows=st.integers(1, 4),
    chunk=CHUNKS,
    most=MOST,
)
def test_rows_of_tables_are_grouped_as_by_the_twin(folder, name, mode, given, split_bytes, rows, chunk, most):
    columns = {
        "id": [f"id{i}" for i in range(len(given))],
        "text": pa.array([record.text for record in given], pa.string()),
        "book": pa.array([record.book for record in given], pa.string()).dictionary_encode(),
    }
    source = source_of(folder, name, FORMS[name](pa.table(columns), rows), **MODES[mode])
    with pytest.MonkeyPatch.context() as patch:
        small_buffers(patch, chunk, most)
        expected = twin(given, list(range(len(given))), "text-not-a-string", MODES[mode])
        check(source, expected, split_bytes)


def lines_of(folder: Path, text: str, **options: Any) -> list[Record]:
    return list(read_documents(Split(source_of(folder, "b.txt", text.encode(), **options), 0, None)))


def test_a_document_of_lines_ends_at_an_empty_line(folder):
    assert lines_of(folder, "\nOne. Two.\n Three. \n\n \nFour.\n", records="lines") == [
        PassedOver(0, "empty-record", 0, 1),
        Document(b"One. Two.\nThree.", 1, last_record=11),
        PassedOver(1, "empty-record", 1, 2),
        Document(b"Four.", 23, last_record=23),
    ]


def test_a_title_begins_a_document_and_may_be_left_out(folder):
    text = "Before.\n = A = \n\n Text. \n = = B = = \n\n More. \n = C = \n"
    options = {"records": "lines", "document_start": "^ = [^=].* = $", "skip_lines": "^ =.*= $"}
    assert lines_of(folder, text, **options) == [
        Document(b"Before.", 0, last_record=0),
        Document(b"Text.\nMore.", 8, last_record=38),
        PassedOver(8, "empty-record", 1, 2),
        PassedOver(8, "skipped-line", 2, 2),
        PassedOver(46, "skipped-line", 0, 1),
    ]


def test_a_reject_ends_the_document_before_it(folder, monkeypatch):
    monkeypatch.setattr(streamed, "MAX_LINE_BYTES", 10)
    items = lines_of(folder, "One.\n" + "x" * 20 + "\nTwo.\n", records="sentences", records_per_document=5)
    assert [getattr(item, "text", None) for item in items] == [b"One.", "", b"Two."]


def test_an_expression_sees_the_beginning_of_a_record_only(folder):
    text = "a" * 20_000 + "b\nb\n"
    assert [item.position for item in lines_of(folder, text, records="lines", document_start="b")] == [0, 20_002]


def test_records_passed_over_take_no_memory(folder):
    rows = "\n" * 100_000 + "Text.\n" + "#\n" * 10
    assert lines_of(folder, rows, records="lines", skip_lines="#") == [
        PassedOver(0, "empty-record", 0, 100_000),
        Document(b"Text.", 100_000, last_record=100_000),
        PassedOver(100_000, "skipped-line", 1, 10),
    ]


def test_a_document_of_any_number_of_records_takes_little_memory(folder):
    source = source_of(folder, "f.txt", (b"A line. " * 120 + b"\n\n") * 20_000, records="lines", document_start="^ = ")
    tracemalloc.start()
    size = sum(len(item.text) for item in read_documents(Split(source, 0, None)) if isinstance(item, Document))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 19_000_000 and peak < 30_000_000


def test_a_split_within_a_document_does_not_read_to_its_end(folder, monkeypatch):
    source = source_of(folder, "c.txt", b"line\n" * 100_000, records="lines")
    num_read = 0
    begin = streams.read_chunks

    def counted(*args: Any):
        nonlocal num_read
        for chunk in begin(*args):
            num_read += len(chunk)
            yield chunk

    monkeypatch.setattr(streams, "CHUNK", 1000)
    monkeypatch.setattr(streamed, "BORDER_BYTES", 1000)
    monkeypatch.setattr(streamed, "read_chunks", counted)
    first, *rest = split_source(source, 10_000)
    [document] = read_documents(first)
    assert len(document.text) == 499_999 and num_read == 500_000
    num_read = 0
    assert [list(read_documents(split)) for split in rest] == [[]] * 49
    assert num_read < 700_000


def test_a_field_that_names_no_document_is_a_reject(folder):
    rows = [{"text": "a", "book": [1]}, {"text": "b"}, {"text": "c", "book": None}]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    source = source_of(folder, "d.jsonl", data, records="sentences", document_column="book")
    one, two, three = read_documents(Split(source, 0, None))
    assert (one.reason, two.reason, two.detail) == ("document-not-a-value", "no-document-field", "fields: text")
    assert three.text == b"c"


def test_lines_of_text_have_no_document_column(folder):
    source = source_of(folder, "d.txt", b"a", records="sentences", document_column="book")
    with pytest.raises(ValueError, match="whose lines have no columns, so --document-column book cannot be read"):
        split_source(source, 100)


def test_a_table_needs_a_document_column_of_single_values(folder):
    data = as_parquet(pa.table({"text": ["a"], "list": [[1]]}), 1)
    for column, message in [
        ("none", "no column 'none'.*--document-column"),
        ("list", "'list' has the type list.*single"),
    ]:
        source = source_of(folder, "e.parquet", data, records="sentences", document_column=column)
        with pytest.raises(ValueError, match=message):
            split_source(source, 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"records": "sentences"}, "expected either --document-column NAME or --records-per-document N"),
        (
            {"records": "sentences", "document_column": "a", "records_per_document": 2},
            "expected either --document-column NAME or --records-per-document N",
        ),
        ({"document_column": "a"}, "--document-column a: is for --records sentences, but --records is documents"),
        ({"records": "lines", "records_per_document": 2}, "--records-per-document 2: is for --records sentences"),
        ({"skip_lines": "a"}, "--skip-lines a: is for --records lines, but --records is documents"),
        ({"records": "sentences", "records_per_document": 0}, "--records-per-document 0: expected a number from 1"),
        (
            {"records": "lines", "text_layout": "file"},
            "--text-layout file: with --records lines a record of a .txt file",
        ),
        (
            {"records": "lines", "document_start": "("},
            r"--document-start \(: missing \).*Expected a regular expression",
        ),
        ({"records": "lines", "skip_lines": "a{99999999999}"}, "--skip-lines .*the repetition number is too large"),
    ],
)
def test_options_that_do_not_fit_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ReadConfig(**options)


@pytest.mark.parametrize("name", ["wiki.train.raw", "wiki.valid.tokens", "wiki.test.tokens.gz"])
def test_the_files_of_wikitext_are_plain_text(folder, name):
    import gzip

    (folder / name).write_bytes(gzip.compress(b"Text.") if name.endswith("gz") else b"Text.")
    [source] = find_sources([str(folder / name)])
    assert source.format == "txt"


def test_files_in_which_a_record_is_always_a_document_are_named(folder):
    (folder / "mixed").mkdir()
    (folder / "mixed/a.md").write_text("# Text\n")
    (folder / "mixed/b.txt").write_text("Text.\n")
    for options, expected in [
        ({}, []),
        ({"records": "lines"}, ["a.md: --records has no effect, because there a record is always a document"]),
    ]:
        notes: list[str] = []
        find_sources([str(folder / "mixed")], notes, ReadConfig(**options))
        assert notes == expected

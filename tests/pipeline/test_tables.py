"""Parquet and Arrow files: the same documents as JSON Lines, however they are cut, packed, or broken."""

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import tables
from pipeline.inputs.sources import Split
from pipeline.inputs.splitting import split_source
from pipeline.text import records
from pipeline.text.records import Document, Reject
from tests.pipeline.reading import read_with, with_options

TEXTS = st.lists(
    st.none() | st.lists(st.sampled_from(["word ", "中文。", "\n", "\n \n", "\r\n", "\x00"]), max_size=8).map("".join),
    max_size=12,
)


def as_parquet(table: pa.Table, rows: int) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=rows)
    return sink.getvalue()


def as_arrow_file(table: pa.Table, rows: int) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def as_arrow_stream(table: pa.Table, rows: int) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


FORMS = {"a.parquet": as_parquet, "file.arrow": as_arrow_file, "stream.arrow": as_arrow_stream}
ALL_FORMS = pytest.mark.parametrize("name", FORMS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tables")


def source_of(folder: Path, name: str, data: bytes):
    (folder / name).write_bytes(data)
    [source] = find_sources([str(folder / name)])
    return source


def read(folder: Path, name: str, data: bytes, start: int | None = None, **config) -> list[Document | Reject]:
    return read_with(Split(source_of(folder, name, data), 0, None), start, **config)


def essence(items) -> list:
    return [(item.text, item.record_id, getattr(item, "reason", ""), getattr(item, "source_key", 0)) for item in items]


@ALL_FORMS
@settings(max_examples=60)
@given(texts=TEXTS, rows=st.integers(1, 5))
def test_a_table_gives_the_documents_of_the_same_texts_in_json_lines(folder, name, texts, rows):
    ids = [f"d{i}" for i in range(len(texts))]
    table = pa.table({"n": range(len(texts)), "text": pa.array(texts, pa.string()), "id": ids})
    items = read(folder, name, FORMS[name](table, rows))
    lines = "".join(json.dumps({"text": text, "id": f"d{i}"}) + "\n" for i, text in enumerate(texts))
    same = read(folder, "same.jsonl", lines.encode())
    documents = [item for item in items if isinstance(item, Document)]
    assert essence(documents) == essence(item for item in same if isinstance(item, Document))
    assert [(i.position, i.reason, i.record_id) for i in items if isinstance(i, Reject)] == [
        (row, "text-not-a-string" if text is None else "empty-text", f"d{row}")
        for row, text in enumerate(texts)
        if not (text or "").strip(" \t\n\r\v\f")
    ]
    assert [item.record_id for item in items] == [f"d{item.position}" for item in items]


@ALL_FORMS
@settings(max_examples=60)
@given(texts=TEXTS, rows=st.integers(1, 4), split_bytes=st.integers(1, 60), held=st.integers(1, 3))
def test_a_table_cut_at_any_size_gives_the_same_items(folder, name, texts, rows, split_bytes, held):
    source = source_of(folder, name, FORMS[name](pa.table({"text": pa.array(texts, pa.string())}), rows))
    whole = list(read_documents(Split(source, 0, None)))
    splits = split_source(source, split_bytes)
    assert splits[0].start == 0 and [s.end for s in splits[:-1]] == [s.start for s in splits[1:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "BATCH_ROWS", held)
        assert [item for split in splits for item in read_documents(split)] == whole
    for item in whole:
        assert list(read_documents(splits[-1], item.position)) == [i for i in whole if i.position >= item.position]


@ALL_FORMS
def test_a_table_is_cut_at_the_end_of_a_row_group_or_batch(folder, name):
    table = pa.table({"text": ["x" * 1000 + str(i) for i in range(100)], "other": ["y" * 5000] * 100})
    splits = split_source(source_of(folder, name, FORMS[name](table, 10)), 20_000)
    assert [(s.start, s.end) for s in splits] == [(0, 20), (20, 40), (40, 60), (60, 80), (80, None)]
    assert all(split.num_bytes == splits[0].num_bytes > 0 for split in splits)


STRINGS = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()]


@pytest.mark.parametrize("kind", [*STRINGS, pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_every_kind_of_string_column_is_read(folder, kind):
    texts = pa.array(["one", None, "two"])
    texts = texts.dictionary_encode() if pa.types.is_dictionary(kind) else texts.cast(kind)
    items = read(folder, "kind.arrow", as_arrow_file(pa.table({"text": texts}), 2))
    assert [item.text for item in items] == [b"one", "", b"two"]


def test_invalid_bytes_in_a_table_are_replaced_and_counted(folder):
    table = pa.table({"text": pa.array([b"caf\xe9 \xef\xbf\xbd", b"fine"])})
    one, two = read(folder, "bytes.parquet", as_parquet(table, 2))
    assert (one.text.decode(), one.num_replaced, two.num_replaced) == ("caf\ufffd \ufffd", 1, 0)


@ALL_FORMS
def test_the_columns_are_chosen_by_name(folder, name):
    data = FORMS[name](pa.table({"text": ["no"], "content": ["yes"], "url": [7]}), 1)
    [item] = read(folder, name, data, text_column="content", id_column="url")
    assert (item.text, item.record_id) == (b"yes", "7")


@ALL_FORMS
@pytest.mark.parametrize(
    "ids, names",
    [
        (pa.array([1, None], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000001", None]),
        (pa.array([1, None], pa.duration("ns")), ["1", None]),
        (pa.array([b"\xff", b"a"]), ["b'\\xff'", "b'a'"]),
        (pa.array([[1], None]), ["[1]", None]),
        (pa.array([1.0, 1e20]), ["1.0", "1e+20"]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_an_id_of_any_type_is_recorded(folder, name, ids, names):
    data = FORMS[name](pa.table({"text": [" ", None], "id": ids}), 2)
    assert [item.record_id for item in read(folder, name, data)] == names


@ALL_FORMS
def test_a_large_batch_is_read_in_slices(folder, name, monkeypatch):
    texts = [f"{i} " + "x" * 10_000 for i in range(1000)]
    data = FORMS[name](pa.table({"text": texts, "id": ["y" * 10_000] * 1000}), 1000)
    monkeypatch.setattr(tables, "BATCH_BYTES", 100_000)
    source = source_of(folder, name, data)
    tracemalloc.start()
    try:
        assert [item.position for item in read_documents(Split(source, 0, None))] == list(range(1000))
        assert tracemalloc.get_traced_memory()[1] < 2_500_000  # a Parquet file's reader asks for 1 MB
    finally:
        tracemalloc.stop()


@ALL_FORMS
@pytest.mark.parametrize(
    "column, said",
    [
        ("body", "has no column 'body'. Its columns are n, text: choose one with --text-column"),
        ("n", "column 'n' has the type int64. Expected strings: choose another column with --text-column"),
    ],
)
def test_a_table_without_such_a_column_is_an_error_before_the_work_begins(folder, name, column, said):
    source = source_of(folder, name, FORMS[name](pa.table({"n": [1], "text": ["a"]}), 1))
    with pytest.raises(ValueError) as error:
        split_source(with_options(source, text_column=column), 100)
    assert str(error.value) == f"{source.path}: {said}"


@ALL_FORMS
def test_a_long_text_in_a_row_is_cut_into_pieces(folder, name, monkeypatch):
    monkeypatch.setattr(records, "MAX_DOCUMENT_BYTES", 15)
    items = read(folder, name, FORMS[name](pa.table({"text": ["b", "One two.\n\nthree four. five"]}), 1))
    assert [(i.text, i.position, i.piece) for i in items] == [
        (b"b", 0, 0),
        (b"One two.", 1, 0),
        (b"three four.", 1, 1),
        (b"five", 1, 2),
    ]


@ALL_FORMS
def test_a_compressed_table_is_unpacked_to_a_temporary_file(folder, name):
    data = FORMS[name](pa.table({"text": ["one", "two", "three"]}), 2)
    source = source_of(folder, f"{name}.gz", gzip.compress(data))
    assert split_source(source, 1) == [Split(source, 0, None, source.size)]
    assert list(read_documents(Split(source, 0, None))) == read(folder, name, data)
    assert [item.text for item in read_documents(Split(source, 0, None), 2)] == [b"three"]


@ALL_FORMS
def test_a_truncated_table_keeps_what_can_be_read_and_rejects_the_rest(folder, name):
    data = FORMS[name](pa.table({"text": ["x" * 1000 + str(i) for i in range(100)]}), 10)
    for suffix, broken in (("", data[: len(data) * 2 // 3]), (".gz", gzip.compress(data, 0)[: len(data) * 2 // 3])):
        source = source_of(folder, f"cut-{name}{suffix}", broken)
        items = [item for split in split_source(source, 20_000) for item in read_documents(split)]
        assert [item.position for item in items[:-1]] == list(range(len(items) - 1))
        assert len(items) > 40 or "parquet" in name  # whose list of rows is at its end
        assert (items[-1].reason, items[-1].position) == ("damaged-file", len(items) - 1)
        assert items[-1].detail.endswith("what came before it was kept")


def test_an_empty_table_has_no_documents(folder):
    for name, form in FORMS.items():
        assert read(folder, name, form(pa.table({"text": pa.array([], pa.string())}), 1)) == []
    [item] = read(folder, "nothing.parquet", b"")
    assert item.reason == "damaged-file"

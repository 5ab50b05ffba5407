"""Parquet and Arrow files of rows: names of classes, and values and buffers that are not what they should be."""

import json
import struct
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.tasks.formats import tables
from model.tasks.formats.registry import read_records
from model.tasks.rows import read_task
from model.tasks.values import BadRow


def write(path, table):
    """Write a table in the format of the path."""
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write(table)
    return path


@pytest.fixture(params=["x.parquet", "x.arrow"])
def path(request, tmp_path):
    return tmp_path / request.param


NEEDED = {"id", "text", "label", "tags", "other", "when", "n", "tokens"}


def rows_of(path) -> list[dict]:
    return [values for _, values in read_records(path, NEEDED)]


def with_features(table, **features):
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


LABEL = {"names": ["neg", "pos "], "_type": "ClassLabel"}
TAG = {"names": ["O", "B-PER", "I-PER"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    "feature",
    [
        {"feature": TAG, "length": -1, "_type": "Sequence"},
        {"feature": TAG, "_type": "List"},
        [TAG],
    ],
)
def test_numbers_of_classes_become_the_names_that_datasets_has_declared(path, feature):
    table = pa.table({"label": [0, 1, -1, None], "tags": [[0, 1], [], None, [2]], "other": [0, 1, 0, 1]})
    write(path, with_features(table, label=LABEL, tags=feature, other={"dtype": "int64", "_type": "Value"}))
    assert rows_of(path) == [
        {"label": "neg", "tags": ["O", "B-PER"], "other": 0},
        {"label": "pos", "tags": [], "other": 1},
        {"label": None, "tags": None, "other": 0},
        {"label": None, "tags": ["I-PER"], "other": 1},
    ]


def test_a_number_that_no_class_has_is_a_bad_row(path):
    table = pa.table({"text": ["a", "b", "c"], "label": [0, 7, 1]})
    write(path, with_features(table, label=LABEL))
    rows, rejected = read_task(path, [["text", "label"]], lambda place, values: values["label"], {}, "skip")
    assert rows == ["neg", "pos"]
    assert [row.reason for row in rejected] == [
        "label is 7, which is not the number of one of the 2 classes of the column"
    ]


@pytest.mark.parametrize(
    "metadata, message",
    [
        (b"{", "x.*: the schema's entry 'huggingface' is not JSON"),
        (b"[" * 100_000, "x.*: the schema's entry 'huggingface' is not JSON .it is nested"),
        (
            b'{"info": {"features": {"label": {"names": 3, "_type": "ClassLabel"}}}}',
            "the names of the classes of 'label'",
        ),
    ],
)
def test_declarations_that_cannot_be_read_are_refused(path, metadata, message):
    write(path, pa.table({"text": ["a"], "label": [0]}).replace_schema_metadata({"huggingface": metadata}))
    with pytest.raises(ValueError, match=message):
        rows_of(path)


@pytest.mark.parametrize(
    "metadata", [b"{}", b'{"info": null}', b'{"info": {"features": [1]}}', b'{"info": {"features": {"label": 3}}}']
)
def test_metadata_without_classes_changes_nothing(path, metadata):
    write(path, pa.table({"label": [0]}).replace_schema_metadata({"huggingface": metadata}))
    assert rows_of(path) == [{"label": 0}]


@pytest.mark.parametrize(
    "values, reason",
    [
        (pa.array([2**50, 1], pa.timestamp("ms")), "cannot be read (OverflowError: date value out of range)"),
        (pa.array([2**31 - 1, 1], pa.date32()), "cannot be read (OverflowError: "),
        (
            pa.array([1, None], pa.timestamp("us", "Nowhere/Land")),
            "cannot be read (UnknownTimeZoneError: 'Nowhere/Land')",
        ),
    ],
)
def test_a_value_that_python_cannot_hold_makes_its_row_bad_only_if_it_is_needed(path, values, reason):
    write(path, pa.table({"text": ["a", "b"], "when": values}))
    first, second = rows_of(path)
    assert isinstance(first["when"], BadRow) and str(first["when"]).startswith(reason)
    assert second["when"] in (None, date(1970, 1, 2)) or second["when"].year == 1970
    assert len(read_task(path, [["text"]], lambda place, values: values, {}, "stop")[0]) == 2

    write(path, pa.table({"text": ["a", "b"], "id": values}))
    rows, rejected = read_task(path, [["text"]], lambda place, values: values, {}, "skip")
    assert len(rows) == 1 and [(row.place, row.reason[:18]) for row in rejected] == [("row 1", "id cannot be read ")]


def test_a_string_that_is_not_utf8_makes_its_row_bad(path):
    offsets = pa.array([0, 1, 2], pa.int32()).buffers()[1]
    texts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"\xffa")])
    write(path, pa.table({"text": texts, "n": [1, 2]}))
    first, second = rows_of(path)
    assert str(first["text"]) == "is not valid UTF-8" and second == {"text": "a", "n": 2}


def test_two_columns_of_one_name_are_refused(path):
    write(path, pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]))
    with pytest.raises(ValueError, match="has a column twice: text, text; rename one of them"):
        rows_of(path)


def test_offsets_and_indices_outside_of_their_buffers_are_refused_and_no_crash(tmp_path):
    path = tmp_path / "x.arrow"
    write(path, pa.table({"text": ["abc", "defg"]}))
    content = path.read_bytes()
    assert content.count(struct.pack("<3i", 0, 3, 7)) == 1
    path.write_bytes(content.replace(struct.pack("<3i", 0, 3, 7), struct.pack("<3i", 0, 2**30, 7)))
    with pytest.raises(ValueError, match="x.arrow is not an Arrow file, or is damaged: .*offset"):
        rows_of(path)
    indices = pa.array([0, 99], pa.int32())
    texts = pa.DictionaryArray.from_arrays(indices, pa.array(["a", "b"]), safe=False)
    write(path, pa.Table.from_arrays([texts], ["text"]))
    with pytest.raises(ValueError, match="x.arrow is not an Arrow file, or is damaged: .*99"):
        rows_of(path)


def test_a_small_file_cannot_claim_any_number_of_rows(tmp_path):
    path = tmp_path / "x.arrow"
    write(path, pa.Table.from_arrays([pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])], ["text"]))
    with pytest.raises(ValueError, match="x.arrow claims to hold 2,147,483,647 rows, too many for its size"):
        rows_of(path)


def write_compressed(path, table):
    if path.suffix == ".parquet":
        pq.write_table(table, path, compression="zstd")
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema, options=options) as stream:
            stream.write(table)


def test_a_small_file_cannot_hold_one_long_text_in_every_row(path, monkeypatch):
    monkeypatch.setattr(tables, "MIN_BYTES", 1 << 24)
    indices = pa.array([0] * 900, pa.int32())
    write_compressed(path, pa.table({"text": pa.DictionaryArray.from_arrays(indices, pa.array(["a" * 2_000_000]))}))
    with pytest.raises(ValueError, match="claims to hold 1,800,0.* bytes, too many for its size"):
        rows_of(path)


def test_views_and_lists_cannot_claim_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MIN_BYTES", 1 << 24)
    path, text = tmp_path / "x.arrow", "a" * 2_000_000
    view = pa.array([text], pa.string_view()).buffers()[1].to_pybytes()[:16]
    views = pa.Array.from_buffers(pa.string_view(), 900, [None, pa.py_buffer(view * 900), pa.py_buffer(text.encode())])
    write_compressed(path, pa.table({"text": views}))
    with pytest.raises(ValueError, match="claims to hold 1,800,0.* bytes, too many for its size"):
        rows_of(path)
    nulls = pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])
    write_compressed(path, pa.table({"tokens": pa.ListArray.from_arrays(pa.array([0, 2**31 - 1], pa.int32()), nulls)}))
    with pytest.raises(ValueError, match="claims to hold 2,147,483,647 values in lists, too many for its size"):
        rows_of(path)


def test_long_texts_are_made_a_few_rows_at_a_time(path, monkeypatch):
    table = pa.table({"text": [f"{i}" * 100 for i in range(50)], "tags": [["a", None], None] * 25})
    write(path, table)
    expected = rows_of(path)
    monkeypatch.setattr(tables, "BYTES_AT_ONCE", 1000)
    assert rows_of(path) == expected == table.to_pylist()


def test_columns_that_are_not_needed_are_not_read(path):
    write(path, pa.table({"image": [b"x", b"y"], "text": ["a", "b"]}))
    assert list(read_records(path, ["text"])) == [
        ("row 1", {"image": None, "text": "a"}),
        ("row 2", {"image": None, "text": "b"}),
    ]
    with pytest.raises(
        ValueError, match="has no column for label: expected label or score, its columns are image, text"
    ):
        read_task(path, [["label"]], lambda place, values: values, {}, "stop")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.DictionaryArray.from_arrays(pa.array([0]), pa.array([["a"]])),
        pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["a"])),
    ],
)
def test_columns_of_other_types_are_refused(tmp_path, column):
    write(tmp_path / "x.arrow", pa.table({"text": column}))
    with pytest.raises(ValueError, match="x.arrow holds .*: expected single values, and lists or structs of them"):
        rows_of(tmp_path / "x.arrow")


def test_values_of_every_other_type_are_those_of_pyarrow(path):
    columns = {
        "text": pa.array(["a", None, "北京"]).dictionary_encode(),
        "label": pa.array([1.5, None, 2.0]),
        "n": pa.array([True, None, False]),
        "tags": pa.array([[["a"], []], None, [None]]),
        "other": pa.array([{"text": ["x"], "answer_start": [1]}, None, {"text": [], "answer_start": None}]),
        "when": pa.array([b"ab", b"cd", None], pa.binary(2)),
        "tokens": pa.array([["a", "b"], ["c", None], ["d", "e"]], pa.list_(pa.string(), 2)),
    }
    write(path, pa.table(columns | {"id": pa.nulls(3)}))
    assert [row.pop("id") for row in rows_of(path)] == [None] * 3
    write(path, pa.table(columns))
    assert rows_of(path) == pa.table(columns).to_pylist()

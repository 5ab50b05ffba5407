"""Parquet and Arrow files of rows: names of classes, and values and buffers that are not what they should be."""

import json
import struct
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.tasks.records import read_records
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


def rows_of(path) -> list[dict]:
    return [values for _, values in read_records(path)]


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
    with pytest.raises(ValueError, match="x.arrow claims to have more than .* rows"):
        rows_of(path)

"""Parquet and Arrow files that are damaged, or made to break readers: each becomes a reject, or one line of error."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertloom import decoding
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import tables
from pipeline.inputs.formats.parquet_footer import RowGroup, read_row_groups
from pipeline.inputs.sources import Source, Split
from pipeline.inputs.splitting import split_source
from pipeline.text.records import Document, Record
from tests.pipeline.reading import with_options

TEXTS = ["first text", "second text of them", "third", "fourth and last"]


def as_arrow(table: pa.Table, rows: int = 2) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def as_parquet(table: pa.Table, rows: int = 2, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=rows, **options)
    return sink.getvalue()


FORMS = {"table.arrow": as_arrow, "table.parquet": as_parquet}
ALL_FORMS = pytest.mark.parametrize("name", FORMS)


def source_of(folder: Path, name: str, data: bytes) -> Source:
    (folder / name).write_bytes(data)
    [source] = find_sources([str(folder / name)])
    return source


def read(folder: Path, name: str, data: bytes, **config: object) -> list[Record]:
    source = source_of(folder, name, data)
    return [item for split in split_source(with_options(source, **config), 1) for item in read_documents(split)]


def texts(items: list[Record]) -> list[str]:
    return [item.text.decode() if isinstance(item, Document) else item.reason for item in items]


def int32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little", signed=True) for value in values)


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data and len(old) == len(new)
    return data.replace(old, new)


def views() -> pa.Table:
    return pa.table(
        {"text": pa.array(["a text of more than twelve bytes", "and one more of them", "x", "y"], pa.string_view())}
    )


DICTIONARY = pa.array([0, 1, 0, 1], pa.int32()), ["one text", "another text"]
DAMAGE = {
    "an offset beyond the texts": ({}, int32(0, 10, 29), int32(0, 10, 1 << 30)),
    "offsets that go backwards": ({}, int32(0, 10, 29), int32(0, 29, 10)),
    "a negative offset": ({}, int32(0, 10, 29), int32(-(1 << 30), 10, 29)),
    "an index beyond the dictionary": ({"text": DICTIONARY}, int32(0, 1, 0, 1), int32(0, 1 << 28, 0, 1)),
    "a negative index": ({"text": DICTIONARY}, int32(0, 1, 0, 1), int32(0, -1, 0, 1)),
    "a dictionary with offsets beyond its values": ({"text": DICTIONARY}, int32(0, 8, 20), int32(0, 8, 1 << 30)),
    "a view beyond its buffer": ({"text": views()["text"]}, b"a te" + int32(0, 0), b"a te" + int32(0, 1 << 29)),
    "a view of another buffer": ({"text": views()["text"]}, b"a te" + int32(0, 0), b"a te" + int32(7, 0)),
    "an id with an offset beyond the ids": (
        {"id": ["id of one", "b", "c", "d"]},
        int32(0, 9, 10),
        int32(0, 9, 1 << 30),
    ),
    "an id that is not UTF-8": ({"id": ["id of one", "b", "c", "d"]}, b"id of one", b"id of \xff\xfe\xfd"),
    "a list of ids with an offset beyond the ids": (
        {"id": [[1, 2, 3], [4], [], []]},
        int32(0, 3, 4),
        int32(0, 3, 1 << 30),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("compression", ["", ".gz"])
def test_a_batch_with_numbers_outside_its_buffers_is_a_reject_and_the_others_are_kept(tmp_path, damage, compression):
    import gzip

    columns, old, new = DAMAGE[damage]
    columns = {"text": TEXTS} | columns
    if isinstance(columns["text"], tuple):
        indices, values = columns["text"]
        columns["text"] = pa.DictionaryArray.from_arrays(indices, pa.array(values))
        rows = 4  # a file has one dictionary for all its batches
    else:
        rows = 2
    data = replaced(as_arrow(pa.table(columns), rows), old, new)
    items = read(tmp_path, f"a.arrow{compression}", gzip.compress(data) if compression else data)
    assert texts(items)[0] == "damaged-file" and items[0].position == 0
    assert f"rows 0 to {rows - 1} are left out" in items[0].detail
    assert texts(items)[1:] == (pa.array(columns["text"]).to_pylist()[rows:])


def test_a_buffer_that_claims_a_huge_size_is_a_reject_and_what_came_before_it_is_kept(tmp_path):
    sink = io.BytesIO()
    table = pa.table({"text": ["a" * 300, "b" * 300, "c" * 301, "d" * 302]})
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table, max_chunksize=2)
    data = replaced(sink.getvalue(), (603).to_bytes(8, "little"), (1 << 61).to_bytes(8, "little"))
    items = read(tmp_path, "a.arrow", data)
    assert texts(items) == ["a" * 300, "b" * 300, "damaged-file"] and items[-1].position == 2
    assert items[-1].detail.endswith("what came before it was kept")


def test_invalid_utf8_in_a_string_column_is_replaced_and_counted(tmp_path):
    for name, form in FORMS.items():
        data = replaced(form(pa.table({"text": TEXTS})), b"second", b"\xffecond")
        if name == "table.parquet":
            data = replaced(as_parquet(pa.table({"text": TEXTS}), compression="none"), b"second", b"\xffecond")
        items = read(tmp_path, name, data)
        assert texts(items) == ["first text", "\ufffdecond text of them", "third", "fourth and last"]
        assert [item.num_replaced for item in items] == [0, 1, 0, 0]


def damaged_statistics(rows: int) -> bytes:
    """A Parquet file whose first row group has a histogram of the wrong size, at which `RowGroupMetaData.column` aborts."""
    data = as_parquet(pa.table({"text": TEXTS}), rows)
    at = data.index(b"\x19\x06\x19\x26\x00\x04", len(data) // 2)  # no repetition levels; 0 nulls and 2 values
    return data[:at] + b"\x19\x26\x00\x04\x19\x06" + data[at + 6 :]  # the other way round


def test_a_row_group_with_false_statistics_is_a_reject_and_the_others_are_kept(tmp_path):
    items = read(tmp_path, "a.parquet", damaged_statistics(2))
    assert texts(items) == ["damaged-file", "third", "fourth and last"]
    assert items[0].position == 0 and "row group 0" in items[0].detail and "rows 0 to 1 are left out" in items[0].detail


def test_the_rows_of_a_damaged_row_group_do_not_depend_on_how_the_file_is_cut(tmp_path):
    source = source_of(tmp_path, "a.parquet", damaged_statistics(2))
    whole = list(read_documents(Split(source, 0, None)))
    assert len(split_source(source, 1)) == 2
    assert [item for split in split_source(source, 1) for item in read_documents(split)] == whole


@pytest.mark.parametrize("columns", [1, 20])
def test_the_sizes_of_row_groups_equal_those_that_arrow_reads(columns):
    table = pa.table({f"c{i}": range(100) for i in range(columns)} | {"text": [f"{i} " * i for i in range(100)]})
    data = io.BytesIO(as_parquet(table, 30))
    metadata, groups = pq.ParquetFile(data).metadata, []
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        groups.append(RowGroup(group.num_rows, group.column(columns).total_uncompressed_size))
    assert read_row_groups(data, "text") == groups and len(groups) == 4


@pytest.mark.parametrize(
    "footer",
    [
        b"",
        b"\x19",
        b"\x49\xfc\xff\xff\xff\x7f",
        b"\x4c" + b"\x1c" * 100_000,
        b"\x4b\xff\xff\xff\x7f\x66",
        b"\x46" + b"\xff" * 30,
    ],
)
def test_a_damaged_footer_is_an_error_in_a_short_time(footer):
    data = b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    with pytest.raises(OSError, match="its footer cannot be read"):
        read_row_groups(io.BytesIO(data), "text")
    with pytest.raises(OSError, match="does not end with a Parquet footer"):
        read_row_groups(io.BytesIO(data[:-1]), "text")


@ALL_FORMS
def test_two_columns_of_the_chosen_name_are_an_error_that_names_file_and_column(tmp_path, name):
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], names=["text", "id", "text"])
    with pytest.raises(ValueError) as error:
        read(tmp_path, name, FORMS[name](twice))
    assert str(error.value) == (
        f"{tmp_path / name}: has 2 columns with the name 'text'. Expected one: rename the others, or choose another column "
        f"with --text-column"
    )
    with pytest.raises(ValueError, match="has 2 columns with the name 'text'.*--id-column"):
        read(tmp_path, name, FORMS[name](twice), text_column="id", id_column="text")
    assert texts(read(tmp_path, name, FORMS[name](twice), text_column="id")) == ["b"]


ODD_IDS = {
    "a date beyond the year 9999": (pa.array([2**31 - 1, None], pa.date32()), "<value out of range: 2147483647>"),
    "a time beyond all years": (pa.array([10**18, None], pa.timestamp("ms")), f"<value out of range: {10**18}>"),
    "an unknown time zone": (pa.array([1, None], pa.timestamp("ms", "Mars/Olympus")), "1970-01-01 00:00:00.001"),
    "an impossible offset": (pa.array([1, None], pa.timestamp("ms", "+99:99")), "1970-01-01 00:00:00.001"),
    "dates in a list": (pa.array([[2**31 - 1], None], pa.list_(pa.date32())), "a value of list<item: date32[day]>"),
    "a long list": (pa.array([[1] * 5000, None]), str([1] * 100)),
    "a long id": (pa.array(["x" * 5000, None]), "x" * 1000),
    "a huge decimal": (pa.array([10**70, None], pa.decimal256(76, 0)), f"{10**70}"),
    "a struct": (pa.array([{"a": 1}, None]), "{'a': 1}"),
    "a uuid": (pa.array([b"0" * 16, None], pa.uuid()), "30303030-3030-3030-3030-303030303030"),
}


@ALL_FORMS
@pytest.mark.parametrize("odd", ODD_IDS)
def test_an_id_that_python_cannot_hold_is_shown_in_another_way(tmp_path, name, odd):
    ids, shown = ODD_IDS[odd]
    if name == "table.parquet" and pa.types.is_list(ids.type):
        shown = shown.replace("item:", "element:")
    items = read(tmp_path, name, FORMS[name](pa.table({"text": ["a", "b"], "id": ids})))
    assert [item.record_id for item in items] == [shown, None]


def test_ids_that_are_lists_of_lists_are_an_error_that_says_what_to_do(tmp_path):
    data = as_arrow(pa.table({"text": ["a"], "id": pa.array([[[1]]])}))
    with pytest.raises(ValueError, match="column 'id' has the type list<.*Expected single values.*--id-column"):
        read(tmp_path, "a.arrow", data)
    assert texts(read(tmp_path, "a.arrow", data, id_column="none")) == ["a"]


def test_a_text_that_a_dictionary_repeats_is_held_a_few_times_only(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BATCH_BYTES", 1000)
    held: list[int] = []
    monkeypatch.setattr(tables, "_read_rows", lambda batch, columns, begin, end, first: held.append(end - begin) or [])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 50, pa.int8()), pa.array(["x" * 400]))
    read(tmp_path, "a.arrow", as_arrow(pa.table({"text": repeated}), 50))
    read(tmp_path, "b.arrow", as_arrow(pa.table({"text": pa.array(["x" * 400] * 50, pa.string_view())}), 50))
    assert held == [2] * 50


@pytest.mark.skipif(not decoding.STATM.exists(), reason="only Linux bounds the memory of decoding")
def test_a_small_file_whose_dictionary_repeats_a_large_text_is_a_reject(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_BYTES", 1 << 26)
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array(["a b. " * 200_000]))
    data = as_parquet(pa.table({"text": repeated}), 4000, compression="zstd", store_schema=False)
    assert len(data) < 1000
    [reject] = read(tmp_path, "table.parquet", data)
    assert reject.reason == "damaged-file"
    assert reject.detail.startswith("row group 0: it takes more than 67,108,864 bytes of memory at once")
    assert reject.detail.endswith("rows 0 to 3999 are left out")


def test_a_number_of_rows_that_the_file_cannot_hold_is_a_reject(tmp_path):
    data = as_arrow(pa.table({"text": pa.nulls(3_000_000)}), 3_000_000)
    [item] = read(tmp_path, "a.arrow", data)
    assert (item.reason, item.position) == ("damaged-file", 0) and "3000000 rows are more than a file of" in item.detail


def test_a_row_group_with_fewer_rows_than_its_footer_lists_is_a_reject(tmp_path):
    data = as_parquet(pa.table({"text": TEXTS}), 4)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    at = data.rindex(b"\x16\x08", footer)  # the row group's number of rows, 4, comes after that of its column
    items = read(tmp_path, "a.parquet", data[:at] + b"\x16\x0c" + data[at + 2 :])
    assert texts(items)[-1] == "damaged-file"

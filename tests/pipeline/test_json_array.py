"""A JSON array gives the records that JSON Lines of the same objects give, and their positions are exact."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import json_array
from pipeline.inputs.formats.json_array import read_array
from pipeline.inputs.formats.json_lines import read_json_lines
from pipeline.inputs.sources import ReadConfig, Split
from pipeline.inputs.splitting import split_source
from pipeline.text.records import Document, Reject, Row

CHARACTERS = st.text('ab"\\{}[],: \né中\ud800', max_size=6)
VALUES = st.recursive(
    CHARACTERS | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CHARACTERS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from(["text", "id", "more"]), CHARACTERS | VALUES, max_size=3)
CHUNK = st.sampled_from([1, 2, 3, 7, 1 << 20])


def records(data: bytes, chunk: int = 1 << 20, start: int = 0) -> list[Row | Reject]:
    chunks = [data[i : i + chunk] for i in range(start, len(data), chunk)]
    return list(read_array(chunks, start, ReadConfig(), is_begun=start > 0))


def without_places(items: list[Row | Reject]) -> list[tuple[object, ...]]:
    return [
        (item.text, item.record_id, item.num_replaced) if isinstance(item, Row) else (item.reason, item.record_id)
        for item in items
    ]


@settings(max_examples=200)
@given(st.lists(OBJECTS | VALUES, max_size=5), CHUNK, st.sampled_from([None, 0, 1]), st.booleans())
def test_an_array_gives_the_records_of_the_same_json_lines(objects, chunk, indent, spaced):
    space = " \r\n\t" * spaced
    text = space + json.dumps(objects, indent=indent) + space
    found = records(text.encode(), chunk)
    lines = "".join(json.dumps(one) + "\n" for one in objects).encode()
    assert without_places(found) == without_places(list(read_json_lines([lines], 0, "text", "id")))
    for item, one in zip(found, objects, strict=True):
        assert json.JSONDecoder().raw_decode(text[item.position :])[0] == one
    for i, item in enumerate(found):
        assert records(text.encode(), 5, item.position) == found[i:]


@settings(max_examples=200)
@given(
    st.lists(OBJECTS, max_size=4),
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from(b'{}[],"\\ a')), max_size=3),
    st.integers(0, 200),
    CHUNK,
)
def test_a_broken_array_gives_the_same_records_however_it_arrives(objects, changes, cut, chunk):
    data = bytearray(json.dumps(objects).encode())
    for place, byte in changes:
        data[place % len(data)] = byte
    data = bytes(data[: max(1, len(data) - cut)])
    found = records(data)
    assert records(data, chunk) == found
    for i, item in enumerate(found):
        if item.position:
            assert records(data, chunk, item.position) == found[i:]


def test_a_cut_array_keeps_what_came_before():
    data = json.dumps([{"text": f"text {i}"} for i in range(5)]).encode()
    for end in range(1, len(data)):
        *rows, last = records(data[:end])
        assert [row.text for row in rows] == [f"text {i}" for i in range(len(rows))]
        assert (
            isinstance(last, Reject)
            and last.reason == "damaged-file"
            and "the file ends before its array" in last.detail
        )
        assert len(rows) == data[:end].count(b"},")


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"[]", []),
        (b'[{"text": "a"},]', ["a"]),
        (b'[{"text": "a"} x, {"text": "b"}]', [(1, "not-json"), "b"]),
        (b'[{"text": "a"} {"text": "b"}, {"text": "c"}]', [(1, "not-json"), "c"]),
        (b'[,{"text": "b"}]', [(1, "not-json"), "b"]),
        (b'[1, {"text": "b"}, null]', [(1, "not-an-object"), "b", (19, "not-an-object")]),
        (b'[{"text": "a"}] tail', ["a", (14, "not-json")]),
        (b'[{"text": "a"}][{"text": "b"}]', ["a", (14, "not-json")]),
        (b'{"text": "a"}', [(0, "not-json")]),
        (b'[{"text": "a"]}, {"text": "b"}]', [(1, "not-json"), "b"]),
        (b'[{"text": "a}, {"text": "b"}]', [(1, "damaged-file")]),
        (b'[{"text": 1}, {"id": 7}]', [(1, "text-not-a-string"), (14, "no-text-field")]),
        (b"  ", []),
    ],
)
def test_what_is_not_an_object_is_a_reject_and_reading_goes_on_after_the_comma(data, expected):
    found = [row.text if isinstance(row, Row) else (row.position, row.reason) for row in records(data)]
    assert found == expected


@settings(max_examples=150)
@given(st.lists(st.integers(0, 40), max_size=8), CHUNK)
def test_an_element_over_the_limit_is_a_reject_and_the_next_ones_are_read(sizes, chunk):
    objects = [{"text": "x" * size} for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "MAX_LINE_BYTES", 30)
        found = records(json.dumps(objects).encode(), chunk)
    shown = [row.text if isinstance(row, Row) else (row.reason, row.detail) for row in found]
    assert shown == ["x" * size if size <= 18 else ("record-too-long", f"{size + 12} bytes, over 30") for size in sizes]


def test_a_file_with_an_array_is_one_split_and_its_encoding_is_found(tmp_path: Path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_text(json.dumps([{"text": f"Text {i}."} for i in range(9)]), encoding)
        [source] = find_sources([str(tmp_path)])
        [split] = split_source(source, 20)
        items = list(read_documents(split))
        assert source.format == "json-array"
        assert [item.text.decode() for item in items if isinstance(item, Document)] == [f"Text {i}." for i in range(9)]
        assert list(read_documents(split, items[4].position)) == items[4:]


def test_a_file_that_is_read_as_an_array_and_is_none_is_one_reject(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    [source] = find_sources([str(tmp_path)], config=ReadConfig(format="json-array"))
    [item] = read_documents(Split(source, 0, None))
    assert isinstance(item, Reject) and item.detail.startswith(
        "expected an array of objects, which begins with [: the 28"
    )

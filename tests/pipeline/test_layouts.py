"""Plain text in its other two layouts: a document in each line, or one in each file."""

import json
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.inputs import streams
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import plain_text, streamed
from pipeline.inputs.sources import Split
from pipeline.inputs.splitting import split_source
from pipeline.inputs.text_encodings import find_encoding
from pipeline.text import line_breaks, records
from pipeline.text.records import Document, Reject
from tests.pipeline import twins
from tests.pipeline.reading import read_with, with_options

BITS = ["a", "word", "b. ", "中文。", "é", " ", "\t", "\u3000", "\x00", "\n", "\r\n", "\r"]
TEXT = st.lists(st.sampled_from([*BITS, "\n\n", "\n \n", "\r\n\r\n"]), max_size=40).map("".join)
BOM = "\ufeff"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("layouts")


def source_of(folder: Path, name: str, text: str):
    (folder / name).write_bytes(text.encode())
    [source] = find_sources([str(folder / name)])
    return source


def read(folder: Path, text: str, layout: str, start: int | None = None, **options) -> list[Document | Reject]:
    split = Split(source_of(folder, "a.txt", text), 0, None)
    return read_with(split, start, text_layout=layout, **options)


def essence(items) -> list:
    return [(item.text, item.position, item.piece, getattr(item, "reason", "")) for item in items]


def test_the_layout_line_has_a_document_in_each_line(folder):
    items = read(folder, BOM + "One. Two.\nThree.\r\n\n  Four.  ", "line")
    assert essence(items) == [
        (b"One. Two.", 3, 0, ""),
        (b"Three.", 13, 0, ""),
        ("", 21, 0, "blank-line"),
        (b"Four.", 22, 0, ""),
    ]


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize("blank", [*twins.BLANK, twins.BLANK, "\u3000\r", "\u2003\n\u2003"], ids=ascii)
def test_a_line_of_any_white_space_is_blank(folder, monkeypatch, blank, chunk):
    monkeypatch.setattr(streams, "CHUNK", chunk)
    text = f"{blank}\nOne.\nTwo.\n{blank}\nThree.\nFour.\n{blank}"
    assert [item.text for item in read(folder, text, "blank-line")] == [b"One.\nTwo.", b"Three.\nFour."]
    items = read(folder, text, "line")
    assert [item.text for item in items if isinstance(item, Document)] == [b"One.", b"Two.", b"Three.", b"Four."]
    assert {item.reason for item in items if isinstance(item, Reject)} == {"blank-line"}


def test_the_layout_file_has_one_document_in_each_file(folder):
    text = BOM + "\n  \nA hard-wrapped\nparagraph.\n\n\n  \nAnother\r\none.\n\n"
    [document] = read(folder, text, "file", line_breaks="space")
    assert essence([document]) == [(b"A hard-wrapped paragraph.\nAnother one.", 7, 0, "")]
    assert essence(read(folder, " \n\n", "file")) == [("", 0, 0, "empty-text")]


@settings(max_examples=100)
@given(text=TEXT, split_bytes=st.integers(1, 30), chunk=st.sampled_from([1, 3, 1 << 20]))
def test_a_file_of_lines_cut_at_any_size_gives_the_same_items(folder, text, split_bytes, chunk):
    assume(find_encoding(text.encode()) is None)
    source = with_options(source_of(folder, "lines.txt", text), text_layout="line")
    whole = list(read_documents(Split(source, 0, None)))
    assert len(whole) == len(text.removesuffix("\n").split("\n")) - (text == "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        patch.setattr(streamed, "BORDER_BYTES", chunk)
        splits = split_source(source, split_bytes)
        assert [item for split in splits for item in read_documents(split)] == whole


@settings(max_examples=100)
@given(text=TEXT, chunk=st.sampled_from([1, 3, 7, 1 << 20]))
def test_a_file_as_one_document_has_the_same_text_as_in_json(folder, text, chunk):
    assume(find_encoding(text.encode()) is None)  # of many NULs it would be UTF-16
    source = with_options(source_of(folder, "file.txt", text), text_layout="file")
    assert split_source(source, 1)[0].end is None
    with pytest.MonkeyPatch.context() as patch:
        for module in (streams, plain_text):
            patch.setattr(module, "CHUNK", chunk)
        patch.setattr(plain_text, "MAX_DOCUMENT_BYTES", 10)  # held at a time
        items = list(read_documents(Split(source, 0, None)))
    same = source_of(folder, "same.jsonl", json.dumps({"text": text}))
    expected = list(read_documents(Split(same, 0, None)))
    assert len(items) == 1
    assert [i.text for i in items if isinstance(i, Document)] == [i.text for i in expected if isinstance(i, Document)]


def test_paragraphs_of_a_file_are_joined_only_when_they_fill_a_piece():
    """Joining each would copy all before it: twenty times the work for a file of 130,000 paragraphs."""
    pieces = records.Pieces(0)
    for _ in range(1000):
        assert list(pieces.add(b"A line of verse\n", 0, last=False)) == []
    assert len(pieces.held) == 1000
    [document] = pieces.add(b"", 0, last=True)
    assert document.text == b"\n".join([b"A line of verse"] * 1000)


@settings(max_examples=100)
@given(text=TEXT, most=st.sampled_from([12, 20]), chunk=st.sampled_from([3, 5]))
def test_a_long_file_is_cut_into_the_same_pieces_however_it_streams(folder, text, most, chunk):
    split = Split(with_options(source_of(folder, "long.txt", text), text_layout="file"), 0, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MAX_DOCUMENT_BYTES", most)
        patch.setattr(line_breaks, "SAMPLE_BYTES", most)
        whole = list(read_documents(split))
        patch.setattr(plain_text, "MAX_DOCUMENT_BYTES", most)
        for module in (streams, plain_text):
            patch.setattr(module, "CHUNK", chunk)
        assert list(read_documents(split)) == whole
        for item in whole:
            if isinstance(item, Document):
                assert list(read_documents(split, item.position)) == whole
    assert all(len(item.text) <= most for item in whole if isinstance(item, Document))

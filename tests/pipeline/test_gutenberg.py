"""The licence of Project Gutenberg: marks of all times, texts without them, and long books read as a stream."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import ReadConfig
from pipeline.inputs.splitting import split_source
from pipeline.text import gutenberg
from pipeline.text.gutenberg import Licence
from pipeline.text.records import Document, Record

HEAD_2024 = """\ufeffThe Project Gutenberg eBook of Frankenstein; Or, The Modern Prometheus

This ebook is for the use of anyone anywhere in the United States and
most other parts of the world at no cost.

Title: Frankenstein; Or, The Modern Prometheus
Author: Mary Wollstonecraft Shelley
Language: English

*** START OF THE PROJECT GUTENBERG EBOOK FRANKENSTEIN; OR, THE MODERN
PROMETHEUS ***
"""
TAIL_2024 = """
*** END OF THE PROJECT GUTENBERG EBOOK FRANKENSTEIN; OR, THE MODERN PROMETHEUS ***

Updated editions will replace the previous one.
START: FULL LICENSE
"""
HEAD_2008 = """The Project Gutenberg EBook of Pride and Prejudice, by Jane Austen

*** START OF THIS PROJECT GUTENBERG EBOOK PRIDE AND PREJUDICE ***
"""
TAIL_2008 = """
End of the Project Gutenberg EBook of Pride and Prejudice, by Jane Austen

*** END OF THIS PROJECT GUTENBERG EBOOK PRIDE AND PREJUDICE ***

***** This file should be named 1342.txt or 1342.zip *****
*** START: FULL LICENSE ***
"""
HEAD_1994 = """*****The Project Gutenberg Etext of A Christmas Carol, by Dickens*****

***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***
Why is this "Small Print!" statement here?
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*
"""
TAIL_1994 = """
End of The Project Gutenberg Etext of A Christmas Carol
"""
HEAD_2003 = """***START OF THE PROJECT GUTENBERG EBOOK WALDEN***
E-text prepared by no one.

*END THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.02/11/02*END*
"""
TAIL_2003 = "\n***END OF THE PROJECT GUTENBERG EBOOK WALDEN***\nMore.\n"
BOOKS = [(HEAD_2024, TAIL_2024), (HEAD_2008, TAIL_2008), (HEAD_1994, TAIL_1994), (HEAD_2003, TAIL_2003)]
TEXT = """CHAPTER I.

You will rejoice to hear that no disaster
has accompanied the commencement of an enterprise.

At the end of Project Gutenberg's hall was a *** star, and it was the
END OF THE PROJECT, he said.
"""


def read(folder: Path, name: str, data: bytes, **options: object) -> list[Record]:
    (folder / name).write_bytes(data)
    config = ReadConfig(strip_gutenberg=True, text_layout="file", **options)  # type: ignore[arg-type]
    [source] = find_sources([str(folder / name)], None, config)
    return [record for split in split_source(source, 1000) for record in read_documents(split)]


def plain(folder: Path, text: str) -> bytes:
    """The same text without the flag."""
    (folder / "plain.txt").write_text(text, encoding="utf-8")
    [source] = find_sources([str(folder / "plain.txt")], None, ReadConfig(text_layout="file"))
    [document] = read_documents(split_source(source, 1000)[0])
    assert isinstance(document, Document)
    return document.text


@pytest.mark.parametrize(("head", "tail"), BOOKS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_book_is_the_text_between_the_marks_in_files_and_in_records(tmp_path, head, tail, line_end):
    whole = (head + "\n" + TEXT + tail).replace("\n", line_end)
    in_file = read(tmp_path, "a.txt", whole.encode())
    in_record = read(tmp_path, "a.jsonl", json.dumps({"text": whole}).encode())
    for [document] in (in_file, in_record):
        assert isinstance(document, Document) and document.text == plain(tmp_path, TEXT)
        assert document.cleaned == ("strip-gutenberg",)
    [again] = read_documents(
        split_source(
            *[find_sources([str(tmp_path / "a.txt")], None, ReadConfig(strip_gutenberg=True, text_layout="file"))[0]],
            1000,
        )[0],
        in_file[0].position,
    )
    assert again == in_file[0]  # as `explain` reads it


@pytest.mark.parametrize(("head", "tail"), [(HEAD_2008, ""), ("", TAIL_2008), ("", TAIL_1994)])
def test_one_mark_is_enough(tmp_path, head, tail):
    [document] = read(tmp_path, "a.txt", (head + TEXT + tail).encode())
    assert isinstance(document, Document) and document.text == plain(tmp_path, TEXT)
    assert document.cleaned == ("strip-gutenberg",)


def test_a_text_without_marks_stays_and_is_counted(tmp_path):
    for name, data in (("a.txt", TEXT.encode()), ("a.jsonl", json.dumps({"text": TEXT}).encode())):
        [document] = read(tmp_path, name, data)
        assert isinstance(document, Document) and document.text == plain(tmp_path, TEXT)
        assert document.cleaned == ("no-gutenberg-marks",)


def test_all_books_of_a_file_are_kept(tmp_path):
    [document] = read(
        tmp_path, "a.txt", "".join(f"{head}Book {i}.\n{tail}" for i, (head, tail) in enumerate(BOOKS)).encode()
    )
    assert isinstance(document, Document) and document.text == b"Book 0.\nBook 1.\nBook 2.\nBook 3."


def test_a_book_in_html_is_stripped(tmp_path):
    page = (
        "<p>The licence.</p><p>*** START OF THE PROJECT GUTENBERG EBOOK X ***</p><h1>Title</h1><p>Text of the book.</p>"
    )
    [document] = read(
        tmp_path, "a.html", (page + "<p>*** END OF THE PROJECT GUTENBERG EBOOK X ***</p><p>No</p>").encode()
    )
    assert isinstance(document, Document) and document.text == b"Title\nText of the book."


def test_only_the_licence_is_empty(tmp_path):
    [reject] = read(tmp_path, "a.txt", (HEAD_2008 + TAIL_2008).encode())
    assert not isinstance(reject, Document)


def test_a_book_of_several_pieces_is_stripped_and_counted_once(tmp_path):
    body = "".join(f"Line number {i} of a long book.\n\n" for i in range(300_000))
    pieces = read(tmp_path, "a.txt", (HEAD_2024 + body + TAIL_2024).encode())
    assert len(pieces) == 3 and all(isinstance(piece, Document) for piece in pieces)
    texts = [piece.text for piece in pieces if isinstance(piece, Document)]
    assert b"\n".join(texts) == plain_pieces(body)
    assert [piece.cleaned for piece in pieces if isinstance(piece, Document)] == [("strip-gutenberg",), (), ()]
    last_only = read(tmp_path, "b.txt", (body + TAIL_2024).encode())
    assert [piece.cleaned for piece in last_only if isinstance(piece, Document)] == [(), (), ("strip-gutenberg",)]
    assert last_only[0].position == 0


def plain_pieces(body: str) -> bytes:
    return body.strip().replace("\n\n", "\n").encode()


def twin(text: bytes) -> bytes:
    """The same, slowly: line by line."""
    kept: list[bytes] = []
    in_licence, book = False, 0  # where the lines of the last book begin
    for line in text.splitlines(keepends=True):
        if line.startswith(b"*** START"):
            del kept[book:]
            in_licence = False
        elif line.startswith(b"*** END"):
            in_licence, book = True, len(kept)
        elif not in_licence:
            kept.append(line)
    return b"".join(kept)


LINES = [
    b"word\n",
    b"\n",
    b"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n",
    b"*** END OF THE PROJECT GUTENBERG EBOOK X ***\n",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=12).map(b"".join), st.integers(1, 60))
def test_any_chunks_give_what_a_slow_twin_gives(text, size):
    found = b"".join(Licence().strip(text[i : i + size] for i in range(0, len(text), size)))
    assert found.split() == twin(text).split()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=40).map(b"".join), st.integers(1, 60))
def test_the_chunks_never_show_with_small_limits(text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gutenberg, "HEAD_BYTES", 120)
        patch.setattr(gutenberg, "_MARK_BYTES", 60)
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        assert b"".join(Licence().strip(chunks)) == b"".join(Licence().strip([text]))


def test_flags_that_cannot_be_combined_are_named(tmp_path):
    with pytest.raises(ValueError, match="--strip-gutenberg: with --records lines no record is a whole book"):
        ReadConfig(strip_gutenberg=True, records="lines")
    (tmp_path / "a.txt").write_text(TEXT)
    [source] = find_sources([str(tmp_path)], None, ReadConfig(strip_gutenberg=True))
    with pytest.raises(ValueError, match=r"a.txt: is plain text in the layout blank-line.*Give --text-layout file"):
        split_source(source, 1000)

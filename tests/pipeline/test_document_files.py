"""Files that are one document each: HTML pages, and the bounds and the discovery that Markdown and reST share with them."""

import gzip
import tarfile
from pathlib import Path

import pytest

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents, text_versions
from pipeline.inputs.formats import whole_texts
from pipeline.inputs.splitting import split_source
from pipeline.text.cleaning import CleanConfig
from pipeline.text.records import Document, Record, Reject

PAGE = (
    "<html><head>{}<title>T</title></head><body><nav><a href='/'>Home</a></nav><article><h1>Überschrift</h1>"
    "<p>Der erste Absatz mit einem <a href='x'>Verweis</a> ist lang genug für den Inhalt.</p>"
    "<table><tr><td>Zelle</td></tr></table><p>Größe und Maß: ein zweiter Absatz.</p></article></body></html>"
)
TEXT = (
    "Überschrift\nDer erste Absatz mit einem Verweis ist lang genug für den Inhalt.\nGröße und Maß: ein zweiter Absatz."
)


def records_of(folder: Path, name: str, data: bytes) -> list[Record]:
    (folder / name).write_bytes(data)
    [source] = find_sources([str(folder / name)])
    [split] = split_source(source, 10)
    return list(read_documents(split))


@pytest.mark.parametrize(
    ("meta", "encoding", "mark"),
    [
        ("", "utf-8", b""),
        ("", "utf-8", b"\xef\xbb\xbf"),
        ("<meta charset=iso-8859-1>", "utf-8", b"\xef\xbb\xbf"),
        ("<meta charset='windows-1252'>", "cp1252", b""),
        ('<meta http-equiv="Content-Type" content="text/html; charset=ISO-8859-15">', "iso8859-15", b""),
        ("<meta charset='utf-16'>", "utf-8", b""),
        ("<meta charset='nonsense'>", "utf-8", b""),
        ("<meta charset='utf-8'>", "utf-16", b""),
        ("", "utf-16-le", b"\xff\xfe"),
    ],
)
def test_a_page_is_read_in_the_encoding_that_a_browser_takes(tmp_path, meta, encoding, mark):
    [document] = records_of(tmp_path, "a.html", mark + PAGE.format(meta).encode(encoding))
    assert isinstance(document, Document) and document.text.decode() == TEXT
    assert document.position == (3 if mark == b"\xef\xbb\xbf" else 0)


def test_the_encoding_is_found_where_nothing_names_it(tmp_path):
    page = "<p>" + "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 20 + "</p>"
    [document] = records_of(tmp_path, "a.htm", page.encode("cp1251"))
    assert isinstance(document, Document) and document.text.decode().startswith("Съешь же ещё этих мягких")


@pytest.mark.parametrize("name", ["a.html", "a.md", "a.rst"])
def test_a_file_with_no_text_or_too_much_is_a_reject(tmp_path, name, monkeypatch):
    [empty] = records_of(tmp_path, name, b" \n")
    assert isinstance(empty, Reject) and empty.reason == "empty-text"
    monkeypatch.setattr(whole_texts, "MAX_PAGE_BYTES", 1000)
    [long] = records_of(tmp_path, name, b"word " * 300)
    assert isinstance(long, Reject) and (long.reason, long.detail) == ("page-too-long", "over 1000 bytes")
    assert long.text.startswith("word word")


@pytest.mark.parametrize("name", ["a.html.gz", "a.md.gz", "a.rst.gz"])
def test_of_a_file_that_ends_early_the_beginning_is_kept(tmp_path, name):
    packed = gzip.compress(b"".join(b"Sentence number %d stands here.\n\n" % i for i in range(5000)), mtime=0)
    [document, damage] = records_of(tmp_path, name, packed[: len(packed) // 2])
    assert isinstance(document, Document) and document.text.startswith(b"Sentence number 0 stands here.")
    assert isinstance(damage, Reject) and damage.reason == "damaged-file"


def test_a_readme_beside_data_is_no_document_but_one_among_documents_is(tmp_path):
    for name in ("set/README.md", "set/data/a.jsonl", "docs/README.md", "docs/guide.md", "docs/sub/readme.rst"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("Text.")
    notes: list[str] = []
    assert [source.name for source in find_sources([str(tmp_path / "set")], notes)] == ["data/a.jsonl"]
    assert notes == [
        f"{tmp_path}/set/README.md: skipped, because it describes the data in its folder. Name it to read it"
    ]
    assert len(find_sources([str(tmp_path / "docs")], notes)) == 3
    assert len(find_sources([str(tmp_path / "set/README.md")])) == 1


def test_the_versions_of_the_parsers_are_recorded():
    assert {name: list(text_versions(CleanConfig(), name)) for name in ("html", "markdown", "rst")} == {
        "html": ["resiliparse"],
        "markdown": ["markdown-it-py", "mdit-py-plugins"],
        "rst": ["docutils"],
    }


def test_an_encoding_that_the_first_bytes_show_holds_for_markdown_and_rst(tmp_path):
    for name in ("a.md", "a.rst"):
        [document] = records_of(tmp_path, name, "Größe\n=====\n\nEin Maß.\n".encode("utf-16"))
        assert isinstance(document, Document) and document.text.decode() == "Größe\nEin Maß."


def test_a_long_file_is_cut_into_pieces(tmp_path):
    pieces = records_of(tmp_path, "a.md", b"# Title\n\n" + (b"A paragraph of words. " * 1000 + b"\n\n") * 200)
    assert [piece.piece for piece in pieces if isinstance(piece, Document)] == [0, 1]


def test_files_of_an_archive_are_the_same_documents(tmp_path):
    files = {
        "a.md": b"# *A*\n\nText.\n",
        "b.rst": b"B\n=\n\n*Text*.\n",
        "c.html": PAGE.format("").encode(),
        "AA/wiki_00": b'<doc id="7" url="u" title="T">\nT\n\nOne &amp; two.\n</doc>\n',
        "AA/wiki_01": b'{"id": "8", "revid": "1", "url": "u", "title": "T", "text": "Three &lt; four."}\n',
    }
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in", "in")
    texts = [
        {
            record.text
            for source in find_sources([str(path)])
            for record in read_documents(split_source(source, 10**6)[0])
        }
        for path in (tmp_path / "in", tmp_path / "a.tar.gz")
    ]
    assert texts[0] == texts[1] == {b"A\nText.", b"B\nText.", TEXT.encode(), b"One & two.", b"Three < four."}

"""WikiExtractor's output: both forms give the same documents, however their files are cut and whatever they lack."""

import bz2
import gzip
import html
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import wikiextractor
from pipeline.inputs.splitting import split_source
from pipeline.text.records import Document, PassedOver, Record, Reject


def article(number: int, title: str, body: str) -> str:
    """An article as WikiExtractor writes it: it escapes the text, but not the title in the tag."""
    tag = f'<doc id="{number}" url="https://en.wikipedia.org/wiki?curid={number}" title="{title}">'
    return f"{tag}\n{html.escape(title, quote=False)}\n\n{html.escape(body, quote=False)}\n\n</doc>\n"


def line(number: int, title: str, body: str, **more: str) -> str:
    """An article as WikiExtractor --json writes it."""
    row = {"id": str(number), "revid": "7", "url": f"https://en.wikipedia.org/wiki?curid={number}", "title": title}
    return json.dumps(row | {"text": html.escape(body, quote=False)} | more) + "\n"


def read(folder: Path, data: str | bytes, name: str = "wiki_00", split_bytes: int = 1 << 20) -> list[Record]:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    [source] = find_sources([str(folder)])
    assert source.format == "wikiextractor"
    return [record for split in split_source(source, split_bytes) for record in read_documents(split)]


def texts(records: list[Record]) -> list[str]:
    return [record.text.decode() for record in records if isinstance(record, Document)]


ARTICLES = [
    (12, "Anarchism", "Anarchism is a view.\nHistory.\nIt began early."),
    (25, 'A & B <"more">', "A & B < C.\nSecond."),
    (39, "Albedo", "Albedo\nis the second line here, and the first is a word of the text."),
]
EXPECTED = [
    "Anarchism is a view.\nHistory.\nIt began early.",
    "A & B < C.\nSecond.",
    "Albedo\nis the second line here, and the first is a word of the text.",
]


def test_an_article_is_a_document_without_its_title_and_with_a_paragraph_per_line(tmp_path):
    records = read(tmp_path, "".join(article(*one) for one in ARTICLES))
    assert texts(records) == EXPECTED
    assert [record.record_id for record in records if isinstance(record, Document)] == ["12", "25", "39"]
    assert records[0].position == 0


def test_the_json_form_gives_the_same_documents(tmp_path):
    records = read(tmp_path, "".join(line(*one) for one in ARTICLES))
    assert texts(records) == EXPECTED
    assert [record.record_id for record in records if isinstance(record, Document)] == ["12", "25", "39"]


def test_the_compressed_form_gives_the_same_documents(tmp_path):
    data = "".join(article(*one) for one in ARTICLES).encode()
    assert texts(read(tmp_path, bz2.compress(data), "wiki_7.bz2")) == EXPECTED


def test_versions_that_repeat_the_title_in_json_are_read_alike(tmp_path):
    assert texts(read(tmp_path, line(1, "A & B", "A & B\n\nThe text."))) == ["The text."]
    old = {"url": "https://en.wikipedia.org/wiki?curid=1", "text": "T\n\nThe text.", "id": "1", "title": "T"}
    assert texts(read(tmp_path, json.dumps(old) + "\n")) == ["The text."]


def test_an_empty_article_is_counted_and_passed_over(tmp_path):
    for form in (article, line):
        records = read(tmp_path, form(1, "Empty", "") + form(2, "Full", "Text.") + form(3, "E", "\n \n"))
        assert records == [
            PassedOver(records[0].position, "empty-article"),
            *records[1:2],
            PassedOver(records[2].position, "empty-article"),
        ]
        assert texts(records) == ["Text."]


def test_what_versions_leave_of_mark_up_is_removed_and_the_text_kept(tmp_path):
    body = 'One<ref name="a">note</ref> two<ref name="b"/> three.<br>Four () and <i>five</i> &lt; 6.'
    for form in (article, line):
        assert texts(read(tmp_path, form(1, "T", body))) == ["One two three.\nFour () and <i>five</i> &lt; 6."]
    raw = '<doc id="1" url="u" title="T">\nT\n\nOne<br/>two &lt;b&gt;.\n</doc>\n'
    assert texts(read(tmp_path, raw)) == ["One\ntwo <b>."]


@pytest.mark.parametrize(
    "title", ['"', "a\" b='c'>", '<doc id="1" title="x">', "&amp;", "&lt;", ">", "</doc>", " x ", ""]
)
def test_any_title_is_read(tmp_path, title):
    assert texts(read(tmp_path, article(1, title, "Text.") + article(2, "T", "More."))) == ["Text.", "More."]


def test_notes_that_do_not_end_take_linear_time(tmp_path):
    notes = "<ref>" * 200_000
    data = f'<doc id="1" url="u" title="T">\nT\n\n{notes}A.<ref name=b/>\nC.<ref>d</ref> E.{notes}\n</doc>\n'
    assert texts(read(tmp_path, data)) == [f"{notes}A.\nC. E.{notes}"]


def test_a_tag_within_a_line_is_text(tmp_path):
    body = 'It writes </doc> and <doc id="3" url="u" title="T"> here.'
    raw = f'<doc id="1" url="u" title="T">\nT\n\n{body}\n</doc>\n'
    assert texts(read(tmp_path, raw)) == [body]


def test_an_article_without_an_end_is_a_reject_and_the_next_is_read(tmp_path):
    whole = article(1, "One", "Text 1.") + article(2, "Two", "Text 2.") + article(3, "Three", "Text 3.")
    records = read(tmp_path, whole.replace("Text 1.\n\n</doc>\n", "Text 1.\n"))
    assert isinstance(records[0], Reject)
    assert (records[0].reason, records[0].record_id) == ("no-article-end", "1")
    assert records[0].text.startswith("One") and texts(records) == ["Text 2.", "Text 3."]


def test_text_outside_of_articles_is_a_reject(tmp_path):
    between = article(1, "One", "Text 1.") + "\nlost\nwords\n</doc>\nmore\n" + article(2, "Two", "Text 2.")
    for size in (1 << 20, 10):
        records = read(tmp_path, between, split_bytes=size)
        rejects = [record for record in records if isinstance(record, Reject)]
        assert [(reject.reason, reject.text) for reject in rejects] == [
            ("outside-article", "lost\nwords"),
            ("outside-article", "more"),
        ]
        assert texts(records) == ["Text 1.", "Text 2."]


def test_a_file_that_ends_within_an_article_is_damaged(tmp_path):
    whole = article(1, "One", "Text 1.") + article(2, "Two", "Text 2.")
    for size in (1 << 20, 10):
        records = read(tmp_path, whole[:-8], split_bytes=size)
        assert isinstance(records[-1], Reject) and records[-1].reason == "damaged-file"
        assert records[-1].position == len(article(1, "One", "Text 1.")) and texts(records) == ["Text 1."]


def test_of_a_compressed_file_that_ends_early_whole_articles_are_kept(tmp_path):
    data = gzip.compress("".join(article(i, f"T{i}", f"Text {i}. " * 50) for i in range(3000)).encode(), mtime=0)
    records = read(tmp_path, data[: len(data) // 2], "wiki_00.gz")
    assert len(texts(records)) > 100 and [type(record) for record in records[-2:]] == [Document, Reject]
    assert texts(records)[-1] == ("Text {0}. " * 50).format(len(texts(records)) - 1).strip()
    assert isinstance(records[-1], Reject) and records[-1].reason == "damaged-file"


def test_an_article_that_is_too_long_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(wikiextractor, "MAX_ARTICLE_BYTES", 1000)
    records = read(tmp_path, article(1, "T", "long\n" * 300) + article(2, "U", "Text."))
    assert isinstance(records[0], Reject) and (records[0].reason, records[0].record_id) == ("page-too-long", "1")
    assert texts(records) == ["Text."]


def test_bytes_that_are_not_utf8_are_counted(tmp_path):
    data = article(1, "T", "caf\u00e9").encode("latin-1") + article(2, "U", "Text.").encode()
    first, second = read(tmp_path, data)
    assert isinstance(first, Document) and isinstance(second, Document)
    assert (first.text.decode(), first.num_replaced, second.num_replaced) == ("caf\ufffd", 1, 0)


titles = st.text(st.sampled_from("ab \"<>&;=é'/"), max_size=8)
bodies = st.lists(st.text(st.sampled_from('ab .<>&;é/doc"'), max_size=12), max_size=4).map("\n".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(titles, bodies), min_size=1, max_size=6), st.integers(1, 200), st.booleans())
def test_any_cut_gives_the_same_records(tmp_path_factory, articles, split_bytes, is_json):
    form = line if is_json else article
    data = "".join(form(i, title, body) for i, (title, body) in enumerate(articles))
    folder = tmp_path_factory.mktemp("cuts")
    whole = read(folder, data)
    assert len(whole) == len(articles) and not any(isinstance(record, Reject) for record in whole)
    assert read(folder, data, split_bytes=split_bytes) == whole
    [source] = find_sources([str(folder)])
    [split] = split_source(source, 1 << 20)
    for record in whole:  # as `explain` reads them
        assert next(read_documents(split, record.position)) == record

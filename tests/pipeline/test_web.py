"""Web archives: pages as text, other records counted, broken ones named."""

import gzip
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.documents import TextConfig, read_documents
from pipeline.formats import streams
from pipeline.formats.records import Document, PassedOver, Reject
from pipeline.inputs import Split, find_sources
from pipeline.splitting import split_source

PAGE = """<html><head><title>T</title><script>var x = 1;</script></head><body>
<nav><a href="/">Home</a></nav><main><article><h1>Heading</h1>
<p>First paragraph with a <a href="x">link</a>, long enough to be content of the page.</p>
<table><tr><td>cell</td></tr></table><p>Second paragraph: caf\u00e9, also long enough to be main content.</p>
</article></main><footer>Imprint</footer></body></html>"""


def record(kind: str, block: bytes, uri: str | None = None) -> bytes:
    head = ["WARC/1.0", f"WARC-Type: {kind}", "WARC-Date: 2024-05-18T01:58:10Z", "WARC-Record-ID: <urn:uuid:0>"]
    head += [f"WARC-Target-URI: {uri}"] if uri else []
    head += [f"Content-Type: {'application/http' if kind in ('response', 'request') else 'text/plain'}"]
    head += [f"Content-Length: {len(block)}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def response(body: bytes, kind: str = "text/html; charset=UTF-8", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


WET = [
    record("warcinfo", b"software: x\r\n"),
    record("conversion", "Menu\n\n  A line.\nAnother: 中文。\n".encode(), "https://a.example/1"),
    record("conversion", b" \n", "https://a.example/2"),
    record("conversion", b"Last one.", "https://a.example/3"),
]
WARC = [
    record("warcinfo", b"software: x\r\n"),
    record("request", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "https://a.example/"),
    record("response", response(PAGE.encode()), "https://a.example/utf8"),
    record("response", response(PAGE.encode("latin-1"), "text/html; charset=iso-8859-1"), "https://a.example/latin1"),
    record("response", response(b"\x89PNG", "image/png"), "https://a.example/i.png"),
    record("response", response(b"<p>gone</p>", status="404 Not Found"), "https://a.example/404"),
    record("response", response(b"<html></html>"), "https://a.example/empty"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("web")


def read(folder: Path, name: str, data: bytes, start: int | None = None) -> list[Document | Reject | PassedOver]:
    (folder / name).write_bytes(data)
    [source] = find_sources([str(folder / name)])
    return list(read_documents(Split(source, 0, None), start))


def test_text_that_was_taken_out_already_is_read_line_by_line(folder):
    items = read(folder, "a.warc.wet.gz", b"".join(map(gzip.compress, WET)))
    assert [getattr(item, "reason", "") or item.text.decode() for item in items] == [
        "not-a-page", "Menu\nA line.\nAnother: 中文。", "empty-text", "Last one.",
    ]  # fmt: skip
    assert [item.record_id for item in items[1:]] == [f"https://a.example/{i}" for i in (1, 2, 3)]
    data = b"".join(WET)
    assert [data[item.position :][:8] for item in items] == [b"WARC/1.0"] * 4


def test_the_main_content_of_a_page_is_its_text(folder):
    items = read(folder, "a.warc.gz", b"".join(map(gzip.compress, WARC)))
    pages = [item for item in items if isinstance(item, Document)]
    assert [page.text.decode() for page in pages] == [
        "Heading\nFirst paragraph with a link, long enough to be content of the page.\n"
        "Second paragraph: café, also long enough to be main content."
    ] * 2
    assert [page.record_id for page in pages] == ["https://a.example/utf8", "https://a.example/latin1"]
    others = [getattr(item, "reason", "") for item in items if not isinstance(item, Document)]
    assert others == ["not-a-page", "not-a-page", "not-a-page", "not-a-page", "empty-text"]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(WET), max_size=5), st.sampled_from([1, 9, 1 << 20]))
def test_an_archive_reads_the_same_however_it_streams_and_from_every_record(folder, records, chunk):
    data = b"".join(records)
    whole = read(folder, "a.wet", data)
    assert len(whole) == len(records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        assert read(folder, "a.wet", data) == whole
        for item in whole:
            assert read(folder, "a.wet", data, item.position) == [i for i in whole if i.position >= item.position]


@settings(max_examples=100)
@given(st.integers(1, len(b"".join(WET)) - 1))
def test_an_archive_cut_anywhere_keeps_its_whole_records(folder, cut):
    data = b"".join(WET)
    ends = [sum(map(len, WET[: i + 1])) - 4 for i in range(len(WET))]
    whole = read(folder, "whole.wet", data)
    if cut > 10:  # else it is no archive by its first bytes
        items = read(folder, "cut.wet", data[:cut])
        num_whole = sum(end <= cut for end in ends)
        assert items[:num_whole] == whole[:num_whole]
        begun = cut > (ends[num_whole - 1] + 4 if num_whole else 0)  # a record, which is not whole
        assert [item.reason for item in items[num_whole:]] == ["damaged-file"] * begun


def test_an_archive_is_not_cut_and_needs_its_packages(folder, monkeypatch):
    (folder / "whole.wet").write_bytes(b"".join(WET))
    [source] = find_sources([str(folder / "whole.wet")])
    assert split_source(source, 10) == [Split(source, 0, None, source.size)]
    monkeypatch.setitem(sys.modules, "warcio", None)
    monkeypatch.setattr("pipeline.formats.web.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"whole.wet: web archives need warcio and resiliparse: pip install"):
        split_source(source, 10)


def test_lines_of_pages_can_be_cleaned_as_others_can(folder):
    (folder / "whole.wet").write_bytes(b"".join(WET))
    [source] = find_sources([str(folder / "whole.wet")])
    items = list(read_documents(Split(source, 0, None), None, TextConfig(min_characters=15)))
    assert [item.reason for item in items if isinstance(item, Reject)] == ["empty-text", "too-short"]

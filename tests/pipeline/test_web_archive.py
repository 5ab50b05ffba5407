"""Web archives: pages as text, other records counted, broken ones named."""

import gzip
import tracemalloc
import zlib
from pathlib import Path

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs import streams
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import web_archive as web
from pipeline.inputs.formats.html_tree import parse_html
from pipeline.inputs.sources import Split
from pipeline.inputs.splitting import split_source
from pipeline.text.cleaning import CleanConfig
from pipeline.text.records import Document, PassedOver, Reject

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


def test_extracted_text_is_read_line_by_line(folder):
    items = read(folder, "a.warc.wet.gz", b"".join(map(gzip.compress, WET)))
    assert [getattr(item, "reason", "") or item.text.decode() for item in items] == [
        "not-a-page",
        "Menu\nA line.\nAnother: 中文。",
        "empty-text",
        "Last one.",
    ]
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
def test_an_archive_reads_the_same_in_any_chunks_and_from_every_record(folder, records, chunk):
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
    if cut > 10:  # else its first bytes do not show an archive
        items = read(folder, "cut.wet", data[:cut])
        num_whole = sum(end <= cut for end in ends)
        assert items[:num_whole] == whole[:num_whole]
        begun = cut > (ends[num_whole - 1] + 4 if num_whole else 0)  # a record, which is not whole
        assert [item.reason for item in items[num_whole:]] == ["damaged-file"] * begun


def test_an_archive_is_not_cut_and_needs_its_packages(folder, monkeypatch):
    (folder / "whole.wet").write_bytes(b"".join(WET))
    [source] = find_sources([str(folder / "whole.wet")])
    assert split_source(source, 10) == [Split(source, 0, None, source.size)]
    monkeypatch.setattr("bertloom.extras.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"whole.wet: is a web archive. Reading it needs the extra .web.: pip"):
        split_source(source, 10)


def test_lines_of_pages_can_be_cleaned(folder):
    (folder / "whole.wet").write_bytes(b"".join(WET))
    [source] = find_sources([str(folder / "whole.wet")])
    items = list(read_documents(Split(source, 0, None), None, CleanConfig(min_characters=15)))
    assert [item.reason for item in items if isinstance(item, Reject)] == ["empty-text", "too-short"]


# ---- pages that cannot be read


def page(body: bytes, kind: str = "text/html; charset=UTF-8", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join(["HTTP/1.1 200 OK", f"Content-Type: {kind}", *lines]).encode()
    return record("response", head + b"\r\n\r\n" + body, "https://a.example/")


def read_one_before_another(folder: Path, one: bytes) -> Document | Reject:
    """Return the item of the first of two pages; the second is always read."""
    first, last = read(folder, "two.warc", one + page(b"<p>The next page.</p>"))
    assert isinstance(last, Document) and last.text == b"The next page."
    assert (first.position, last.position) == (0, len(one))
    return first


@pytest.mark.parametrize(
    "charset",
    ["utf-8; x=1", '"utf-8"', "utf8mb4", "hex", "undefined", "unicode_escape", "utf-7", "x" * 300, "é", "utf-16;", ""],
)
def test_an_unknown_charset_is_replaced_by_a_guess_from_the_bytes(folder, charset):
    text = "Ein schöner Satz, größer als Fuß, und 中文。"
    html = f"<p>{text} +2AA- \\ud800 &#xD800;</p>".encode("utf-16-le" if charset == "utf-16;" else "utf-8")
    document = read_one_before_another(folder, page(html, f"text/html; charset={charset}"))
    assert document.text.decode().startswith(text)


def test_charsets_mean_what_they_mean_to_browsers(folder):
    """gb2312 means GBK and iso-8859-1 means Windows-1252: pages use characters that only these have."""
    for text, charset, encoding in (("朱镕基说。", "gb2312", "gbk"), ("“Café”", "ISO-8859-1", "windows-1252")):
        html = f"<p>{text}</p>".encode(encoding)
        assert read_one_before_another(folder, page(html, f"text/html;charset={charset}")).text.decode() == text


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": brotli.compress,
    "identity": bytes,
}


@pytest.mark.parametrize("coding", PACKERS)
def test_a_compressed_page_is_unpacked(folder, coding):
    html = "".join(f"<p>Paragraph {i}.</p>" for i in range(3000)).encode()
    packed = PACKERS[coding](html)
    for body in (packed, html):  # many crawlers unpack a page, and keep the header
        assert read_one_before_another(folder, page(body, Content_Encoding=coding)).text.count(b"\n") == 2999
    chunked = b"".join(
        b"%x\r\n%b\r\n" % (len(packed[i : i + 99]), packed[i : i + 99]) for i in range(0, len(packed), 99)
    )
    headers = {"Content_Encoding": coding, "Transfer_Encoding": "Chunked"}
    assert read_one_before_another(folder, page(chunked + b"0\r\n\r\n", **headers)).text.count(b"\n") == 2999


@pytest.mark.parametrize(
    "body, coding, said",
    [
        (gzip.compress(PAGE.encode(), mtime=0)[:200], "gzip", "Content-Encoding gzip: the page ends early"),
        (gzip.compress(PAGE.encode(), mtime=0)[:60] + b"\xff" * 200, "gzip", "Content-Encoding gzip: Error -3"),
        (b"\xff\xfe", "deflate", "Content-Encoding deflate: Error -3"),
        (brotli.compress(PAGE.encode())[:100], "br", "Content-Encoding br: the page ends early"),
        (b"\xff" * 200, "br", "Content-Encoding br: "),
        (b"\x28\xb5\x2f\xfd", "zstd", "Content-Encoding zstd: expected one of gzip, x-gzip, deflate, br"),
    ],
)
def test_a_page_that_cannot_be_unpacked_is_rejected_and_the_next_is_read(folder, body, coding, said):
    reject = read_one_before_another(folder, page(body, Content_Encoding=coding))
    assert (reject.reason, reject.record_id) == ("page-not-unpacked", "https://a.example/")
    assert reject.detail.startswith(said)


@pytest.mark.parametrize("coding", PACKERS)
def test_a_page_that_is_too_long_is_rejected_without_being_read_whole(folder, monkeypatch, coding):
    monkeypatch.setattr(web, "MAX_PAGE_BYTES", 1000)
    for size, reason in ((1000, ""), (1001, "page-too-long"), (3_000_000, "page-too-long")):
        body = PACKERS[coding](b"<p>" + b"word " * 20 + b"</p>" + b" " * (size - 107))
        one = read_one_before_another(folder, page(body, Content_Encoding=coding))
        assert getattr(one, "reason", "") == reason
    one = read_one_before_another(folder, record("conversion", b"word " * 201, "https://a.example/"))
    assert (one.reason, one.detail, one.text[:9]) == ("page-too-long", "over 1000 bytes", "word word")


def test_a_record_that_is_not_a_page_is_never_held_whole(folder):
    (folder / "video.warc").write_bytes(
        record("response", response(bytes(30_000_000), "video/mp4"), "https://a.example/v")
    )
    [source] = find_sources([str(folder / "video.warc")])
    tracemalloc.start()
    try:
        assert [item.reason for item in read_documents(Split(source, 0, None))] == ["not-a-page"]
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_a_response_without_address_or_headers_does_not_end_the_archive(folder):
    assert read_one_before_another(folder, record("response", response(PAGE.encode()))).text.startswith(
        b"Heading\nFirst"
    )
    for block in (b"", b"\r\n", b"no head"):
        assert read_one_before_another(folder, record("response", block)).reason == "not-a-page"


def test_an_archive_that_ends_after_the_headers_of_a_record_is_damaged(folder):
    data = record("response", response(PAGE.encode()), "https://a.example/")
    [item] = read(folder, "head.warc", data[: data.index(b"HTTP/1.1")])
    assert item.reason == "damaged-file" and item.detail.startswith("the file ends within a record of")


# ---- pages that are made to take long


@pytest.mark.parametrize(
    "html, said",
    [
        ("<div>" * 200_000, "elements are nested more than 50 deep"),
        ("<div>" * 600, "elements are nested more than 512 deep"),
        ("<ul><li>" * 100_000, "elements are nested more than 50 deep"),
        ("<a><div>" * 100_000, "elements are nested more than 50 deep"),
        (
            "<p>" + "".join(f"<b id={i}>" for i in range(5000)) + "</p><p>x" * 5000,
            "elements are nested more than 512 deep",
        ),
        ("<div " + " ".join(f"a{i}" for i in range(20_000)) + ">", "a tag has 20000 attributes, the limit is 1000"),
        ("<div " + " ".join(f"a{i}='>'" for i in range(20_000)) + ">", "a tag has 20000 attributes, the limit is 1000"),
        (
            '<!-- a="> --><p/' + "/".join(f'a{i}="<b"' for i in range(20_000)) + ">",
            "a tag has 20000 attributes, the limit is 1000",
        ),
    ],
    ids=range(8),
)
def test_a_page_whose_tree_takes_long_is_rejected_and_the_next_is_read(folder, html, said):
    reject = read_one_before_another(folder, page(html.encode() + b"Hello there."))
    assert (reject.reason, reject.detail, reject.record_id) == ("page-too-deep", said, "https://a.example/")


def test_a_page_may_be_as_deep_as_in_a_browser():
    assert extracted("<div>" * 500 + "Hello there.") == "Hello there."
    with pytest.raises(ValueError, match="nested more than 512 deep"):
        extracted("<div>" * 512 + "Hello there.")


def test_bold_that_is_never_closed_is_not_repeated_without_end():
    html = "".join(f"<p><b id={i}>{i}</p>" for i in range(2000))
    assert extracted(html).split() == [str(i) for i in range(2000)]


@pytest.mark.parametrize("num", [1000, 1001])
@pytest.mark.parametrize("attribute", ["a{}", "a{}=b", 'a{}="b c"', "a{} = '>'", 'a{}="<b x=y>"', "a{}=b/"])
def test_attributes_are_counted_as_a_browser_does(num, attribute):
    html = "<p " + " ".join(map(attribute.format, range(num))) + ">Hello there." + "<i>x</i>" * 20
    if num > 1000:
        with pytest.raises(ValueError, match="a tag has 1001 attributes, the limit is 1000"):
            parse_html(html)
    else:
        assert len(parse_html(html).body.query_selector("p").attrs) == num


def test_long_texts_scripts_and_values_are_not_attributes():
    words = 'word "quoted" <b>bold</b> a=b ' * 3000
    script = f"<script>if (a<b) {{ x = '<p {'c=d ' * 50}>' }}</script>"
    html = f"{script}<!-- <p {'a ' * 3000}> --><img src='{'x y ' * 3000}'><p>{words}</p>"
    assert parse_html(html).body.query_selector("img") is not None


def extracted(html: str) -> str:
    [document] = web.read_archive([page(html.encode())], 0)
    if isinstance(document, Reject):
        raise ValueError(document.detail)
    return document.text.decode()

import bz2
import gzip
import json
import lzma
import re
import tracemalloc
from functools import partial
from pathlib import Path

import orjson
import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.inputs import streams
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.formats import plain_text, streamed
from pipeline.inputs.formats.json_lines import read_json_lines
from pipeline.inputs.sources import Split
from pipeline.inputs.text_encodings import find_encoding
from pipeline.text import records
from pipeline.text.records import MAX_DOCUMENT_BYTES, Document, Reject, document_digest
from tests.pipeline import twins
from tests.pipeline.reading import read_with

BOM = b"\xef\xbb\xbf"
BITS = ["a", "word", "b. ", "c! ", "中文。", "é", "😀", " ", "\t", "\u3000", "\u2003", "\x00", "\n", "\r\n", "\r"]
TEXT = st.lists(st.sampled_from([*BITS, "\n\n", "\n \n", "\r\n\r\n"]), max_size=40).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("documents")


def set_sizes(patch: pytest.MonkeyPatch, most: int | None = None, chunk: int | None = None) -> None:
    """Bytes of the longest document, and bytes read at a time."""
    if most:
        for module in (records, plain_text):
            patch.setattr(module, "MAX_DOCUMENT_BYTES", most)
    if chunk:
        for module in (streams, plain_text):
            patch.setattr(module, "CHUNK", chunk)


def read(folder: Path, name: str, data: bytes, start: int | None = None, **config) -> list[Document | Reject]:
    (folder / name).write_bytes(data)
    [source] = find_sources([str(folder / name)])
    return read_with(Split(source, 0, None), start, **config)


def texts(items) -> list[str]:
    return [item.text.decode() for item in items if isinstance(item, Document)]


def rejects(items) -> list[tuple[int, str]]:
    return [(item.position, item.reason) for item in items if isinstance(item, Reject)]


def essence(items) -> list[tuple[bytes, int, int, int]]:
    """Return what reaches the shards of each document: text, position, piece, source key."""
    rows = []
    for item in items:
        key = twins.identity(item.text) if item.source_key is None else item.source_key
        rows.append((item.text, item.position, item.piece, key))
    return rows


# ---- plain text


def test_a_blank_line_separates_documents_and_a_line_break_is_kept():
    assert [t for t, *_ in twins.text_documents(b"One.\nTwo.\n\nThree.\n", 100)] == [b"One.\nTwo.", b"Three."]


@settings(max_examples=400)
@given(TEXT, st.booleans())
def test_text_documents_equal_their_twin(folder, text, bom):
    assume(find_encoding(text.encode()) is None)
    data = BOM * bom + text.encode()
    assert essence(read(folder, "twin.txt", data)) == twins.text_documents(data, MAX_DOCUMENT_BYTES)


@settings(max_examples=600)
@given(TEXT, st.sampled_from([40, 41, 64, 100]), st.sampled_from([3, 4, 7, 16, 1 << 20]))
def test_a_long_text_is_cut_into_the_same_pieces_however_it_streams(folder, text, most, chunk):
    """Blank lines are shorter than a document here: see the next test."""
    assume(find_encoding(text.encode()) is None)  # of many NULs it would be UTF-16
    with pytest.MonkeyPatch.context() as patch:
        set_sizes(patch, most=most, chunk=chunk)
        items = read(folder, "stream.txt", text.encode())
    assert all(len(item.text) <= most for item in items)
    assert essence(items) == twins.text_documents(text.encode(), most)


@given(st.lists(st.binary(max_size=3) | TEXT.map(str.encode), max_size=12).map(b"".join), st.sampled_from([3, 8, 64]))
def test_invalid_bytes_are_replaced_and_counted_the_same_however_they_stream(folder, data, chunk):
    data = b"a" + data  # or it might begin as an archive does
    whole = read(folder, "bytes.txt", data)
    with pytest.MonkeyPatch.context() as patch:
        set_sizes(patch, chunk=chunk)
        assert read(folder, "bytes.txt", data) == whole
    for item in whole:
        assert item.text.decode().count("\ufffd") >= item.num_replaced


def test_a_long_text_is_cut_at_a_line_else_a_sentence_else_a_word_else_a_character(folder, monkeypatch):
    set_sizes(monkeypatch, most=15)
    assert texts(read(folder, "a.txt", b"One two.\nthree four. five")) == ["One two.", "three four.", "five"]
    assert texts(read(folder, "a.txt", b"One! Two? Three four")) == ["One! Two?", "Three four"]
    assert texts(read(folder, "a.txt", b"one two three four")) == ["one two three", "four"]
    assert texts(read(folder, "a.txt", "一二。三四五六".encode())) == ["一二。", "三四五六"]
    assert texts(read(folder, "a.txt", "一二三四五六七".encode())) == ["一二三四", "五六七"]


def test_the_pieces_of_a_text_share_its_position_and_the_id_of_the_first(folder, monkeypatch):
    set_sizes(monkeypatch, most=15)
    items = read(folder, "a.txt", b"\n\nOne two.\nthree four. five\n\nsix")
    key = twins.identity(b"One two.")
    assert essence(items) == [
        (b"One two.", 2, 0, key),
        (b"three four.", 2, 1, key),
        (b"five", 2, 2, key),
        (b"six", 29, 0, twins.identity(b"six")),
    ]


def test_an_id_is_the_first_eight_bytes_of_the_sha256(folder):
    assert document_digest(b"abc").hex().startswith("ba7816bf8f01cfea")
    assert twins.identity(b"abc") == 0xBA7816BF8F01CFEA


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from([b"word ", b"b. ", b"line\n", b"\xe4\xb8\xad", b"\xff", b"\xff longer."]), min_size=12),
    st.booleans(),
)
def test_reading_from_a_later_document_gives_the_same_items_as_reading_all(folder, bits, after):
    """Also inside a text that is cut into pieces, so a restarted job writes the same parts."""
    data = b"three\n\n" * after + b"".join(bits) + b"\n\nlast"
    with pytest.MonkeyPatch.context() as patch:
        set_sizes(patch, most=32, chunk=5)
        whole = read(folder, "on.txt", data)
        for start in {item.position for item in whole}:
            assert read(folder, "on.txt", data, start) == [item for item in whole if item.position >= start]


def test_damaged_utf8_is_replaced_and_counted(folder):
    [item] = read(folder, "a.txt", b"caf\xe9 \xff\xfe ol\xc3\xa9 \xef\xbf\xbd")
    assert item.text.decode() == "caf\ufffd \ufffd\ufffd olé \ufffd"
    assert item.num_replaced == 3  # the last one is in the file


def test_bytes_that_never_begin_a_character_can_be_cut_anywhere(folder, monkeypatch):
    """In few bits: byte by byte would take hours for a few megabytes."""
    set_sizes(monkeypatch, most=32, chunk=5)
    decode, bits = plain_text.decode_text, []
    monkeypatch.setattr(plain_text, "decode_text", lambda raw: bits.append(raw) or decode(raw))
    [*pieces, last] = read(folder, "a.txt", b"a" + b"\x80" * 60 + b"b\n\nc")
    assert "".join(texts(pieces)) == "a" + "\ufffd" * 60 + "b" and texts([last]) == ["c"]
    assert len(bits) < 6
    assert pieces[-1].num_replaced == 60


def test_a_byte_order_mark_is_not_text(folder):
    assert essence(read(folder, "a.txt", BOM + b"one\n\ntwo")) == [
        (b"one", 3, 0, twins.identity(b"one")),
        (b"two", 8, 0, twins.identity(b"two")),
    ]
    assert texts(read(folder, "a.jsonl", BOM + b'{"text": "one"}\n')) == ["one"]


@pytest.mark.parametrize("data", [b"", b"\n" * 100, BOM, b" \t\r\n", "\u3000\n\u00a0".encode(), BOM + b"\n \n"])
def test_a_file_without_text_has_no_documents(folder, data):
    assert read(folder, "a.txt", data) == []


def test_an_indent_of_ideographic_spaces_is_kept(folder):
    assert texts(read(folder, "a.txt", "\n\u3000\u3000话说\n".encode())) == ["\u3000\u3000话说"]


# ---- JSON Lines


def lines(*records: str) -> bytes:
    return "".join(f"{record}\n" for record in records).encode()


def test_a_blank_line_in_json_ends_a_paragraph_and_a_single_line_break_may_be_a_space(folder):
    text = " one\ntwo\r\nthree\n \nfour\r\n\r\n\r\nfive\n"
    record = lines(json.dumps({"text": text}))
    assert texts(read(folder, "a.jsonl", record, line_breaks="space")) == ["one two three\nfour\nfive"]
    assert texts(read(folder, "a.jsonl", record)) == ["one\ntwo\nthree\nfour\nfive"]


@given(st.text(alphabet=st.sampled_from("ab. 中。é\x00\u3000\u00a0"), max_size=40), st.booleans())
def test_the_same_text_has_the_same_id_in_every_format(folder, text, ascii_only):
    record = json.dumps({"text": text}, ensure_ascii=ascii_only)
    as_json = texts(read(folder, "same.jsonl", lines(record)))
    if text.strip(twins.BLANK):
        assert as_json == texts(read(folder, "same.txt", text.encode()))


@pytest.mark.parametrize(
    "record, reason",
    [
        ("", "blank-line"),
        ("   ", "blank-line"),
        ('{"text": "cut', "not-json"),
        ("plain words", "not-json"),
        ('{"text": "a"} {"text": "b"}', "not-json"),
        ("[" * 200_000, "not-json"),
        ('{"text": "a", "number": ' + "1" * 5000 + "}", "not-json"),
        ('{"text": "tab\there"}', "not-json"),
        ('["text"]', "not-an-object"),
        ('"text"', "not-an-object"),
        ("null", "not-an-object"),
        ("{}", "no-text-field"),
        ('{"Text": "a"}', "no-text-field"),
        ('{"\\ud800": "a"}', "no-text-field"),
        ('{"text": null}', "text-not-a-string"),
        ('{"text": 5}', "text-not-a-string"),
        ('{"text": ["a"]}', "text-not-a-string"),
        ('{"text": ""}', "empty-text"),
        ('{"text": " \\n\\t "}', "empty-text"),
    ],
)
def test_a_line_without_text_is_rejected_with_its_reason(folder, record, reason):
    items = read(folder, "bad.jsonl", lines('{"text": "before"}', record, '{"text": "after"}'))
    assert texts(items) == ["before", "after"]
    assert rejects(items) == [(19, reason)]
    json.dumps(items[1].detail, ensure_ascii=False).encode()  # the log of rejects can hold it
    assert len(items[1].detail) < 400


@pytest.mark.parametrize(
    "record, text",
    [
        ('{"text": "a", "text": "b"}', "b"),
        ('{"text": "a", "n": NaN}', "a"),
        ('{"text": "lone \\ud83d surrogate"}', "lone \ufffd surrogate"),
        ('{"text": "pair \\ud83d\\ude00"}', "pair \U0001f600"),
        ('{"text": "nul \\u0000"}', "nul \x00"),
        ('\ufeff{"text": "mark"}', "mark"),
        ('  {"text": "spaces"}\r', "spaces"),
    ],
)
def test_an_odd_line_that_can_be_read_is_read(folder, record, text):
    assert texts(read(folder, "odd.jsonl", lines(record))) == [text]


@pytest.mark.parametrize("record_id, said", [("null", None), ('"r"', "r"), ("0", "0"), ('""', "")])
def test_null_is_not_an_id_of_a_record(folder, record_id, said):
    (item,) = read(folder, "id.jsonl", lines(f'{{"id": {record_id}, "text": ""}}'))
    assert item.record_id == said


@given(st.lists(st.binary(max_size=12), max_size=5).map(b"\n".join))
def test_any_bytes_as_json_lines_give_documents_or_rejects(folder, data):
    data = b"\n" + data  # or it might begin as an archive does
    assume(find_encoding(data) is None)
    assert len(read(folder, "any.jsonl", data)) == len(data.removesuffix(b"\n").split(b"\n"))


@given(st.lists(st.integers(0, 40), max_size=6), st.booleans(), st.sampled_from([1, 3, 1 << 20]))
def test_a_line_that_is_too_long_to_hold_is_rejected_by_its_length(folder, sizes, final, chunk):
    records = [b'{"text": "' + b"x" * size + b'"}' for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed, "MAX_LINE_BYTES", 30)
        set_sizes(patch, chunk=chunk)
        items = read(folder, "wide.jsonl", b"\n".join(records) + b"\n" * (final and bool(records)))
    assert len(items) == len(records)
    at = 0
    for i, (item, record) in enumerate(zip(items, records)):
        width = len(record) + (final or i + 1 < len(records))
        assert item.position == at
        if width > 30:
            assert item == Reject(at, "line-too-long", f"{width} bytes, over 30")
        elif len(record) > 12:
            assert item.text == record[10:-2]
        at += width


@settings(max_examples=300)
@given(text=st.lists(st.sampled_from([*BITS, "\n\n", "\ud83d", "\u2003\n", "\v"]), max_size=30).map("".join))
def test_paragraphs_do_not_depend_on_how_the_text_is_sliced(text):
    whole, num_replaced = records.paragraphs(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "SLICE", 3)
        assert records.paragraphs(text) == (whole, num_replaced)
    rows = text.replace("\ud83d", "\ufffd").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    full = [i for i, row in enumerate(rows) if row.strip()]
    text = "\n".join(rows[full[0] : full[-1] + 1]).strip(" \t\n\v\f") if full else ""
    joined = re.sub(r"\n\s*\n", "\r", text).replace("\n", " ").replace("\r", "\n")
    assert whole.replace(b"\r", b" ").decode() == joined


def test_blank_lines_at_the_ends_of_a_text_are_no_text_whatever_white_space_they_hold():
    assert records.paragraphs("\u3000\r\n\u3000Text.\xa0\n\xa0\n\u2003 ") == ("\u3000Text.\xa0".encode(), 0)
    assert records.paragraphs(" \u3000") == (b"", 0)


def test_a_long_json_text_is_cut_into_pieces_too(folder, monkeypatch):
    set_sizes(monkeypatch, most=15)
    items = read(folder, "a.jsonl", lines('{"text": "b"}', '{"text": "One two.\\n\\nthree four. five"}'))
    key = twins.identity(b"One two.")
    assert essence(items)[1:] == [(b"One two.", 14, 0, key), (b"three four.", 14, 1, key), (b"five", 14, 2, key)]


def test_a_long_line_and_its_text_are_not_held_longer_than_needed(monkeypatch):
    loads = orjson.loads

    def loads_untraced(line):
        record = loads(line)
        tracemalloc.reset_peak()  # orjson reserves more memory than it uses
        return record

    def chunks():
        yield '{"text": "\U0001f600'.encode()  # four bytes per character in a string of Python
        for _ in range(16):
            yield b"A line of a hundred thousand.\\n" * 30_000
        yield b'"}'

    monkeypatch.setattr(orjson, "loads", loads_untraced)
    tracemalloc.start()
    try:
        size = sum(len(document.text) for document in read_json_lines(chunks(), 0, "text", "id"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6.5 * size  # 7.1 when the line or its text is held too


# ---- compressed files


def squeeze(ending: str, *streams: bytes) -> bytes:
    zstd = zstandard.ZstdCompressor().compress
    xz = partial(lzma.compress, preset=0)
    bzip2 = partial(bz2.compress, compresslevel=1)  # blocks of 100 kB
    one = {".gz": gzip.compress, ".bz2": bzip2, ".zst": zstd, ".xz": xz}[ending]
    return b"".join(one(stream) for stream in streams)


CODECS = pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst", ".xz"])
TWENTY = b"".join(b"Document %d speaks.\nAnd ends.\n\n" % i for i in range(20))


@CODECS
@settings(max_examples=60)
@given(data=TEXT.map(str.encode), cuts=st.lists(st.integers(0, 80), max_size=3), chunk=st.sampled_from([1, 5, 1 << 20]))
def test_a_compressed_file_of_one_or_more_streams_reads_as_the_plain_one(folder, ending, data, cuts, chunk):
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    streams = [data[a:b] for a, b in zip(edges, edges[1:])]
    with pytest.MonkeyPatch.context() as patch:
        set_sizes(patch, chunk=chunk)
        assert read(folder, f"a.txt{ending}", squeeze(ending, *streams)) == read(folder, "a.txt", data)


@CODECS
def test_reading_from_the_middle_of_a_compressed_file_skips_what_came_before(folder, ending):
    data = squeeze(ending, TWENTY[:100], TWENTY[100:])
    whole = read(folder, f"a.txt{ending}", data)
    assert len(whole) == 20
    assert read(folder, f"a.txt{ending}", data, whole[7].position) == whole[7:]


def incompressible(size: int) -> bytes:
    words = (f"w{twins.mix(i):x}" for i in range(size // 18))
    return b"".join(f"{word}\n\n".encode() for word in words)


@CODECS
@pytest.mark.parametrize("share", [0.67, 0.999])
def test_a_truncated_file_keeps_what_came_before_and_rejects_the_rest(folder, monkeypatch, ending, share):
    set_sizes(monkeypatch, chunk=1 << 16)
    text = incompressible(400_000)
    data = squeeze(ending, text)
    items = read(folder, f"t.txt{ending}", data[: int(len(data) * share)])
    whole = text.decode().split()
    *kept, begun = texts(items)
    assert kept == whole[: len(kept)] and whole[len(kept)].startswith(begun)
    assert len(items) > 15_000 * share
    damage = items[-1]
    assert damage.reason == "damaged-file"
    assert damage.detail.endswith("what came before it was kept")
    assert text[: damage.position].decode().split()[: len(items) - 1] == texts(items)
    assert read(folder, f"t.txt{ending}", data[: int(len(data) * share)], items[-2].position) == items[-2:]
    assert read(folder, f"t.txt{ending}", data[: int(len(data) * share)], damage.position) == items[-1:]


@pytest.mark.parametrize("layout", ["blank-line", "line", "file"])
def test_a_truncated_file_keeps_the_document_that_is_cut_off(folder, layout, monkeypatch):
    text = incompressible(400_000).replace(b"\n\n", b" ")  # one document, in every layout
    data = squeeze(".gz", text)
    data = data[: int(len(data) * 0.9)]
    set_sizes(monkeypatch, most=100_000)
    *pieces, damage = read(folder, "t.txt.gz", data, text_layout=layout)
    assert (damage.reason, len(pieces) > 2) == ("damaged-file", True)
    kept = " ".join(texts(pieces)).encode()
    assert text.startswith(kept) and damage.position - len(kept) <= 1
    assert read(folder, "t.txt.gz", data, damage.position, text_layout=layout) == [damage]


def test_a_json_line_that_is_cut_off_is_rejected(folder):
    text = b"".join(b'{"text": "%s"}\n' % word for word in incompressible(400_000).split())
    data = squeeze(".gz", text)
    *items, line, damage = read(folder, "t.jsonl.gz", data[: int(len(data) * 0.9)])
    assert len(items) > 10_000 and len(texts(items)) == len(items)
    assert (line.reason, damage.reason) == ("not-json", "damaged-file")
    assert text[line.position : damage.position].decode() == line.text


@CODECS
def test_a_file_that_is_not_what_its_name_says_is_rejected_by_name(folder, ending):
    items = read(folder, f"not.txt{ending}", b"plain text, not compressed at all\n")
    assert [item.reason for item in items] == ["damaged-file"] and items[0].position == 0


@CODECS
def test_a_broken_second_stream_does_not_affect_the_first(folder, ending):
    good = squeeze(ending, TWENTY)
    items = read(folder, f"half.txt{ending}", good + good[: len(good) // 2])
    assert texts(items)[:20] == TWENTY.decode().strip().split("\n\n")
    assert items[-1].reason == "damaged-file" and items[-1].position >= len(TWENTY)


@CODECS
def test_zeros_between_and_after_the_streams_are_padding(folder, ending):
    data = squeeze(ending, TWENTY[:100]) + b"\0" * 8 + squeeze(ending, TWENTY[100:]) + b"\0" * 40_000
    assert read(folder, f"a.txt{ending}", data) == read(folder, "a.txt", TWENTY)


@CODECS
def test_an_empty_compressed_file_has_no_documents(folder, ending):
    assert read(folder, f"e.txt{ending}", squeeze(ending, b"")) == []


def test_a_byte_order_mark_split_between_two_streams_is_not_text(folder):
    data = squeeze(".gz", b"\xef", b"\xbb", b"\xbfone")
    assert texts(read(folder, "m.txt.gz", data)) == ["one"]

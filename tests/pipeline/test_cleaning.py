"""Cleaning: each step does what it says, to the text alone, and is counted; what is turned away says why."""

import json
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs import streams
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import plain_text
from pipeline.inputs.sources import Split
from pipeline.options import compose
from pipeline.text import records
from pipeline.text.cleaning import CleanConfig, clean
from pipeline.text.records import Document, PassedOver, Reject
from tests.pipeline import twins
from tests.pipeline.reading import with_options

BITS = ["word ", "b. ", "中文。", "é", "e\u0301", "ﬁ", "，", "\u200b", "\x00", "\n", "\n\n", "&amp; "]
TEXT = st.lists(st.sampled_from(BITS), max_size=20)


def cleaned(text: str, **config) -> list:
    return list(clean([Document(text.encode(), 7, record_id="r")], CleanConfig(**config)))


def one(text: str, **config) -> tuple[str, tuple[str, ...]]:
    [item] = cleaned(text, **config)
    return item.text.decode(), item.cleaned


# ---- steps


def test_the_default_configuration_changes_nothing():
    assert one("  ﬁ\u200b schÃ¶n \x00 ") == ("  ﬁ\u200b schÃ¶n \x00 ", ())


@pytest.mark.parametrize(
    "text, expected",
    [
        ("schÃ¶n", "schön"),
        ("â€œquotedâ€\x9d", "“quoted”"),
        ("a &amp; b", "a & b"),
        ("l’Ã©tÃ©\nDeux.", "l’été\nDeux."),
        ("它说：“你好，世界。”ＡＢＣ", "它说：“你好，世界。”ＡＢＣ"),
        ("“curly” ﬁ\u2028x", "“curly” ﬁ\u2028x"),
    ],
)
def test_fix_text_repairs_wrong_decoding_and_nothing_else(text, expected):
    assert one(text, fix_text=True) == (expected, ("fix-text",) if text != expected else ())


@given(TEXT.map("".join))
def test_unicode_normalization_equals_the_standard_library(text):
    for form in ("NFC", "NFKC"):
        expected = unicodedata.normalize(form, text)
        step = ("unicode-normalization",) if expected != text else ()
        if expected.strip():
            assert one(text, unicode_normalization=form) == (expected.strip() if step else text, step)


def test_invisible_characters_are_removed_as_control_characters():
    text = "a\u200bb\x00c\td\ne\u00adf\ufeff\u2060g\u202eh\x7f\x85i\U000e0041"
    assert one(text, remove_control_characters=True) == ("abc\td\nefghi", ("remove-control-characters",))
    assert one("中文\tplain\n", remove_control_characters=True) == ("中文\tplain\n", ())


def test_a_text_that_cleaning_empties_is_rejected():
    [item] = cleaned("\u200b\x00 \n \u200b", remove_control_characters=True)
    assert item == Reject(
        7, "empty-text", "nothing is left after remove-control-characters", "\u200b\x00 \n \u200b", "r"
    )


def test_a_text_of_white_space_that_is_not_ascii_is_empty_after_cleaning():
    [item] = cleaned("\u2028\x00", remove_control_characters=True)
    assert (item.reason, item.detail) == ("empty-text", "nothing is left after remove-control-characters")


def test_steps_run_in_the_order_of_their_fields():
    text = "&#x200b;e\u0301"
    options = {"fix_text": True, "unicode_normalization": "NFC", "remove_control_characters": True}
    assert one(text, **options) == ("é", ("fix-text", "unicode-normalization", "remove-control-characters"))


# ---- lengths


@pytest.mark.parametrize("length, reason", [(1, "too-short"), (2, "too-short"), (3, ""), (5, ""), (6, "too-long")])
def test_lengths_are_counted_in_characters(length, reason):
    [item] = cleaned("中" * length, min_characters=3, max_characters=5)
    if reason:
        assert item == Reject(7, reason, f"{length} characters", "中" * length, "r")
    else:
        assert item.text.decode() == "中" * length


def test_a_text_in_pieces_exceeds_every_length_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_DOCUMENT_BYTES", 15)
    (tmp_path / "a.txt").write_bytes(b"One two.\nthree four. five\n\nsix")
    [source] = find_sources([str(tmp_path)])
    items = list(read_documents(Split(source, 0, None), None, CleanConfig(max_characters=100)))
    assert [(i.position, i.piece, getattr(i, "reason", "")) for i in items] == [
        (0, 0, "too-long"),
        (0, 1, "too-long"),
        (0, 2, "too-long"),
        (27, 0, ""),
    ]
    assert len(list(read_documents(Split(source, 0, None), None, CleanConfig(min_characters=4)))) == 4


# ---- hard-wrapped lines


def test_wrapped_lines_are_joined_in_every_step(tmp_path):
    """A carriage return is a line break within a paragraph until the steps that look at lines are done."""
    text = "e\u0301\u200b wrapped text.\nFour words are short.\r\nThis has five of them.\nAnd so has this one.\n\n"
    text += "And five words are here."
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}))
    [source] = find_sources([str(tmp_path)])
    wrapped = with_options(source, line_breaks="space")
    options = {"fix_text": True, "unicode_normalization": "NFC", "remove_control_characters": True}
    items = []
    for config in (options, options | {"quality_filter": ("c4",)}):
        items += read_documents(Split(wrapped, 0, None), None, compose(CleanConfig, **config))
    kept = "This has five of them. And so has this one.\nAnd five words are here."
    assert [item.text.decode() for item in items] == [f"é wrapped text. Four words are short. {kept}", kept]
    assert items[1].cleaned == (*items[0].cleaned, "quality-c4")


# ---- pieces


def test_the_pieces_of_a_text_share_the_id_of_the_first_cleaned_one(tmp_path, monkeypatch):
    for module in (records, plain_text):
        monkeypatch.setattr(module, "MAX_DOCUMENT_BYTES", 16)
    (tmp_path / "a.txt").write_bytes("e\u0301 one two.\nthree fou\u0301r. five\n\nsi\u0301x".encode())
    [source] = find_sources([str(tmp_path)])
    config = CleanConfig(unicode_normalization="NFC")
    items = list(read_documents(Split(source, 0, None), None, config))
    assert [item.text.decode() for item in items] == ["é one two.", "three foúr.", "five", "síx"]
    assert [item.source_key for item in items] == [twins.identity("é one two.".encode())] * 3 + [None]
    assert list(read_documents(Split(source, 0, None), 0, config)) == items


def test_the_second_piece_becomes_the_first_when_cleaning_empties_the_first():
    pieces = [Document(text, 0, i, 1) for i, text in enumerate([b"\0", b"two", b"three"])]
    first, *rest = clean(pieces, CleanConfig(remove_control_characters=True))
    assert (first.reason, first.piece) == ("empty-text", 0)
    assert {item.source_key for item in rest} == {twins.identity(b"two")}


@settings(max_examples=100)
@given(text=st.lists(TEXT.map("".join), max_size=6).map("\n\n".join), chunk=st.sampled_from([3, 8, 64]))
def test_cleaned_documents_do_not_depend_on_how_the_file_streams(tmp_path_factory, text, chunk):
    path = tmp_path_factory.getbasetemp() / "streams.txt"
    path.write_bytes(text.encode())
    [source] = find_sources([str(path)])
    config = CleanConfig(fix_text=True, unicode_normalization="NFKC", remove_control_characters=True, min_characters=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MAX_DOCUMENT_BYTES", 24)
        patch.setattr(plain_text, "MAX_DOCUMENT_BYTES", 24)
        whole = list(read_documents(Split(source, 0, None), None, config))
        for module in (streams, plain_text):
            patch.setattr(module, "CHUNK", chunk)
        assert list(read_documents(Split(source, 0, None), None, config)) == whole
        for start in {item.position for item in whole}:
            assert list(read_documents(Split(source, 0, None), start, config)) == [
                i for i in whole if i.position >= start
            ]


# ---- samples

MANY = [Document(b"document %d" % i, i) for i in range(4000)]


def sample(share: float, documents=MANY) -> list[bytes]:
    return [item.text for item in clean(documents, CleanConfig(sample=share)) if isinstance(item, Document)]


def test_a_sample_has_about_its_share_and_is_part_of_a_larger_sample():
    one, ten, half = (set(sample(share)) for share in (0.01, 0.1, 0.5))
    assert one < ten < half
    assert 20 <= len(one) <= 65 and 330 <= len(ten) <= 470 and 1850 <= len(half) <= 2150


def test_a_sample_takes_the_same_documents_in_any_order():
    assert sorted(sample(0.1, MANY[::-1])) == sorted(sample(0.1))


def test_documents_outside_the_sample_are_skipped_and_counted():
    items = list(clean(MANY, CleanConfig(sample=0.25, min_characters=100)))
    passed = [item for item in items if isinstance(item, PassedOver)]
    assert {item.reason for item in passed} == {"not-sampled"} and len(items) == 4000
    assert {item.reason for item in items if isinstance(item, Reject)} == {"too-short"}  # of the sample alone
    assert 800 < len(items) - len(passed) < 1200


def test_a_text_is_sampled_with_all_its_pieces():
    pieces = [Document(b"text %d piece %d" % (i, j), i, j, i + 1) for i in range(400) for j in range(3)]
    taken: dict[int, int] = {}
    for item in clean(pieces, CleanConfig(sample=0.3)):
        taken[item.position] = taken.get(item.position, 0) + isinstance(item, Document)
    assert set(taken.values()) == {0, 3} and 80 < sum(map(bool, taken.values())) < 160


# ---- configuration


@pytest.mark.parametrize(
    "options, said",
    [
        (
            {"sample": 0},
            "--sample 0: expected a share above 0 and at most 1, or a number of documents up to 10,000,000",
        ),
        (
            {"sample": 1.5},
            "--sample 1.5: expected a share above 0 and at most 1, or a number of documents up to 10,000,000",
        ),
        ({"min_characters": -1}, "--min-characters -1: expected 0 to 1000000"),
        ({"max_characters": 0}, "--max-characters 0: expected 1 to 4000000"),
        ({"min_characters": 9, "max_characters": 8}, "--max-characters 8: expected 9 to 4000000"),
    ],
)
def test_an_impossible_option_is_refused(options, said):
    with pytest.raises(ValueError) as error:
        CleanConfig(**options)
    assert str(error.value) == said


def test_a_missing_ftfy_is_reported_before_the_work_begins(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(ValueError, match='--fix-text needs the extra "ftfy"'):
        CleanConfig(fix_text=True)

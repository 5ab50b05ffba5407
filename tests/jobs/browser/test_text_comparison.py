"""The differences of two texts: true on any texts, found by word or by Chinese character, in time that stays linear."""

import difflib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.browser import text_comparison
from jobs.browser.text_comparison import SHOWN_DIFFERENCES, compare


def marked(a, b):
    """Both texts with their differences in brackets."""

    def write(text, ends, spans):
        at, parts = 0, []
        for start, end in spans:
            parts += [text[ends[at] : ends[start]], f"[{text[ends[start] : ends[end]]}]"]
            at = end
        return "".join([*parts, text[ends[at] :]])

    found = compare(a, b)
    return (
        write(a, found.a_ends, [(d.a_start, d.a_end) for d in found.differences]),
        write(b, found.b_ends, [(d.b_start, d.b_end) for d in found.differences]),
    )


def test_differences_are_whole_words():
    assert marked("We hold these truths.", "We held these truths, too.") == (
        "We [hold] these truths[].",
        "We [held] these truths[, too].",
    )


def test_in_chinese_differences_are_characters():
    assert marked("天地玄黄，宇宙洪荒。", "天地元黄，宇宙洪荒！") == (
        "天地[玄]黄，宇宙洪荒[。]",
        "天地[元]黄，宇宙洪荒[！]",
    )


def test_several_words_in_a_row_are_one_difference():
    assert marked("a one two three b", "a four five six b") == ("a [one two three] b", "a [four five six] b")


def test_equal_texts_have_no_difference_and_disjoint_ones_have_one():
    assert compare("the same", "the same").differences == []
    assert compare("", "").differences == []
    assert marked("one", "两") == ("[one]", "[两]")
    assert marked("", "new text") == ("[]", "[new text]")


def units_of(found):
    pieces_a = [found.a[found.a_ends[i] : found.a_ends[i + 1]] for i in range(len(found.a_ends) - 1)]
    pieces_b = [found.b[found.b_ends[i] : found.b_ends[i + 1]] for i in range(len(found.b_ends) - 1)]
    return pieces_a, pieces_b


@given(st.text(), st.text())
def test_units_are_all_of_a_text(a, b):
    pieces_a, pieces_b = units_of(compare(a, b))
    assert "".join(pieces_a) == a and "".join(pieces_b) == b


@given(st.lists(st.sampled_from("abcdefgh一二三 .\n"), max_size=120).map("".join), st.randoms(use_true_random=False))
def test_what_is_not_marked_is_equal_and_little_is_marked(text, draw):
    """Compared with difflib on all units, which finds what a short text shares."""
    other = list(text)
    for _ in range(draw.randint(0, 6)):
        at = draw.randint(0, len(other))
        other[at : at + draw.randint(0, 3)] = draw.choices("abx四 ", k=draw.randint(0, 4))
    found = compare(text, "".join(other))
    a, b = units_of(found)
    at_a = at_b = num_marked = 0
    for d in found.differences:
        assert a[at_a : d.a_start] == b[at_b : d.b_start]
        assert d.a_start >= at_a and d.b_start >= at_b and (d.a_end > d.a_start or d.b_end > d.b_start)
        at_a, at_b = d.a_end, d.b_end
        num_marked += d.a_end - d.a_start + d.b_end - d.b_start
    assert a[at_a:] == b[at_b:]
    codes = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    twin = sum(i2 - i1 + j2 - j1 for kind, i1, i2, j1, j2 in codes if kind != "equal")
    assert num_marked <= 3 * twin + 40


def long_texts(number):
    draw = random.Random(3)
    words = [f"w{draw.randint(0, 4000)}" for _ in range(number)]
    other = [*words]
    changed = sorted(draw.sample(range(0, number, 3), number // 300))
    for at in changed:
        other[at] = "changed"
    return " ".join(words), " ".join(other), len(changed)


def test_texts_of_four_megabytes_are_compared():
    a, b, number = long_texts(700_000)
    assert len(a) > 3_800_000
    found = compare(a, b)
    assert len(found.differences) == number
    assert all(d.a_end - d.a_start == d.b_end - d.b_start == 1 for d in found.differences)


def test_texts_that_difflib_could_not_compare_are_marked_as_a_whole(monkeypatch):
    monkeypatch.setattr(text_comparison, "MOST_PAIRS", 100)
    a, b = "ab " * 40_000, "ba " * 40_000
    found = compare(f"same {a}end", f"same {b}end")
    assert len(found.differences) == 1


@pytest.mark.parametrize("number", [3000, 40_000])
def test_the_rows_of_all_pages_show_each_difference_once(number):
    a, b, count = long_texts(number)
    found = compare(a, b)
    shown = 0
    text_a, text_b = [], []
    for first in range(0, len(found.differences), SHOWN_DIFFERENCES):
        for row in found.rows(first):
            shown += sum(piece.is_different for piece in row.b)
            text_a.append(row.skipped + sum(len(piece.text) for piece in row.a))
            text_b.append(row.skipped + sum(len(piece.text) for piece in row.b))
            assert "".join(piece.text for piece in row.a) in a and "".join(piece.text for piece in row.b) in b
            same = [piece.text for piece in row.a if not piece.is_different]
            assert same == [piece.text for piece in row.b if not piece.is_different]
    assert shown == count
    assert sum(text_a) == len(a) and sum(text_b) == len(b)


def test_a_long_difference_is_cut_and_the_rest_counted():
    row, _ = compare("a", "a " + "word " * 10_000).rows(0)
    assert sum(len(piece.text) for piece in row.b) < 2000 and sum(piece.hidden for piece in row.b) > 40_000

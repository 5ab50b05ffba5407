"""The words of texts as arrays, against the twin that looks at each character."""

import unicodedata

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.text.words import change_text, find_words
from tests.pipeline.twins_of_exclusion import words_of

MIXED = st.text(
    st.one_of(
        st.sampled_from("aZ09 .,\n\r\t-_'\"éÉßİıſΣςＡｚ９，。！　中国々ーかガｶﾞﾊﾟ゛゙́̈­​﻿①½ﬁ㎡한한ĳजि𝐀𠮷🙂\0\x01="),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)


def words(texts):
    found = find_words([text.encode() for text in texts])
    split = [[] for _ in texts]
    for number, text in enumerate(found.texts):
        split[text].append(found.word(number))
    return split


def test_letters_widths_and_punctuation_do_not_matter():
    assert words(["Don't PANIC — ｆｕｌｌ\nwidth, soft­ware"]) == [["don", "t", "panic", "full", "width", "software"]]


def test_a_chinese_character_or_kana_is_a_word_and_other_letters_are_runs():
    assert words(["BERT是一个模型（2018年）。ｶﾞか한국어"]) == [[*"bert 是 一 个 模 型 2018 年 ガ か 한국어".split()]]


@given(st.lists(MIXED, min_size=1, max_size=5))
@example(["́", "="])
@example(["a\n", "̸b", ""])
@example(["ẞ" * 9, "x" * 17])
def test_words_equal_those_of_the_twin(texts):
    assert words(texts) == [words_of(text) for text in texts]


def test_every_character_has_the_words_of_the_twin():
    texts = [f"a{chr(point)}b" for point in range(0x110000) if unicodedata.category(chr(point)) not in ("Cs", "Cn")]
    found = words(texts)
    assert [text for text, some in zip(texts, found) if some != words_of(text)] == []


@given(MIXED, MIXED)
def test_hashes_are_equal_exactly_where_words_are(first, second):
    found = find_words([first.encode(), second.encode()])
    for seed in (np.uint64(1), np.uint64(2)):
        hashes = found.hashes(seed).tolist()
        names = [found.word(number) for number in range(len(hashes))]
        assert len(set(zip(names, hashes))) == len(set(names)) == len(set(hashes))


@given(MIXED)
def test_changed_lines_are_the_lines_of_the_changed_text(text):
    assert [change_text(line) for line in text.split("\n")] == change_text(text).split("\n")

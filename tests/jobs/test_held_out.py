"""The windows and masked words of a held-out text."""

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.implementations import BertWordPieceTokenizer

from bertloom.tokenizer_files import parse_tokenizer
from jobs.support.held_out import (
    choose_passages,
    cut_passages,
    cut_windows,
    first_words,
    read_held_out,
    tokens_of_units,
)
from model.hub.tokenizer import TextTokenizer
from model.tasks.tag import words_in
from pipeline.inputs.sources import ReadConfig
from tests.model.small_task import SPECIAL, small_tokenizer

TEXT = st.text(st.sampled_from("ab .,北京é\u0301\u200b_7"), max_size=40)


def tokenizer_of(words: list[str], lowercase: bool = True) -> TextTokenizer:
    """A BERT's tokenizer with these words."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words])}
    content = BertWordPieceTokenizer(vocabulary, lowercase=lowercase).to_str().encode()
    return TextTokenizer(parse_tokenizer(content, "words"))


def whole_text_tokenizer() -> SimpleNamespace:
    """A tokenizer whose tokens cross the borders of words: ", and" is one."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, ", and", "a", "b", " ", "c", ","])}
    merges = [(",", " "), (", ", "a"), (", a", "n"), (", an", "d")]
    for first, second in merges:
        for piece in (first, second, first + second):
            vocabulary.setdefault(piece, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("zzz", "isolated")
    return SimpleNamespace(tokenizer=tokenizer)


@given(TEXT, st.integers(2, 9))
def test_passages_are_the_text_without_the_spaces_between_them(text, size):
    parts = list(cut_passages(text, size))
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(0 < len(part) <= size and part == part.strip() for part in parts)


@given(st.lists(TEXT, max_size=8), st.integers(1, 60), st.randoms())
def test_the_chosen_passages_are_those_with_the_smallest_keys_in_whatever_order_they_come(texts, size, random):
    documents = list(enumerate(texts))
    chosen = [(one.key, one.text) for one in choose_passages(documents, 6, size)]
    everything = [(one.key, one.text) for one in choose_passages(documents, 6, 1 << 30)]
    assert everything == sorted(set(everything)) and chosen == everything[: len(chosen)]
    if everything:
        assert chosen and (len(chosen) == 1 or sum(len(text.encode()) for _, text in chosen) <= size)
        next_one = [text for _, text in everything[: len(chosen) + 1]]
        assert len(chosen) == len(everything) or sum(len(text.encode()) for text in next_one) > size
    random.shuffle(documents)
    assert [(one.key, one.text) for one in choose_passages(documents, 6, size)] == chosen


def units_by_hand(words, spans):
    """Words are joined one by one, until no token touches two units."""
    units = [[tuple(word)] for word in words]
    for span in spans:
        for begin, end in span:
            touched = [unit for unit in units if unit[0][0] < end and unit[-1][1] > begin]
            if len(touched) > 1:
                place = units.index(touched[0])
                units[place : place + len(touched)] = [[word for unit in touched for word in unit]]
    return [(unit[0][0], unit[-1][1]) for unit in units]


@st.composite
def words_and_spans(draw):
    borders = sorted(draw(st.sets(st.integers(0, 30), min_size=2, max_size=14)))
    words = [(begin, end) for begin, end in zip(borders, borders[1:]) if draw(st.booleans())]
    spans = []
    for _ in range(2):
        places = sorted(draw(st.sets(st.integers(0, 30), min_size=2, max_size=14)))
        spans.append([pair for pair in zip(places, places[1:]) if draw(st.booleans())])
    return words, spans


@given(words_and_spans())
def test_no_token_of_any_model_crosses_a_border_of_a_unit(case):
    words, spans = case
    if not words:
        return
    arrays = np.array(words), [np.array(span, np.int64).reshape(-1, 2) for span in spans]
    firsts = first_words(*arrays)
    lasts = [*firsts[1:], len(words)]
    units = [(words[first][0], words[last - 1][1]) for first, last in zip(firsts, lasts)]
    assert units == units_by_hand(words, spans)
    for span in arrays[1]:
        begins, ends = tokens_of_units(np.array(units), span)
        for (begin, end), first, last in zip(units, begins, ends):
            own = [number for number, (a, b) in enumerate(span.tolist()) if a < end and b > begin]
            assert list(range(first, last)) == own if own else first == last
        assert (begins[1:] >= ends[:-1]).all()


def test_all_models_read_the_same_words():
    text = "Anna, and good 北京 films, and bad films, and Paris! a b c " * 4
    tokenizers = [small_tokenizer(), tokenizer_of(["good", "bad", "a", "b", "c", ","], False), whole_text_tokenizer()]
    passages = choose_passages([(5, text)], 1000, 1 << 20)
    windows, num_long = cut_windows(passages, tokenizers, 40)
    assert num_long == 0 and len(windows) > 3 and {window.document for window in windows} == {5}
    assert [word for window in windows for word in window.words][:6] == ["Anna", ", and", "good", "北", "京", "films"]
    for window in windows:
        for ids, offsets, begins, ends in window.tokens:
            assert len(ids) <= 38 and len(ids) == len(offsets) and begins[0] == 0 and ends[-1] == len(ids)
            for (begin, end), first, last in zip(window.units, begins, ends):
                assert window.text[offsets[first, 0] : offsets[last - 1, 1]].strip() == window.text[begin:end]
        first, last = window.units[0, 0], window.units[-1, 1]
        alone = tokenizers[0].ids([window.text[first:last]])[0]
        assert alone.tolist() == window.tokens[0].ids.tolist()
    alone, _ = cut_windows(passages, tokenizers[:1], 40)
    chosen = {
        begin for window in alone for (begin, _), masked in zip(window.units.tolist(), window.is_masked) if masked
    }
    for window in windows:  # another set of models moves no mask, except where words are joined
        for (begin, _), masked in zip(window.units.tolist(), window.is_masked):
            assert masked == (begin in chosen)


def test_about_a_seventh_of_the_words_is_masked_and_very_long_ones_never():
    text = " ".join(f"w{number}" for number in range(3000)) + " " + " ".join("x" * 101 + str(i) for i in range(200))
    windows, _ = cut_windows(choose_passages([(1, text)], 300, 1 << 20), [tokenizer_of(["a"])], 32)
    masked = [word for window in windows for word, is_masked in zip(window.words, window.is_masked) if is_masked]
    assert 400 < len(masked) < 500 and all(len(word) < 10 for word in masked)


def test_a_word_that_does_not_fit_in_a_window_is_left_out_for_all_models():
    passages = choose_passages([(1, "good " + "q" * 20 + " bad film")], 1000, 1 << 20)
    windows, num_long = cut_windows(passages, [small_tokenizer(), tokenizer_of(["good"])], 16)
    assert [window.words for window in windows] == [["good"], ["bad", "film"]] and num_long == 1


def test_files_of_every_format_are_read_and_what_is_not_used_is_counted(tmp_path):
    (tmp_path / "a.txt").write_text("one text\n\nanother text\n")
    rows = [{"text": "a third"}, {"text": ""}, {"other": 1}]
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    held = read_held_out([str(tmp_path)], ReadConfig(), 16, 1 << 20)
    assert sorted(passage.text for passage in held.passages) == ["a third", "another text", "one text"]
    assert held.num_documents == 3 and held.num_bytes == 27 and sum(held.not_used.values()) == 2
    assert len({passage.document for passage in held.passages}) == 3


def test_a_text_that_is_empty_or_not_there_is_named(tmp_path):
    (tmp_path / "empty.jsonl").write_text('{"text": " "}\n')
    with pytest.raises(ValueError, match=r"--text \S*empty.jsonl has no text; 1 records are empty-text: give files"):
        read_held_out([str(tmp_path / "empty.jsonl")], ReadConfig(), 16, 100)
    with pytest.raises(ValueError, match=r"--text \S*nowhere.txt"):
        read_held_out([str(tmp_path / "nowhere.txt")], ReadConfig(), 16, 100)


@given(TEXT)
def test_every_visible_character_is_in_a_word_or_joins_two(text):
    covered = {place for begin, end in words_in(text) for place in range(begin, end)}
    assert {text[place] for place in set(range(len(text))) - covered} <= {" ", "\u200b", "\u0301"}

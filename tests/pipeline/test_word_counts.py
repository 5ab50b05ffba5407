"""Words of a corpus: counted as BERT cuts them, added up exactly however they are dealt out, in bounded memory."""

import json
import pickle
import random
from collections import Counter

import apache_beam as beam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.execution import pipeline_options, run
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.sources import Source
from pipeline.inputs.splitting import group_splits, split_source
from pipeline.stages.word_counts import (
    AddWordCounts,
    CountWords,
    Tally,
    WordCounts,
    most_frequent,
    read_counts,
)
from pipeline.stages.word_cuts import BertWords, PreTokenWords, count_words, cut_of
from pipeline.text.cleaning import CleanConfig
from pipeline.text.records import PassedOver
from pipeline.vocabulary import make_tokenizer
from tests.pipeline.small_text import ODD_TEXT, VOCABULARY


def slowly_counted(texts, do_lower_case, strip_accents):
    """The twin of count_words: every text through the tokenizer's own normalizer and pre-tokenizer."""
    tokenizer = make_tokenizer(VOCABULARY, do_lower_case, strip_accents)
    counts = Counter()
    for text in texts:
        words = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        counts.update(word if len(word) <= 100 else 101 * _first_letter(word) for word, _ in words)
    return counts


def _first_letter(word):
    return ([c for c in word if c.isalpha()] + [c for c in word if c.isdigit()] + [word[0]])[0]


@settings(max_examples=50, deadline=None)
@given(st.lists(ODD_TEXT), st.booleans(), st.sampled_from([None, True, False]))
def test_words_are_counted_as_bert_separates_them(texts, do_lower_case, strip_accents):
    counts = count_words([text.encode() for text in texts], do_lower_case, strip_accents)
    assert counts == slowly_counted(texts, do_lower_case, strip_accents)


def test_chinese_characters_and_punctuation_are_words():
    assert count_words(["中文,中 abc".encode()], True, None) == {"中": 2, "文": 1, ",": 1, "abc": 1}


@given(st.lists(ODD_TEXT), st.booleans(), st.sampled_from([None, True, False]))
def test_words_of_any_tokenizer_are_what_its_normalizer_and_pre_tokenizer_give(texts, do_lower_case, strip_accents):
    content = json.loads(make_tokenizer(VOCABULARY, do_lower_case, strip_accents).to_str())
    assert cut_of(content) == BertWords(do_lower_case, strip_accents)
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [content["pre_tokenizer"]]}
    cut = cut_of(content)
    assert isinstance(cut, PreTokenWords)
    counter = pickle.loads(pickle.dumps(cut)).counter()
    for text in texts:
        counter.add(text.encode())
    tokenizer = make_tokenizer(VOCABULARY, do_lower_case, strip_accents)
    words = [tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)) for text in texts]
    parts = (word[at : at + 256] for found in words for word, _ in found for at in range(0, len(word), 256))
    assert counter.take() == Counter(parts) and not counter.take()


def test_only_the_script_of_a_word_that_is_too_long_is_kept():
    texts = [("ด" + "กขค"[i] * 154).encode() for i in range(3)] + [
        b"a" * 100,
        b"b" * 101,
        b"1" * 200,
        b"1" * 200 + b"c",
    ]
    counts = {"ด" * 101: 3, "a" * 100: 1, "b" * 101: 1, "1" * 101: 1, "c" * 101: 1}
    assert count_words(texts, True, None) == counts


def test_a_unit_table_that_overflows_changes_no_count(monkeypatch):
    texts = [f"{'word ' * 300_000} {i} end{i}".encode() for i in range(3)]
    whole = count_words(texts, True, None)
    monkeypatch.setattr("pipeline.stages.word_cuts.MAX_UNITS", 2)
    assert count_words(texts, True, None) == whole


ODD_WORDS = ["a", "b", "中", "\u2028", "é", "z" * 9, "\x85", "ab", "\U0001f600"]
WORDS = st.dictionaries(st.sampled_from(ODD_WORDS), st.integers(1, 9))


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(WORDS, max_size=6), held=st.integers(0, 6), limit=st.integers(1, 10), seed=st.integers(0, 99))
def test_the_sum_is_exact_in_any_order_and_with_any_memory_limit(tmp_path_factory, parts, held, limit, seed):
    expected = Counter()
    for part in parts:
        expected.update(part)
    add = AddWordCounts(str(tmp_path_factory.mktemp("counts")))
    draw = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.stages.word_counts.MAX_HELD_WORDS", held)
        totals = [add.create_accumulator() for _ in range(3)]
        for part in draw.sample(parts, len(parts)):
            at = draw.randrange(3)
            totals[at] = add.add_input(totals[at], WordCounts(Counter(part)))
        total = add.extract_output(add.merge_accumulators(totals))
    assert len(total.words) <= held
    ordered = sorted(expected.items(), key=lambda item: (-item[1], item[0]))
    assert list(most_frequent(total, limit).items()) == ordered[:limit]


def test_records_not_used_are_counted_and_the_first_of_each_kind_is_kept():
    first, second = (
        Tally(1, 5, Counter(a=1), {"a": ("x", 9, "later")}),
        Tally(2, 7, Counter(a=2), {"a": ("x", 3, "first")}),
    )
    first.update(second)
    assert first == Tally(3, 12, Counter(a=3), {"a": ("x", 3, "first")})


def test_every_record_that_is_left_out_is_counted():
    tally = Tally()
    for skipped in (PassedOver(0, "empty-record", number=3), PassedOver(9, "empty-record"), PassedOver(9, "header")):
        tally.add(Source("a.jsonl", "a.jsonl", "jsonl", None, None, 9, ""), skipped)
    assert tally == Tally(not_used=Counter({"empty-record": 4, "header": 1}))


@pytest.mark.parametrize("num_workers, split_bytes", [(1, 1 << 20), (1, 300), (2, 500)])
def test_counts_do_not_depend_on_the_numbers_of_workers_and_splits(tmp_path, monkeypatch, num_workers, split_bytes):
    monkeypatch.setattr("pipeline.stages.word_cuts.MAX_UNITS", 20)  # of workers in this process
    draw = random.Random(1)
    texts = [" ".join(f"w{draw.randrange(60)}" for _ in range(30)) for _ in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "no json\n")
    (source,) = find_sources([str(tmp_path / "a.jsonl")], [])
    groups = group_splits(split_source(source, split_bytes), split_bytes)
    work = tmp_path / "work"
    work.mkdir()
    run(
        pipeline_options(num_workers, ()),
        lambda p: (
            p | beam.Create(groups) | CountWords(str(work), CleanConfig(), BertWords(True, None), str(work / "log"))
        ),
    )
    words, tally = read_counts(str(work))
    assert words == Counter(" ".join(texts).split())
    assert (tally.documents, tally.bytes, tally.not_used) == (40, sum(map(len, texts)), {"not-json": 1})
    assert "a.jsonl, byte" in tally.first["not-json"][2] and "no json" in tally.first["not-json"][2]

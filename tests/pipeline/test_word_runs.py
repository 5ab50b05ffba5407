"""The search for runs of words that test sets hold, against sets of tuples of words."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.draws import mix_in_place
from pipeline.text.word_runs import FIRST, RUN, SECOND, ExcludedSet, RunIndex, run_hashes, runs_of
from pipeline.text.words import find_words
from tests.pipeline.twins_of_exclusion import sets_of_pieces, sets_shared

SENTENCE = "the cat sat on the mat while a dog slept near the old warm stove"
WORDS = st.sampled_from(["a", "b", "中", "か", "Ｂ", "c's", "averyverylongwordindeed"])
TEXT = st.lists(WORDS, max_size=40).map(" ".join)


def index_of(test_sets):
    """The index of name -> texts."""
    sets, rows, places = [], [np.zeros(0, RUN)], []
    for name, texts in sorted(test_sets.items()):
        sets.append(ExcludedSet(name, len(places), len(texts), 0))
        rows.append(runs_of(find_words([text.encode() for text in texts]), len(places) + np.arange(len(texts))))
        places += [f"line {i}" for i in range(len(texts))]
    return RunIndex.of(sets, places, np.concatenate(rows))


def search(index, texts, chains=None):
    found = [[] for _ in texts]
    for one in index.search(find_words([text.encode() for text in texts]), chains):
        found[one.text].append(index.sets[one.set].name)
    return found


def test_thirteen_words_are_found_and_twelve_are_not():
    words = SENTENCE.split()
    index = index_of({"test": [SENTENCE]})
    texts = [f"x {' '.join(words[i : i + n])} y" for n in (12, 13) for i in (0, 1)]
    assert search(index, texts) == [[], [], ["test"], ["test"]]


def test_the_first_text_of_a_set_and_the_run_are_named():
    index = index_of({"a": ["short", SENTENCE], "b": [SENTENCE.upper(), SENTENCE]})
    words = find_words([b"nothing here", f"he said: {SENTENCE}".encode()])
    found = index.search(words)
    assert [(one.text, index.sets[one.set].name, index.places[one.at]) for one in found] == [
        (1, "a", "line 1"),
        (1, "b", "line 0"),
    ]
    assert words.word(found[0].word) == "the"


def test_a_run_does_not_reach_from_one_text_into_the_next():
    words = SENTENCE.split()
    halves = [" ".join(words[:7]), " ".join(words[7:])]
    index = index_of({"test": [SENTENCE]})
    assert search(index, halves) == [[], []]
    assert search(index, halves, np.array([0, 0])) == [["test"], ["test"]]
    assert search(index_of({"test": halves}), [SENTENCE]) == [[]]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("xyz"), st.lists(TEXT, max_size=3), min_size=1), st.lists(TEXT, min_size=1))
def test_the_search_equals_the_twin(test_sets, texts):
    assert search(index_of(test_sets), texts) == [sets_shared(text, test_sets) for text in texts]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("xy"), st.lists(TEXT, max_size=3), min_size=1), st.lists(TEXT, min_size=1))
def test_the_search_in_pieces_of_one_document_equals_the_twin(test_sets, pieces):
    found = search(index_of(test_sets), pieces, np.zeros(len(pieces), np.int64))
    assert found == sets_of_pieces(pieces, test_sets)


def test_an_equal_first_hash_alone_leaves_nothing_out():
    index = index_of({"test": [SENTENCE]})
    other = find_words([b"w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13"])
    [first] = run_hashes(other.hashes(FIRST), FIRST)
    same = replace(index, first=np.full_like(index.first, first))
    assert same.search(other) == []
    [second] = run_hashes(mix_in_place(other.hashes(SECOND) ^ SECOND), SECOND)
    assert len(replace(same, second=np.full_like(index.second, second)).search(other)) == 1


def test_an_index_from_bytes_is_the_same():
    index = index_of({"a": [SENTENCE], "b": ["中" * 13, SENTENCE]})
    again = RunIndex.from_bytes(b"".join(index.to_chunks()))
    assert (again.sets, again.places, again.sha256) == (index.sets, index.places, index.sha256)
    assert index.num_runs == [3, 4]
    assert pickle.loads(pickle.dumps(again)).sha256 == index.sha256


def test_an_index_without_runs_finds_nothing():
    assert search(index_of({"a": ["too short"]}), [SENTENCE, ""]) == [[], []]


@pytest.mark.parametrize("change", ["name", "place", "text"])
def test_the_digest_covers_names_places_and_runs(change):
    sets = {"a": [SENTENCE]}
    other = {"name": {"b": [SENTENCE]}, "place": {"a": ["x", SENTENCE]}, "text": {"a": [SENTENCE + " x"]}}[change]
    assert index_of(sets).sha256 != index_of(other).sha256

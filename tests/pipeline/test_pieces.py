import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text import pieces
from pipeline.text.pieces import GreedyPieces, is_short, slots

LETTERS = st.text("ab7", min_size=1, max_size=pieces.MAX_BYTES)


def greedy(word: str, ids: dict[str, int]) -> list[int]:
    """The obvious twin: BERT's longest match first (google-research/bert, tokenization.py)."""
    found, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            name = ("##" if start else "") + word[start:end]
            if name in ids:
                break
        else:
            return [ids["[UNK]"]]
        found.append(ids[name])
        start = end
    return found


@settings(max_examples=300)
@given(first=st.sets(LETTERS, min_size=1), inside=st.sets(LETTERS), words=st.lists(LETTERS))
def test_pieces_equal_the_greedy_longest_match(first, inside, words):
    names = ["[UNK]", *sorted(first), *(f"##{name}" for name in sorted(inside))]
    ids = {name: i for i, name in enumerate(names)}
    found, sizes = GreedyPieces(ids)(words)
    expected = [greedy(word, ids) for word in words]
    assert sizes.tolist() == [len(each) for each in expected]
    assert found.tolist() == [i for each in expected for i in each]


def test_pieces_with_the_same_hash_are_distinguished(monkeypatch):
    monkeypatch.setattr(pieces, "SLOT_BITS", 1)
    ids = {"[UNK]": 0, "a": 1, "##a": 2, "b": 3, "##b": 4, "ab": 5, "##ab": 6}
    found, sizes = GreedyPieces(ids)(["aba", "ab", "bab", "cab"])
    assert (found.tolist(), sizes.tolist()) == ([5, 2, 5, 3, 6, 0], [2, 1, 2, 1])


def test_words_of_the_vocabulary_that_are_not_short_are_ignored():
    ids = {"[UNK]": 0, "##": 1, "#": 2, "a\0": 3, "é": 4, "a" * 17: 5, "": 6, "a": 7}
    assert GreedyPieces(ids)(["a", "aa"])[0].tolist() == [7, 0]


@pytest.mark.parametrize(
    "word, short",
    [
        ("a", True),
        ("Z9" * 8, True),
        ("a" * 17, False),
        ("", False),
        ("é", False),
        ("²", False),
        ("a-b", False),
        ("a\0", False),
    ],
)
def test_short_words_are_a_few_ascii_letters_and_digits(word, short):
    assert is_short(word) is short


def test_slots_are_within_the_table():
    keys = np.random.default_rng(1).integers(0, 2**64, (2, 1000), np.uint64)
    for bits in (1, 18):
        assert slots(keys, bits).min() >= 0 and slots(keys, bits).max() < 1 << bits

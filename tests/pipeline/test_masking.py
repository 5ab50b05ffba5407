from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.draws import choose, fold
from bertloom.mask_counts import default_max_predictions, mask_counts
from pipeline.examples.masking import masks
from pipeline.examples.masking.masks import Masking
from pipeline.examples.masking.tokens import TOKENS
from tests.pipeline import twins_of_pairs as twins
from tests.pipeline.small_text import VOCABULARY

KEYS = st.integers(0, 2**64 - 1)
ORDINARY = [i for i, word in enumerate(VOCABULARY.words) if word[0] != "[" or word[-1] != "]" or len(word) < 3]
PROBABILITIES = st.sampled_from([0.01, 0.15, 0.2, 0.5, 1.0])


def mask_examples(examples: list[tuple[list[int], list[int]]], keys: list[int], prob: float, most: int):
    """(input ids, masked_lm_positions, masked_lm_ids) of each [CLS] A [SEP] B [SEP], and each before it was masked."""
    plain = [[VOCABULARY.cls, *a, VOCABULARY.sep, *b, VOCABULARY.sep] for a, b in examples]
    ends = np.cumsum([len(ids) for ids in plain])
    flat = np.array([i for ids in plain for i in ids], np.uint16)
    a_length, b_length = (np.array(sizes) for sizes in zip(*((len(a), len(b)) for a, b in examples)))
    counts = mask_counts(max(map(len, plain)), prob, most)
    masking = Masking(TOKENS, counts, most, VOCABULARY)
    starts = ends - a_length - b_length - 3
    positions, originals, number = masks.mask_examples(
        flat, np.ones(len(flat), bool), starts, a_length, b_length, np.array(keys, np.uint64), masking
    )
    edges = np.cumsum([0, *number])
    masked = [
        (flat[start:end].tolist(), positions[first:last].tolist(), originals[first:last].tolist())
        for start, end, first, last in zip(starts, ends, edges, edges[1:])
    ]
    return masked, plain


SEGMENT = st.lists(st.sampled_from(ORDINARY), min_size=1, max_size=40)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.tuples(SEGMENT, SEGMENT), KEYS), min_size=1, max_size=6), PROBABILITIES, st.integers(1, 90)
)
def test_masks_equal_their_twin_example_by_example(rows, prob, most):
    examples, keys = zip(*rows)
    masked, plain = mask_examples(examples, keys, prob, most)
    for (a, _), key, ids, found in zip(examples, keys, plain, masked):
        count = twins.num_masks(len(ids), prob, most)
        assert found == twins.mask(ids, len(a) + 2, key, count, most, VOCABULARY.mask, ORDINARY)


@settings(max_examples=200)
@given(st.lists(st.tuples(KEYS, st.integers(0, 60), st.integers(0, 60)), max_size=8))
def test_choosing_without_replacement_equals_floyds_algorithm(rows):
    rows = [(key, size, min(count, size)) for key, size, count in rows]
    keys, sizes, counts = (np.array([row[i] for row in rows], kind) for i, kind in enumerate((np.uint64, int, int)))
    found_rows, numbers = choose(keys, sizes, counts)
    wanted = [(i, number) for i, row in enumerate(rows) for number in twins.choose(*row)]
    assert list(zip(found_rows.tolist(), numbers.tolist())) == wanted


def test_every_choice_is_equally_likely():
    """All 20 ways to choose 3 of 6, drawn 20,000 times; chi-squared with 19 degrees of freedom, one in a thousand."""
    n = 20_000
    rows, numbers = choose(fold(np.arange(n)), np.full(n, 6), np.full(n, 3))
    assert rows.tolist() == np.repeat(np.arange(n), 3).tolist()
    _, seen = np.unique(numbers.reshape(n, 3) @ [100, 10, 1], return_counts=True)
    assert len(seen) == 20
    assert ((seen - n / 20) ** 2 / (n / 20)).sum() < 43.8


@given(st.integers(3, 600), st.sampled_from([0.01, 0.1, 0.15, 0.2, 1.0]), st.integers(1, 600))
def test_the_number_of_masks_equals_the_formula(length, prob, most):
    counts = mask_counts(length, prob, most)
    for n in range(5, length + 1):
        wanted = max(1, (n * Fraction(str(prob)) + Fraction(1, 2)).__floor__())
        assert counts[n] == min(most, wanted) or n - 3 < wanted


@pytest.mark.parametrize(
    "n, prob, expected", [(10, 0.15, 2), (30, 0.15, 5), (50, 0.15, 8), (70, 0.15, 11), (128, 0.15, 19), (5, 0.01, 1)]
)
def test_halves_are_rounded_up(n, prob, expected):
    """10, 30, 50 and 70 tokens want 1.5, 4.5, 7.5 and 10.5 masks; Python's round would say 2, 4, 8 and 10."""
    assert mask_counts(n, prob, 100)[n] == expected


@pytest.mark.parametrize("length, prob, expected", [(128, 0.15, 20), (512, 0.15, 78), (64, 0.15, 11), (512, 0.4, 206)])
def test_the_default_for_max_predictions(length, prob, expected):
    assert default_max_predictions(length, prob) == expected
    assert mask_counts(length, prob, expected)[length] <= expected


def test_an_example_never_has_more_masks_than_words():
    masked, _ = mask_examples([([9], [9]), ([9], [9, 9])], [1, 2], 1.0, 50)
    assert [positions for _, positions, _ in masked] == [[1, 3], [1, 3, 4]]


@pytest.fixture(scope="module")
def many():
    """2,000 examples of 100 tokens, half of them masked."""
    words = [ORDINARY[(7 * i) % len(ORDINARY)] for i in range(97)]
    return mask_examples([(words[:40], words[40:])] * 2000, fold(np.arange(2000)).tolist(), 0.5, 50)


def test_eight_of_ten_masks_are_mask_one_is_random_and_one_is_kept(many):
    masked, plain = many
    kinds = {"mask": 0, "kept": 0, "random": 0}
    for (ids, positions, originals), before in zip(masked, plain):
        for at, original in zip(positions, originals):
            assert original == before[at]
            kinds["mask" if ids[at] == VOCABULARY.mask else "kept" if ids[at] == original else "random"] += 1
    total = sum(kinds.values())
    assert total == 2000 * 50
    for kind, share in (("mask", 0.8), ("random", 0.1), ("kept", 0.1)):
        assert abs(kinds[kind] / total - share) < 4 * (share * (1 - share) / total) ** 0.5 + 0.1 / len(ORDINARY)


def test_only_masked_tokens_change_and_special_tokens_never(many):
    masked, plain = many
    for (ids, positions, _), before in zip(masked, plain):
        assert positions == sorted(set(positions))
        assert all(ids[at] == before[at] for at in range(len(ids)) if at not in positions)
        assert (ids[0], ids[41], ids[-1]) == (VOCABULARY.cls, VOCABULARY.sep, VOCABULARY.sep)
        assert not {0, 41, len(ids) - 1} & set(positions)


def test_random_words_are_all_words_except_special_and_unused_ones(many):
    masked, plain = many
    seen = {
        ids[at]
        for (ids, positions, _), before in zip(masked, plain)
        for at in positions
        if ids[at] not in (VOCABULARY.mask, before[at])
    }
    assert seen == set(ORDINARY)
    assert not any(VOCABULARY.words[i].startswith(("[unused", "[PAD", "[CLS")) for i in seen)


def test_every_position_is_masked_equally_often(many):
    masked, _ = many
    counts = np.bincount([at for _, positions, _ in masked for at in positions], minlength=100)
    inside = np.delete(counts, [0, 41, 99])
    wanted = 2000 * 50 / 97
    assert abs(inside - wanted).max() < 5 * (wanted * (1 - 50 / 97)) ** 0.5


def test_an_unknown_word_may_be_masked():
    masked, _ = mask_examples([([VOCABULARY.unk] * 5, [VOCABULARY.unk] * 5)], [3], 1.0, 50)
    assert masked[0][2] == [VOCABULARY.unk] * 10

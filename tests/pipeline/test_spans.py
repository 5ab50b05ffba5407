"""Masks of spans: against their twin example by example, and what they promise."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.draws import fold
from bertloom.mask_counts import mask_counts
from pipeline.examples.masking.masks import Masking
from pipeline.examples.masking.masks import mask_examples as mask_batch
from pipeline.examples.masking.spans import LENGTHS, MAX_WORDS, SPANS, choose_spans, cut_into_spans
from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary
from tests.pipeline import twins_of_options as twins

KEYS = st.integers(0, 2**64 - 1)
VOCABULARY = Vocabulary((*SPECIAL_WORDS, *(f"w{i}" for i in range(40)), *(f"##p{i}" for i in range(20))))
FIRST_WORD, FIRST_PIECE, END = 5, 45, 65
ORDINARY = VOCABULARY.ordinary.tolist()
CHANCES = [float(twins.share_up_to(k) - twins.share_up_to(k - 1)) for k in range(1, MAX_WORDS + 1)]


def mask_examples(examples, keys, most, prob=0.15, shares=(0.8, 0.1)):
    """(input ids, masked_lm_positions, masked_lm_ids) of each [CLS] A [SEP] B [SEP] or [CLS] A [SEP], and each as it was."""
    end = [VOCABULARY.sep]
    plain = [[VOCABULARY.cls, *a, *end, *b, *(end if b else [])] for a, b in examples]
    ends = np.cumsum([len(ids) for ids in plain])
    flat = np.array([i for ids in plain for i in ids], np.uint16)
    a_length, b_length = (np.array(sizes) for sizes in zip(*((len(a), len(b)) for a, b in examples)))
    starts = ends - [len(ids) for ids in plain]
    masking = Masking(SPANS, mask_counts(max(map(len, plain)), prob, most), most, VOCABULARY, *shares)
    heads = ~VOCABULARY.continuation[flat]
    positions, originals, number = mask_batch(
        flat, heads, starts, a_length, b_length, np.array(keys, np.uint64), masking
    )
    edges = np.cumsum([0, *number])
    masked = [
        (flat[start:end].tolist(), positions[first:last].tolist(), originals[first:last].tolist())
        for start, end, first, last in zip(starts, ends, edges, edges[1:])
    ]
    return masked, plain


SEGMENT = st.lists(st.integers(FIRST_WORD, END - 1), min_size=1, max_size=40)
SHARES = st.sampled_from([(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.5, 0.25)])


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.tuples(SEGMENT, SEGMENT | st.just([])), KEYS), min_size=1, max_size=5),
    st.sampled_from([0.01, 0.15, 0.5, 1.0]),
    st.integers(1, 90),
    SHARES,
)
def test_masks_of_spans_equal_their_twin_example_by_example(rows, prob, most, shares):
    examples, keys = zip(*rows)
    masked, plain = mask_examples(examples, keys, most, prob, shares)
    counts = mask_counts(max(map(len, plain)), prob, most)
    for (a, b), key, ids, found in zip(examples, keys, plain, masked):
        heads = [not VOCABULARY.words[i].startswith("##") for i in ids]
        count = min(int(counts[len(ids)]), len(a) + len(b))
        assert found == twins.mask_spans(ids, heads, len(a) + 2, key, count, most, VOCABULARY.mask, ORDINARY, shares)
        assert len(found[1]) <= most


@settings(max_examples=200)
@given(st.lists(st.tuples(KEYS, st.integers(0, 40), st.integers(0, 40)), max_size=6))
def test_spans_equal_those_of_their_twin(rows):
    first_word = np.cumsum([0, *(a + b for _, a, b in rows)])
    b_word = first_word[:-1] + np.array([a for _, a, _ in rows], np.int64)
    span_word, first_span = cut_into_spans(np.array([row[0] for row in rows], np.uint64), first_word, b_word)
    for i, (key, a, b) in enumerate(rows):
        wanted = [first_word[i] + span[0] for span in twins.cut_into_spans([a, b], key)]
        assert span_word[first_span[i] : first_span[i + 1]].tolist() == wanted
    assert span_word[-1] == first_word[-1]


def test_the_table_of_span_lengths_equals_the_paper():
    """p = 0.2, at most ten words, 3.8 on average."""
    assert LENGTHS.tolist() == [int(twins.share_up_to(k) * 2**32) for k in range(1, 10)]
    assert sum(CHANCES) == pytest.approx(1) and CHANCES[1] / CHANCES[0] == pytest.approx(0.8)
    assert sum(k * chance for k, chance in enumerate(CHANCES, 1)) == pytest.approx(3.797, abs=0.001)


def test_span_lengths_have_the_distribution_of_the_table():
    """Of the first two spans of A and the first of B, which no end of a segment cuts; chi-squared with 9 degrees of freedom,
    one in a thousand."""
    n = 20_000
    first_word = np.arange(n + 1) * 60
    span_word, first_span = cut_into_spans(fold(np.arange(n)), first_word, first_word[:-1] + 30)
    lengths = np.diff(span_word)
    of_b = np.searchsorted(span_word, first_word[:-1] + 30)
    for spans in (first_span[:-1], first_span[:-1] + 1, of_b):
        seen = np.bincount(lengths[spans], minlength=11)[1:]
        wanted = n * np.array(CHANCES)
        assert ((seen - wanted) ** 2 / wanted).sum() < 27.9


def test_span_lengths_in_the_window_have_the_distribution_of_the_table_except_at_its_edges():
    """A window of 40 of 400 words holds a span of k words whole in 41 - k of its possible positions."""
    n, size, wanted = 4000, 400, 40
    words = np.arange(n + 1) * size
    edges = np.arange(n * size + 1)
    taken, span = choose_spans(fold(np.arange(n)), words, words[1:], edges, np.full(n, wanted), 50)
    assert taken.reshape(n, size).sum(1).tolist() == [wanted] * n
    whole = np.bincount(span)
    inside = np.flatnonzero(np.bincount(span, taken) == whole)
    inside = inside[span[np.minimum(np.searchsorted(span, inside) + MAX_WORDS, n * size - 1)] > inside]
    row = np.searchsorted(span, inside) // size
    inside = inside[(np.searchsorted(span, inside) + MAX_WORDS) // size == row]  # not cut by the end of the segment
    seen = np.bincount(whole[inside], minlength=11)[1:]
    chances = np.array(CHANCES) * (wanted + 1 - np.arange(1, 11))
    expected = seen.sum() * chances / chances.sum()
    assert ((seen - expected) ** 2 / expected).sum() < 27.9


def example(r: random.Random, room: int) -> tuple[list[int], list[int]]:
    """A and B of words of one to six pieces that fill the room."""
    tokens: list[int] = []
    while len(tokens) < room:
        size = min(r.choices([1, 2, 3, 4, 6], [75, 12, 7, 4, 2])[0], room - len(tokens))
        tokens += [r.randrange(FIRST_WORD, FIRST_PIECE), *(r.randrange(FIRST_PIECE, END) for _ in range(size - 1))]
    middle = next(i for i in range(room // 2, room + 1) if i == room or tokens[i] < FIRST_PIECE)
    return (tokens[:middle], tokens[middle:]) if middle < room else (tokens[:1], tokens[1:])


@pytest.fixture(scope="module")
def many():
    """8,000 examples of 128 tokens with 19 masks wanted and at most 28."""
    r = random.Random(3)
    examples = [example(r, 125) for _ in range(8000)]
    return examples, *mask_examples(examples, fold(np.arange(8000)).tolist(), 28)


def runs_of(positions: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for at in positions:
        if runs and runs[-1][-1] == at - 1:
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs


def test_words_are_masked_whole_and_special_tokens_never(many):
    examples, masked, plain = many
    for (a, _), (_, positions, originals), before in zip(examples, masked, plain):
        heads = [i < FIRST_PIECE for i in before]
        hit = set(positions)
        assert not hit & {0, len(a) + 1, len(before) - 1}
        assert [before[at] for at in positions] == originals and positions == sorted(hit)
        for word in twins.words_of(heads, len(a) + 2, len(before), across=False):
            assert set(word) <= hit or not set(word) & hit


def test_an_example_has_as_many_masks_as_with_single_tokens_on_average(many):
    numbers = np.array([len(positions) for _, positions, _ in many[1]])
    assert numbers.max() <= 28
    assert abs(numbers.mean() - 19) < 4 * numbers.std() / len(numbers) ** 0.5


def test_every_word_has_the_same_chance_wherever_it_stands_and_however_long_it_is(many):
    """19 of 125 tokens, 15.2 %, within four standard errors: the first word of A and of B, the last ones, and all others."""
    examples, masked, plain = many
    hits: dict[object, list[bool]] = {}
    for (a, _), (_, positions, _), before in zip(examples, masked, plain):
        hit = set(positions)
        for at, name in ((1, "first"), (len(a) + 2, "first of B"), (len(a), "last of A"), (len(before) - 2, "last")):
            hits.setdefault(name, []).append(at in hit)
        for word in twins.words_of([i < FIRST_PIECE for i in before], len(a) + 2, len(before), across=False):
            hits.setdefault(len(word), []).append(word[0] in hit)
    for name in ("first", "first of B", "last of A", "last", 1, 2, 3, 4, 6):
        p, n = 19 / 125, len(hits[name])
        assert abs(np.mean(hits[name]) - p) < 4 * (p * (1 - p) / n) ** 0.5, name


def test_masks_are_adjacent(many):
    """Runs of masks have 4.9 tokens; those of single whole words have 1.7."""
    runs = [run for _, positions, _ in many[1] for run in runs_of(positions)]
    assert 4.7 < np.mean([len(run) for run in runs]) < 5.2


def test_all_tokens_of_a_span_are_treated_alike_eighty_ten_ten():
    """Segments of one word of five pieces: a span each, and room for one of them."""
    n = 20_000
    pair = ([FIRST_WORD, *range(FIRST_PIECE, FIRST_PIECE + 4)], [FIRST_WORD + 1, *range(FIRST_PIECE, FIRST_PIECE + 4)])
    masked, plain = mask_examples([pair] * n, fold(np.arange(n)).tolist(), 5, 0.5)
    kinds = {"mask": 0, "kept": 0, "random": 0, "mixed": 0}
    for (ids, positions, _), before in zip(masked, plain):
        for word in (range(1, 6), range(7, 12)):
            if word[0] in positions:
                masks = [ids[at] == VOCABULARY.mask for at in word]
                kept = all(ids[at] == before[at] for at in word)
                kinds["mixed" if len(set(masks)) > 1 else "mask" if masks[0] else "kept" if kept else "random"] += 1
    total = sum(kinds.values())
    assert total > n / 2 and kinds["mixed"] == 0
    for kind, share in (("mask", 0.8), ("random", 0.1), ("kept", 0.1)):
        assert abs(kinds[kind] / total - share) < 4 * (share * (1 - share) / total) ** 0.5 + 0.1 / len(ORDINARY)


def test_words_of_one_span_are_treated_alike_and_those_of_two_are_not():
    """Both words of A are masked. In one span both become [MASK] or neither does; in two spans that happens in
    0.8² + 0.2² of the cases."""
    n = 20_000
    keys = fold(np.arange(n))
    masked, _ = mask_examples([([5, 6], [7, 8])] * n, keys.tolist(), 2, 0.4)
    begins, _ = cut_into_spans(keys, np.arange(n + 1) * 4, np.arange(n) * 4 + 2)
    two = np.isin(np.arange(n) * 4 + 1, begins)
    alike: dict[bool, list[bool]] = {False: [], True: []}
    for (ids, positions, _), apart in zip(masked, two.tolist()):
        if positions == [1, 2]:
            alike[apart].append((ids[1] == VOCABULARY.mask) == (ids[2] == VOCABULARY.mask))
    assert all(alike[False]) and len(alike[False]) > 2000
    assert abs(np.mean(alike[True]) - 0.68) < 4 * (0.68 * 0.32 / len(alike[True])) ** 0.5


def test_spans_of_a_single_segment_reach_its_end():
    segment = list(range(FIRST_WORD, FIRST_WORD + 20))
    masked, _ = mask_examples([(segment, [])] * 500, fold(np.arange(500)).tolist(), 10)
    assert {at for _, positions, _ in masked for at in positions} == set(range(1, 21))
    assert all(len(positions) == 3 for _, positions, _ in masked)

"""Sentence order prediction and single segments, against their twins, and what they promise."""

import random
from collections import Counter
from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.mask_counts import mask_counts
from bertloom.members import read_shard
from bertloom.shards import ShardName
from pipeline.examples.masking.masks import Masking
from pipeline.examples.masking.tokens import TOKENS
from pipeline.examples.objectives import none, sop
from pipeline.examples.pairs import NO_PAIR, Pairs
from pipeline.examples.sentences import Sentences
from pipeline.examples.shards import write_shard
from pipeline.tokens import DOCUMENT, TokenBlock
from pipeline.vocabulary import WordKinds
from tests.pipeline import twins_of_options as twins
from tests.pipeline.small_text import VOCABULARY
from tests.pipeline.twins_of_pairs import Text

NUM_WORDS, FIRST_CONTINUATION = 40, 25  # ids from 25 on are `##` pieces
END, CLOSING = 3, 4  # a mark that ends sentences, and one that may come after it
WORDS = WordKinds(*(np.isin(np.arange(NUM_WORDS), of) for of in (range(FIRST_CONTINUATION, NUM_WORDS), END, CLOSING)))
LENGTHS, SEEDS, SHORT = st.integers(8, 64), st.integers(0, 2**63 - 1), st.sampled_from([0.0, 0.1, 0.5, 1.0])


def make_block(documents: list[list[list[int]]], ids: list[int]) -> tuple[TokenBlock, list[Text]]:
    """The same bucket for the kernels and for their twins, from the token ids of the sentences of each document."""
    rows = np.zeros(len(documents), DOCUMENT)
    rows["id"] = rows["source_key"] = ids
    rows["num_sentences"] = [len(sentences) for sentences in documents]
    rows["num_tokens"] = [sum(map(len, sentences)) for sentences in documents]
    lengths = [len(sentence) for sentences in documents for sentence in sentences]
    edges = np.cumsum([0, *lengths]).tolist()
    spans = iter(zip(edges, edges[1:]))
    texts = []
    for i, sentences in zip(ids, documents):
        own = [next(spans) for _ in sentences]
        texts.append(Text(i, i, own, frozenset(edge for span in own for edge in span)))
    tokens = [word for sentences in documents for sentence in sentences for word in sentence]
    return TokenBlock(np.array(tokens, np.uint16), np.array(lengths, np.uint32), rows), texts


def sentence(seed: int, size: int, share: float) -> list[int]:
    """Token ids of which about this share are `##` pieces, most often with a mark at the end."""
    r = random.Random(seed)
    end = r.choice(([END], [END], [END, CLOSING], [CLOSING], []))
    return _words(r, max(1, size - len(end)), share) + end


def _words(r: random.Random, size: int, share: float) -> list[int]:
    return [r.randrange(FIRST_CONTINUATION, NUM_WORDS) if r.random() < share else r.randrange(25) for _ in range(size)]


SENTENCE = st.builds(
    sentence, st.integers(0, 999), st.integers(1, 30) | st.integers(1, 90), st.sampled_from([0.0, 0.2, 0.6, 1.0])
)


@st.composite
def buckets(draw):
    """One to five documents, some of one sentence, in the order of their ids."""
    ids = sorted(draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5, unique=True)))
    return make_block([draw(st.lists(SENTENCE, min_size=1, max_size=9)) for _ in ids], ids)


def rows_of(pairs: Pairs) -> list[tuple]:
    return list(zip(*(getattr(pairs, name).tolist() for name in Pairs.__slots__)))


def is_head(block: TokenBlock) -> list[bool]:
    return [word < FIRST_CONTINUATION for word in block.ids.tolist()]


# ---- sentence order prediction


@settings(max_examples=200)
@given(buckets(), LENGTHS, st.integers(0, 3), SEEDS, SHORT)
def test_swapped_pairs_equal_their_twin_example_by_example(bucket, length, copy, seed, short_seq_prob):
    swapped_as_by_the_twin(*bucket, length, copy, seed, short_seq_prob)


@pytest.mark.parametrize("tokens", [6, 18])
def test_swapped_pairs_of_many_documents_equal_their_twin(tokens):
    """Many halves find partners of opposite lengths, some after a few tries, and some find none."""
    swapped_as_by_the_twin(*corpus(120, 2, tokens), 64, 1, 3, 0.1)


def swapped_as_by_the_twin(
    block: TokenBlock, texts: list[Text], length: int, copy: int, seed: int, short_seq_prob: float
) -> None:
    half = (length - 3) // 2
    texts = twins.cut_long(texts, is_head(block), half, half)
    s = sop.cut_sentences(block, WORDS, length)
    assert s.edges.tolist() == [0, *(end for text in texts for _, end in text.sentences)]
    pairs, counters = sop.make_pairs(s, length, copy, seed, short_seq_prob)
    ids, edges = block.ids.tolist(), sorted({edge for text in texts for edge in text.edges})
    marked = {b for a, b in pairwise(edges) if ids[b - 1] == END or (ids[b - 1] == CLOSING and END in ids[a:b][-2:-1])}
    wanted, wanted_counters = twins.make_swapped(texts, is_head(block), marked, length, copy, seed, short_seq_prob)
    assert rows_of(pairs) == [astuple(pair) for pair in wanted]
    assert counters == wanted_counters


@settings(max_examples=100)
@given(buckets(), LENGTHS, SEEDS, SHORT)
def test_the_halves_of_a_swapped_pair_are_adjacent_begin_and_end_alike_and_the_labels_are_balanced(
    bucket, length, seed, short_seq_prob
):
    s = sop.cut_sentences(bucket[0], WORDS, length)
    pairs, _ = sop.make_pairs(s, length, 0, seed, short_seq_prob)
    assert abs(len(pairs) - 2 * int(pairs.label.sum())) <= 1
    covered = np.zeros(len(s.ids), int)
    for a_start, a_length, b_start, b_length, label, document_a, document_b, chunk in rows_of(pairs):
        assert a_length >= 1 and b_length >= 1 and a_length + b_length <= length - 3
        first, second = (b_start, a_start) if label else (a_start, b_start)
        assert second == first + (b_length if label else a_length)
        stop = first + a_length + b_length
        if s.is_edge[second]:
            assert s.is_edge[first] and s.is_marked[second] and s.is_marked[stop]
        else:
            for border in (first, second, stop):
                assert not s.is_edge[max(border - 2, 0) : border + 3].any() and s.head[border]
        assert document_a == document_b and s.edges[s.first[document_a] + chunk] <= first
        assert stop <= s.edges[s.first[document_a + 1]]
        covered[first:stop] += 1
    assert covered.max(initial=0) <= 1


def corpus(num_documents: int, seed: int, tokens: int) -> tuple[TokenBlock, list[Text]]:
    """Documents of 3 to 60 sentences of 3 to 60 tokens or more, most of them short; a third of all tokens are pieces. One
    sentence in ten has no mark at its end."""
    r = random.Random(seed)
    documents = []
    for _ in range(num_documents):
        sizes = [min(3 * tokens, 3 + int(r.expovariate(1 / tokens))) for _ in range(3 + int(r.expovariate(1 / 12)))]
        documents.append([[1] + [r.choice((1, 1, 30)) for _ in range(size - 2)] for size in sizes])
        for body in documents[-1]:
            body.append(1 if r.random() < 0.1 else END)
        documents[-1][-1][-1] = 1 if r.random() < 0.5 else END  # many a text ends without one
    return make_block(documents, list(range(num_documents)))


@pytest.fixture(scope="module", params=[(64, 18), (128, 18), (128, 60)])
def swapped(request) -> tuple[Sentences, Pairs]:
    length, tokens = request.param
    s = sop.cut_sentences(corpus(2500, 1, tokens)[0], WORDS, length)
    return s, sop.make_pairs(s, length, 0, 1, 0.1)[0]


def guessed(cell: np.ndarray, label: np.ndarray) -> float:
    """Share of the labels that a table guesses, learned on one half and tested on the other."""
    learned = np.arange(len(label)) % 2 == 0
    votes = np.bincount(cell[learned], weights=label[learned] * 2.0 - 1, minlength=int(cell.max()) + 1)
    return float(((votes[cell] > 0) == (label == 1))[~learned].mean())


def test_lengths_do_not_tell_whether_segments_are_swapped(swapped):
    """A table is learned on one half and tested on the other. When all documents were cut from their start, the first half
    of a chunk was the longer one in 57 % of the examples of 128 tokens."""
    _, pairs = swapped
    cell = pairs.a_length // 4 * 64 + pairs.b_length // 4
    assert len(pairs) > 5000 and guessed(cell, pairs.label) < 0.53
    longer = (pairs.b_length > pairs.a_length) == (pairs.label == 1)
    assert abs(longer.mean() - 0.5) < 4 * 0.5 / len(pairs) ** 0.5


def test_how_segments_begin_and_end_does_not_tell_whether_they_are_swapped(swapped):
    """Where long sentences were cut, 68 % of the labels of 128 tokens were guessed: only the half before the cut ended
    inside a sentence. Where texts end without a mark, so did the second half."""
    s, pairs = swapped
    begins = [s.is_edge[start] for start in (pairs.a_start, pairs.b_start)]
    ends = [
        s.is_marked[start + size] for start, size in ((pairs.a_start, pairs.a_length), (pairs.b_start, pairs.b_length))
    ]
    cell = sum(found.astype(int) << bit for bit, found in enumerate([*begins, *ends]))
    assert guessed(cell, pairs.label) < 0.5 + 4 * 0.5 / (len(pairs) / 2) ** 0.5
    assert (begins[0] == begins[1]).all() and (ends[0] == ends[1]).all()


def test_a_half_that_is_cut_inside_sentences_has_at_least_an_eighth_of_its_chunk(swapped):
    """With any place between its ends, 2 % of the halves had one token or two."""
    s, pairs = swapped
    cut = ~s.is_edge[pairs.a_start]
    shorter, both = np.minimum(pairs.a_length, pairs.b_length)[cut], (pairs.a_length + pairs.b_length)[cut]
    assert cut.sum() > 100 and (shorter > both // 8).all()


@pytest.mark.parametrize(("shortest", "longest", "share_whole"), [(3, 40, 0.75), (3, 20, 0.17), (3, 11, 0)])
def test_lengths_do_not_tell_whether_segments_are_swapped_where_first_sentences_are_short(
    shortest, longest, share_whole
):
    """Documents of two sentences, the second one of 12 to 40 tokens. When all halves were whole sentences, the first one was
    the shorter one in 61, 91 and 100 % of them."""
    r = random.Random(4)
    sizes = [(r.randint(shortest, longest), r.randint(12, 40)) for _ in range(6000)]
    block, _ = make_block([[[1] * (size - 1) + [END] for size in two] for two in sizes], list(range(len(sizes))))
    s = sop.cut_sentences(block, WORDS, 128)
    pairs, counters = sop.make_pairs(s, 128, 0, 1, 0.0)
    swapped = pairs.label == 1
    first = np.where(swapped, pairs.b_length, pairs.a_length)
    second = np.where(swapped, pairs.a_length, pairs.b_length)
    whole = s.is_edge[pairs.a_start]
    assert abs(int(np.sign(first - second)[whole].sum())) <= counters["pairs-dropped"]
    assert whole.mean() == pytest.approx(share_whole, abs=0.05) and len(pairs) > 0.9 * len(sizes)
    assert (
        guessed(pairs.a_length // 4 * 64 + pairs.b_length // 4, pairs.label) < 0.5 + 4 * 0.5 / (len(pairs) / 2) ** 0.5
    )


# ---- single segments


@settings(max_examples=200)
@given(buckets(), LENGTHS, st.integers(0, 3), SEEDS, SHORT)
def test_single_segments_equal_their_twin_example_by_example(bucket, length, copy, seed, short_seq_prob):
    block, texts = bucket
    texts = twins.cut_long(texts, is_head(block), length - 2, length - 2)
    s = none.cut_sentences(block, WORDS, length)
    pairs, counters = none.make_segments(s, length, copy, seed, short_seq_prob)
    assert rows_of(pairs) == [astuple(run) for run in twins.make_runs(texts, length, copy, seed, short_seq_prob)]
    assert counters == {}


@settings(max_examples=100)
@given(buckets(), LENGTHS, SEEDS, SHORT)
def test_every_token_is_in_one_single_segment_of_whole_sentences_that_fits(bucket, length, seed, short_seq_prob):
    s = none.cut_sentences(bucket[0], WORDS, length)
    pairs, _ = none.make_segments(s, length, 0, seed, short_seq_prob)
    assert set(pairs.label.tolist()) == {NO_PAIR} and not pairs.b_length.any()
    ends = pairs.a_start + pairs.a_length
    assert pairs.a_start.tolist() == [0, *ends[:-1].tolist()] and ends[-1] == len(s.ids)
    assert pairs.a_length.min() >= 1 and pairs.a_length.max() <= length - 2
    assert np.isin([*pairs.a_start, *ends], s.edges).all()
    assert (ends <= s.edges[s.first[pairs.document_a + 1]]).all()
    if short_seq_prob == 0:  # not a sentence more would have fitted
        following = np.searchsorted(s.edges, ends) + 1
        inside = ends < s.edges[s.first[pairs.document_a + 1]]
        assert (s.edges[following[inside]] - pairs.a_start[inside] > length - 2).all()


def test_a_single_segment_in_a_shard_has_no_second_one_and_no_label(tmp_path):
    block, _ = make_block([[[10, 11, 30], [12]], [[13, 14]], [[15]]], [3, 5, 9])
    s = none.cut_sentences(block, VOCABULARY.kinds, 16)
    pairs, _ = none.make_segments(s, 16, 0, 1, 0.0)
    masking = Masking(TOKENS, mask_counts(16, 0.15, 3), 3, VOCABULARY)
    name = ShardName(split="train", max_seq_length=16, copy=0, number=0)
    row = write_shard(str(tmp_path), name, s, pairs, 1, masking)
    table = read_shard(str(tmp_path / row["path"])).to_pydict()
    found = Counter()
    for i, ids in enumerate(table["input_ids"]):
        for at, word in zip(table["masked_lm_positions"][i], table["masked_lm_ids"][i]):
            ids[at] = word
        assert table["segment_b_start"][i] == len(ids)
        found[(table["document_a"][i], table["token_a"][i], tuple(ids[1:-1]))] += 1
        assert (ids[0], ids[-1]) == (VOCABULARY.cls, VOCABULARY.sep)
    assert found == {(3, 0, (10, 11, 30, 12)): 1, (5, 0, (13, 14)): 1, (9, 0, (15,)): 1}
    assert set(table["document_b"] + table["token_b"]) == {0} and set(table["next_sentence_label"]) == {-1}
    assert row["tokens"] == 4 + 2 + 1 + 3 * 2

"""Sentence order prediction and single segments, against their twins, and what they promise."""

import random
from collections import Counter
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.members import read_shard
from bertloom.shards import ShardName
from pipeline.examples.masking.masks import Masking
from pipeline.examples.masking.scheme import mask_counts
from pipeline.examples.masking.tokens import TOKENS
from pipeline.examples.objectives import none, sop
from pipeline.examples.pairs import NO_PAIR, Pairs
from pipeline.examples.sentences import Sentences
from pipeline.examples.shards import write_shard
from pipeline.tokens import DOCUMENT, TokenBlock
from tests.pipeline import twins_of_options as twins
from tests.pipeline.small_text import VOCABULARY
from tests.pipeline.twins_of_pairs import Text

NUM_WORDS, FIRST_CONTINUATION = 40, 25  # ids from 25 on are `##` pieces
CONTINUATION = np.arange(NUM_WORDS) >= FIRST_CONTINUATION
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
    texts = [Text(i, i, [next(spans) for _ in sentences]) for i, sentences in zip(ids, documents)]
    tokens = [word for sentences in documents for sentence in sentences for word in sentence]
    return TokenBlock(np.array(tokens, np.uint16), np.array(lengths, np.uint32), rows), texts


def sentence(seed: int, size: int, share: float) -> list[int]:
    """Token ids of which about this share are `##` pieces."""
    r = random.Random(seed)
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
    block, texts = bucket
    half = (length - 3) // 2
    texts = twins.cut_long(texts, is_head(block), half, half)
    s = sop.cut_sentences(block, CONTINUATION, length)
    assert s.edges.tolist() == [0, *(end for text in texts for _, end in text.sentences)]
    pairs, counters = sop.make_pairs(s, length, copy, seed, short_seq_prob)
    wanted, wanted_counters = twins.make_swapped(texts, length, copy, seed, short_seq_prob)
    assert rows_of(pairs) == [astuple(pair) for pair in wanted]
    assert counters == wanted_counters


@settings(max_examples=100)
@given(buckets(), LENGTHS, SEEDS, SHORT)
def test_the_halves_of_a_swapped_pair_are_adjacent_whole_sentences_and_the_labels_are_balanced(
    bucket, length, seed, short_seq_prob
):
    s = sop.cut_sentences(bucket[0], CONTINUATION, length)
    pairs, counters = sop.make_pairs(s, length, 0, seed, short_seq_prob)
    assert abs(len(pairs) - 2 * int(pairs.label.sum())) <= 1
    edges, covered = set(s.edges.tolist()), np.zeros(len(s.ids), int)
    for a_start, a_length, b_start, b_length, label, document_a, document_b, chunk in rows_of(pairs):
        assert a_length >= 1 and b_length >= 1 and a_length + b_length <= length - 3
        first, second = (b_start, a_start) if label else (a_start, b_start)
        assert second == first + (b_length if label else a_length)
        assert {a_start, a_start + a_length, b_start, b_start + b_length} <= edges
        assert document_a == document_b and s.edges[s.first[document_a] + chunk] == first
        assert first + a_length + b_length <= s.edges[s.first[document_a + 1]]
        covered[first : first + a_length + b_length] += 1
    assert covered.max(initial=0) <= 1
    assert counters["pairs-without-second"] <= len(bucket[1])  # one a document at most


def corpus(num_documents: int, seed: int) -> TokenBlock:
    """Documents of 3 to 60 sentences of 3 to 60 tokens, most of them short; a third of all tokens are pieces."""
    r = random.Random(seed)
    documents = []
    for _ in range(num_documents):
        sizes = [min(60, 3 + int(r.expovariate(1 / 18))) for _ in range(3 + int(r.expovariate(1 / 12)))]
        documents.append([[1] + [r.choice((1, 1, 30)) for _ in range(size - 1)] for size in sizes])
    return make_block(documents, list(range(num_documents)))[0]


@pytest.fixture(scope="module", params=[64, 128])
def swapped(request) -> tuple[Sentences, Pairs]:
    s = sop.cut_sentences(corpus(2500, 1), CONTINUATION, request.param)
    return s, sop.make_pairs(s, request.param, 0, 1, 0.1)[0]


def test_lengths_do_not_tell_whether_segments_are_swapped(swapped):
    """A table is learned on one half and tested on the other. When all documents were cut from their start, the first half
    of a chunk was the longer one in 57 % of the examples of 128 tokens."""
    _, pairs = swapped
    cell = pairs.a_length // 4 * 64 + pairs.b_length // 4
    learned = np.arange(len(pairs)) % 2 == 0
    votes = np.bincount(cell[learned], weights=pairs.label[learned] * 2.0 - 1, minlength=int(cell.max()) + 1)
    right = (votes[cell] > 0) == (pairs.label == 1)
    assert len(pairs) > 5000 and right[~learned].mean() < 0.53
    longer = (pairs.b_length > pairs.a_length) == (pairs.label == 1)
    assert abs(longer.mean() - 0.5) < 4 * 0.5 / len(pairs) ** 0.5


def test_no_segment_of_a_swapped_pair_is_cut(swapped):
    """Where the last sentence of a full chunk was cut to fit, 71 % of true Bs of 64 tokens ended without an end, and of
    swapped ones none did: 85 % of the labels could be guessed."""
    s, pairs = swapped
    for edge in (pairs.a_start, pairs.a_start + pairs.a_length, pairs.b_start, pairs.b_start + pairs.b_length):
        assert s.is_edge[edge].all()


# ---- single segments


@settings(max_examples=200)
@given(buckets(), LENGTHS, st.integers(0, 3), SEEDS, SHORT)
def test_single_segments_equal_their_twin_example_by_example(bucket, length, copy, seed, short_seq_prob):
    block, texts = bucket
    texts = twins.cut_long(texts, is_head(block), length - 2, length - 2)
    s = none.cut_sentences(block, CONTINUATION, length)
    pairs, counters = none.make_segments(s, length, copy, seed, short_seq_prob)
    assert rows_of(pairs) == [astuple(run) for run in twins.make_runs(texts, length, copy, seed, short_seq_prob)]
    assert counters == {}


@settings(max_examples=100)
@given(buckets(), LENGTHS, SEEDS, SHORT)
def test_every_token_is_in_one_single_segment_of_whole_sentences_that_fits(bucket, length, seed, short_seq_prob):
    s = none.cut_sentences(bucket[0], CONTINUATION, length)
    pairs, _ = none.make_segments(s, length, 0, seed, short_seq_prob)
    assert set(pairs.label.tolist()) == {NO_PAIR} and not pairs.b_length.any()
    ends = pairs.a_start + pairs.a_length
    assert pairs.a_start.tolist() == [0, *ends[:-1].tolist()] and ends[-1] == len(s.ids)
    assert pairs.a_length.min() >= 1 and pairs.a_length.max() <= length - 2
    assert s.is_edge[pairs.a_start].all() and s.is_edge[ends].all()
    assert (ends <= s.edges[s.first[pairs.document_a + 1]]).all()
    if short_seq_prob == 0:  # not a sentence more would have fitted
        following = np.searchsorted(s.edges, ends) + 1
        inside = ends < s.edges[s.first[pairs.document_a + 1]]
        assert (s.edges[following[inside]] - pairs.a_start[inside] > length - 2).all()


def test_a_single_segment_in_a_shard_has_no_second_one_and_no_label(tmp_path):
    block, _ = make_block([[[10, 11, 30], [12]], [[13, 14]], [[15]]], [3, 5, 9])
    s = none.cut_sentences(block, VOCABULARY.continuation, 16)
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

import random
from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.examples.objectives.nsp import NEXT, RANDOM, cut_sentences, make_pairs
from pipeline.examples.pairs import Pairs
from pipeline.examples.sentences import Sentences
from pipeline.tokens import DOCUMENT, TokenBlock
from pipeline.vocabulary import WordKinds
from tests.pipeline import twins_of_pairs as twins
from tests.pipeline.twins_of_pairs import Text

NUM_WORDS, FIRST_CONTINUATION = 40, 25  # ids from 25 on are `##` pieces
NO_MARKS = np.zeros(NUM_WORDS, bool)
WORDS = WordKinds(np.arange(NUM_WORDS) >= FIRST_CONTINUATION, NO_MARKS, NO_MARKS)


def make_block(documents: list[tuple[int, int, list[list[int]]]]) -> tuple[TokenBlock, list[Text]]:
    """The same bucket for the kernel and for its twin, from (id, source key, sentences as lists of token ids)."""
    rows = np.zeros(len(documents), DOCUMENT)
    ids: list[int] = []
    lengths, texts = [], []
    for row, (document, source_key, sentences) in zip(rows, documents):
        row["id"], row["source_key"] = document, source_key
        row["num_sentences"], row["num_tokens"] = len(sentences), sum(map(len, sentences))
        spans = []
        for sentence in sentences:
            spans.append((len(ids), len(ids) + len(sentence)))
            lengths.append(len(sentence))
            ids += sentence
        texts.append(Text(document, source_key, spans, frozenset(edge for span in spans for edge in span)))
    return TokenBlock(np.array(ids, np.uint16), np.array(lengths, np.uint32), rows), texts


def rows_of(pairs: Pairs) -> list[tuple]:
    return list(zip(*(getattr(pairs, name).tolist() for name in Pairs.__slots__)))


def ends_of(s: Sentences, pairs: Pairs):
    return pairs.a_start + pairs.a_length, pairs.b_start + pairs.b_length


def sentence(seed: int, size: int, share: float) -> list[int]:
    """Token ids of which about this share are `##` pieces, also the first when all are."""
    r = random.Random(seed)
    return [r.randrange(FIRST_CONTINUATION, NUM_WORDS) if r.random() < share else r.randrange(25) for _ in range(size)]


SENTENCE = st.builds(
    sentence, st.integers(0, 999), st.integers(1, 30) | st.integers(1, 90), st.sampled_from([0.0, 0.2, 0.6, 1.0])
)


@st.composite
def buckets(draw):
    """Two to six documents; some share a source, some have one sentence, some words are long."""
    count = draw(st.integers(2, 6))
    ids = draw(st.lists(st.integers(0, 2**64 - 1), min_size=count, max_size=count, unique=True))
    keys = draw(st.lists(st.sampled_from(ids[:3]), min_size=count, max_size=count))
    if len(set(keys)) == 1:
        keys[0] = ids[0] ^ 1
    bodies = [draw(st.lists(SENTENCE, min_size=1, max_size=9)) for _ in ids]
    return list(zip(sorted(ids), keys, bodies))


@settings(max_examples=300)
@given(
    buckets(), st.integers(8, 64), st.integers(0, 3), st.integers(0, 2**63 - 1), st.sampled_from([0.0, 0.1, 0.5, 1.0])
)
def test_pairs_equal_their_twin_example_by_example(documents, length, copy, seed, short_seq_prob):
    block, texts = make_block(documents)
    is_head = [word < FIRST_CONTINUATION for word in block.ids.tolist()]
    texts = twins.cut_sentences(texts, is_head, length)
    sentences = cut_sentences(block, WORDS, length)
    assert sentences.edges.tolist() == [0, *(end for text in texts for _, end in text.sentences)]
    assert sentences.first.tolist()[1:] == np.cumsum([len(text.sentences) for text in texts]).tolist()

    pairs, counters = make_pairs(sentences, length, copy, seed, short_seq_prob)
    wanted, wanted_counters = twins.make_pairs(texts, is_head, length, copy, seed, short_seq_prob)
    assert rows_of(pairs) == [astuple(pair) for pair in wanted]
    assert counters == wanted_counters


@settings(max_examples=200)
@given(buckets(), st.integers(8, 64), st.integers(0, 2**63 - 1), st.sampled_from([0.0, 0.1, 1.0]))
def test_every_pair_fits_and_has_a_true_label(documents, length, seed, short_seq_prob):
    block, _ = make_block(documents)
    s = cut_sentences(block, WORDS, length)
    pairs, _ = make_pairs(s, length, 0, seed, short_seq_prob)
    num_random = int(pairs.label.sum())
    assert abs(len(pairs) - 2 * num_random) <= 1
    starts, size_of = set(s.edges[:-1].tolist()), np.diff(s.first)
    room = length - 3
    for a_start, a_length, b_start, b_length, label, document_a, document_b, sentence in rows_of(pairs):
        assert a_length >= 1 and b_length >= 1 and a_length + b_length <= room
        assert b_start in starts or size_of[document_b] == 1
        assert a_start + a_length in starts | {len(s.ids)} or size_of[document_a] == 1
        a_first = s.edges[s.first[document_a] + sentence]
        assert a_first <= a_start  # after it where A's front was cut
        for document, start, size in ((document_a, a_start, a_length), (document_b, b_start, b_length)):
            assert s.edges[s.first[document]] <= start and start + size <= s.edges[s.first[document + 1]]
        if label == NEXT:
            assert document_b == document_a and b_start == a_start + a_length
        else:
            assert label == RANDOM and s.source_keys[document_b] != s.source_keys[document_a]
        if s.head[a_start : a_start + a_length].any():
            assert s.head[a_start]  # A begins with a whole word
        b_end = b_start + b_length
        if s.head[b_start + 1 : b_end + 1].any():
            assert b_end == len(s.ids) or s.head[b_end]  # and B ends with one


@given(buckets(), st.integers(8, 64))
def test_pieces_of_long_sentences_lose_nothing_and_fit_in_half_the_room(documents, length):
    block, _ = make_block(documents)
    s = cut_sentences(block, WORDS, length)
    whole = np.cumsum([0, *block.sentence_lengths])
    assert set(whole.tolist()) <= set(s.edges.tolist()) and s.edges[-1] == len(block.ids)
    for start, end in pairwise(whole.tolist()):
        inside = [edge for edge in s.edges.tolist() if start <= edge <= end]
        pieces = [b - a for a, b in pairwise(inside)]
        assert len(pieces) == 1 or max(pieces) <= (length - 3) // 2
        assert len(pieces) == 1 or end - start > length - 3
        for a, b in pairwise(inside[:-1]):
            assert s.head[b] or not s.head[a + 1 : b + 1].any()  # a cut is inside a word only when the word is too long


def words(count: int) -> list[int]:
    return [1] * count


def test_the_chunk_of_a_short_document_is_cut_in_two_at_a_sentence_start():
    block, _ = make_block([(1, 1, [words(3), words(4)]), (2, 2, [words(5), words(6)])])
    pairs, _ = make_pairs(cut_sentences(block, WORDS, 64), 64, 0, 0, 0.0)
    for row in rows_of(pairs):
        assert row[0] in (0, 3, 7, 12) and row[2] in (0, 3, 7, 12)


def test_a_long_pair_loses_the_end_of_b_first_then_the_front_of_a():
    """Room for 13 tokens, at least 3 of them for B."""
    documents = [(i, i, [words(12), words(10)]) for i in range(40)]
    block, _ = make_block(documents)
    pairs, _ = make_pairs(cut_sentences(block, WORDS, 16), 16, 0, 1, 0.0)
    assert set(zip(pairs.a_length.tolist(), pairs.b_length.tolist())) == {(10, 3)}
    assert set((pairs.a_start % 22).tolist()) == {2}


def test_a_document_of_one_sentence_is_divided_between_two_words_whatever_the_label():
    """Where it could only be the A of a random pair, 88 % of the labels of Chinese paragraphs of 128 tokens were guessed."""
    block, _ = make_block([(i, i, [[1, 1, 30, 1, 30, 1]]) for i in range(200)])
    pairs, counters = make_pairs(cut_sentences(block, WORDS, 32), 32, 0, 0, 0.1)
    assert counters["pairs-without-second"] == 0 and len(pairs) > 150 and abs(len(pairs) - 2 * pairs.label.sum()) <= 1
    for label in (NEXT, RANDOM):
        of_label = pairs.take(np.flatnonzero(pairs.label == label))
        assert set(of_label.a_length.tolist()) == set(of_label.b_length.tolist()) - {2, 4} | {1, 3, 5}
        assert {(int(b), int(e)) for b, e in zip(of_label.b_start % 6, of_label.b_length)} == {(1, 5), (3, 3), (5, 1)}


def test_a_document_of_one_word_makes_no_pair_and_is_counted():
    block, _ = make_block([(i, i, [[1, 30, 30]]) for i in range(5)] + [(9, 9, [words(4), words(4)])])
    pairs, counters = make_pairs(cut_sentences(block, WORDS, 32), 32, 0, 0, 0.1)
    assert pairs.document_a.tolist() == [5] and counters["pairs-without-second"] == 5


def test_a_single_source_is_an_error_with_a_remedy():
    block, _ = make_block([(i, 7, [words(4)]) for i in range(9)])
    with pytest.raises(ValueError, match="a bucket has one source: add documents or lower --val"):
        make_pairs(cut_sentences(block, WORDS, 32), 32, 0, 0, 0.1)


def test_an_empty_bucket_has_no_pairs():
    block, _ = make_block([])
    pairs, counters = make_pairs(cut_sentences(block, WORDS, 32), 32, 0, 0, 0.1)
    assert len(pairs) == 0 and set(counters.values()) == {0}


# ---- on a corpus like a real one


def corpus(num_documents: int, seed: int, least: int = 3, more: int = 12, tokens: int = 18) -> TokenBlock:
    """Documents of `least` and on average about `more` more sentences of 3 to 60 or more tokens, a third of them pieces."""
    r = random.Random(seed)
    documents = []
    for i in range(num_documents):
        count = least + (int(r.expovariate(1 / more)) if more else 0)
        sizes = [min(60 + tokens, 3 + int(r.expovariate(1 / tokens))) for _ in range(count)]
        bodies = [[1] + [r.choice((1, 1, 30)) for _ in range(size - 1)] for size in sizes]
        documents.append((i, i, bodies))
    return make_block(documents)[0]


@pytest.fixture(scope="module")
def corpus_pairs():
    s = cut_sentences(corpus(2500, 1), WORDS, 64)
    return s, *make_pairs(s, 64, 0, 1, 0.1)


def gap(one: np.ndarray, two: np.ndarray) -> float:
    """Kolmogorov-Smirnov: the largest distance of the distributions, over what chance exceeds once in a thousand."""
    values = np.unique(np.concatenate([one, two]))
    shares = [np.searchsorted(np.sort(x), values, side="right") / len(x) for x in (one, two)]
    return float(np.abs(shares[0] - shares[1]).max() / (1.95 * np.sqrt(1 / len(one) + 1 / len(two))))


@pytest.mark.parametrize("name", ["a_length", "b_length"])
def test_the_length_of_a_segment_does_not_tell_the_label(corpus_pairs, name):
    _, pairs, _ = corpus_pairs
    values = getattr(pairs, name)
    assert len(pairs) > 5000 and gap(values[pairs.label == RANDOM], values[pairs.label == NEXT]) < 1


def guessed(cell: np.ndarray, label: np.ndarray) -> float:
    """Share of the labels that a table guesses, learned on one half and tested on the other."""
    learned = np.arange(len(label)) % 2 == 0
    votes = np.bincount(cell[learned], weights=label[learned] * 2.0 - 1, minlength=int(cell.max()) + 1)
    return float(((votes[cell] > 0) == (label == RANDOM))[~learned].mean())


@pytest.mark.parametrize("sentences, tokens", [((3, 12), 18), ((1, 2), 30), ((1, 1), 60), ((2, 0), 90)])
@pytest.mark.parametrize("length", [64, 256])
def test_lengths_beginnings_and_ends_together_guess_the_label_no_better_than_a_coin(sentences, tokens, length):
    """Also where documents are short and sentences long. When the first sentence of the text after 128 draws was taken as B,
    up to 78 % were guessed, because no draw ended where the true B did."""
    s = cut_sentences(corpus(2500, 1, *sentences, tokens), WORDS, length)
    pairs, counters = make_pairs(s, length, 0, 1, 0.1)
    begins, ends = s.is_edge[pairs.b_start], s.is_edge[pairs.b_start + pairs.b_length]
    a_ends = s.is_edge[pairs.a_start + pairs.a_length]
    left = np.minimum(length - 3 - pairs.a_length - pairs.b_length, 3)
    wide = length // 8
    cell = (pairs.a_length // wide * 8 + pairs.b_length // wide) * 4 + left
    for found in (cell, begins * 2 + ends + 4 * a_ends, cell * 8 + begins * 4 + ends * 2 + a_ends):
        assert guessed(found, pairs.label) < 0.5 + 4 * 0.5 / (len(pairs) / 2) ** 0.5
    assert counters["pairs-unmatched-random-b"] < 0.01 * len(pairs)


def test_a_random_b_is_like_the_true_one_if_most_of_the_text_is_of_the_source_of_a():
    r = random.Random(4)
    sentences = [[words(r.randrange(5, 30)) for _ in range(30)] for _ in range(100)]
    block, _ = make_block([(i, 0 if i < 90 else i, body) for i, body in enumerate(sentences)])
    s = cut_sentences(block, WORDS, 64)
    pairs, counters = make_pairs(s, 64, 0, 1, 0.1)
    assert counters["pairs-unmatched-random-b"] < 0.05 * len(pairs)
    assert guessed(s.is_edge[pairs.b_start + pairs.b_length].astype(int), pairs.label) < 0.53


def test_few_pairs_are_dropped(corpus_pairs):
    _, pairs, counters = corpus_pairs
    assert counters["pairs-dropped"] < 0.02 * len(pairs)
    assert counters["pairs-without-second"] == 0 and counters["pairs-unmatched-random-b"] < 0.001 * len(pairs)


def test_random_bs_are_where_true_bs_are(corpus_pairs):
    """They are in as many documents as fair draws reach, and never at the beginning of one, where no true B is."""
    s, pairs, _ = corpus_pairs
    random = pairs.label == RANDOM
    assert len(np.unique(pairs.document_b[random])) > 0.6 * len(s.ids_of_documents)
    assert not np.isin(pairs.b_start, s.edges[s.first[:-1]]).any()
    lengths = np.diff(s.edges[s.first])[
        pairs.document_b
    ]  # long documents have as many of them as they have of true ones
    assert gap(lengths[random], lengths[~random]) < 1


def test_another_copy_seed_or_length_makes_other_pairs(corpus_pairs):
    s, pairs, _ = corpus_pairs
    base = rows_of(pairs)
    for copy, seed in ((1, 1), (0, 2)):
        other = rows_of(make_pairs(s, 64, copy, seed, 0.1)[0])
        assert len(set(base) & set(other)) < 0.2 * len(base)
    assert rows_of(make_pairs(s, 64, 0, 1, 0.1)[0]) == base


def test_the_pairs_of_a_document_do_not_depend_on_the_documents_before_it():
    """Only labels that balance the pairs may depend on them. No document here has one sentence, so chunks are the same."""
    block = corpus(60, 3)
    rows = block.documents
    skip = 20
    tokens, sentences = int(rows["num_tokens"][:skip].sum()), int(rows["num_sentences"][:skip].sum())
    rest = TokenBlock(block.ids[tokens:], block.sentence_lengths[sentences:], rows[skip:])
    (all_pairs, _), (rest_pairs, _) = (make_pairs(cut_sentences(b, WORDS, 32), 32, 0, 5, 0.1) for b in (block, rest))
    names = [
        {(int(p.document_a[i]) + shift, int(p.sentence[i])) for i in range(len(p)) if p.document_a[i] + shift >= skip}
        for p, shift in ((all_pairs, 0), (rest_pairs, skip))
    ]
    assert len(names[0] & names[1]) > 0.8 * len(names[0])

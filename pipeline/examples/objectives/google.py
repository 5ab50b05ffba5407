"""The pairs of `--compat google`: as google-research/bert makes them, with its faults, to compare with it.

The draws are bertloom's own, so single examples differ; their distribution is the same. What
`create_pretraining_data.py` of revision eedf571 does, with its known effects:

- The target length is drawn once per document. Documents with a short one make more examples, so more than 10 % of the
  examples are short.
- A chunk of one sentence always makes a random pair, so more than half of the pairs are random.
- A random B comes from any other document, also one of A's source, and after ten tries from A's own document.
- B fills what A leaves of the target and ends with its document, so its length tells the label.
- What is too long loses single tokens from the front or the back: words are cut, and the rest of sentences longer than the
  room is lost.

The masks of Google's script are in `pipeline.examples.masking.google`. Unlike there, documents end with their file, and
random segments come from the documents of the same bucket.
"""

from collections.abc import Iterator

import numpy as np

from bertloom.arrays import I64, U64, Bools
from bertloom.draws import PAIRS, bounded, bounded_low, chance, draw, fold
from pipeline.examples.objectives import nsp
from pipeline.examples.objectives.objective import DrawnPair, Objective, PlacedPairs
from pipeline.examples.pairs import Pairs, coins
from pipeline.examples.sentences import MIN_TARGET, Sentences, sentence_keys, split_sentences, walk_chunks
from pipeline.tokens import TokenBlock
from pipeline.vocabulary import WordKinds

NEXT, RANDOM = nsp.NEXT, nsp.RANDOM
TRIES = 10
FIRST_CUT_DRAW = 2 + 2 * TRIES


def cut_sentences(block: TokenBlock, words: WordKinds, max_seq_length: int) -> Sentences:
    """Return the sentences of a bucket, all whole."""
    room = max_seq_length - 3
    return split_sentences(block, words, room=room, longest=None, piece=room)


def make_pairs(
    sentences: Sentences, max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[Pairs, dict[str, int]]:
    """Return what `create_instances_from_document` makes of every document of a bucket, and counters."""
    s = sentences
    n = len(s.document)
    room = max_seq_length - 3
    document_draws = draw(fold(seed, PAIRS, max_seq_length, copy, s.ids_of_documents), 0)
    short = chance(document_draws, short_seq_prob)
    target = np.where(short, MIN_TARGET + bounded_low(document_draws, room - MIN_TARGET + 1), room)[s.document]

    keys = sentence_keys(s, max_seq_length, copy, seed)
    here = np.arange(n)
    end = np.searchsorted(s.edges, s.edges[:-1] + target)
    end = np.minimum(end, s.first[s.document + 1])
    draws = draw(keys, 1)
    a_end = here + 1 + bounded(draws, np.maximum(end - here - 1, 1))
    random = coins(draws) | (end - here == 1)

    chosen = walk_chunks(np.where(random, a_end, end))
    label = random[chosen].astype(np.int8)
    a_start, b_start = s.edges[chosen], s.edges[a_end[chosen]]
    a_length, b_length = b_start - a_start, s.edges[end[chosen]] - b_start
    document_a = s.document[chosen]
    document_b = document_a.copy()
    drawn = np.flatnonzero(label == RANDOM)
    sentence = _random_b(s, keys[chosen[drawn]], document_a[drawn])
    stop = s.edges[sentence] + np.maximum(target[chosen[drawn]] - a_length[drawn], 1)
    document_b[drawn] = s.document[sentence]
    b_start = b_start.copy()
    b_start[drawn] = s.edges[sentence]
    last = np.minimum(np.searchsorted(s.edges, stop), s.first[document_b[drawn] + 1])
    b_length[drawn] = s.edges[last] - s.edges[sentence]

    a_cut, b_cut = _shares_of_excess(a_length, b_length, room)
    a_front = _coins(keys[chosen], FIRST_CUT_DRAW, a_cut)
    b_front = _coins(keys[chosen], FIRST_CUT_DRAW + 1, b_cut)
    counters = {"pairs-forced-random": int((end[chosen] - chosen == 1).sum())}
    return Pairs(
        a_start + a_front,
        a_length - a_cut,
        b_start + b_front,
        b_length - b_cut,
        label,
        document_a,
        document_b,
        chosen - s.first[document_a],
    ), counters


def _random_b(s: Sentences, keys: U64, document_a: I64) -> I64:
    """Return the first sentence of a random B. A document is drawn until it is not A's, at most ten times."""
    documents = len(s.ids_of_documents)
    found = np.empty(len(keys), np.int64)
    left = np.arange(len(keys))
    for j in range(TRIES):
        found[left] = bounded(draw(keys[left], 2 + j), documents)
        left = left[found[left] == document_a[left]]
    first = s.first[found]
    return first + bounded(draw(keys, 2 + TRIES), s.first[found + 1] - first)


def _shares_of_excess(a_length: I64, b_length: I64, room: int) -> tuple[I64, I64]:
    """Return how many tokens A and B lose if one at a time is cut from the longer one, from B on a tie, until both fit."""
    excess = np.maximum(a_length + b_length - room, 0)
    difference = np.abs(a_length - b_length)
    one_sided = np.minimum(excess, difference)
    rest = excess - one_sided
    a_cut = np.where(a_length > b_length, one_sided, 0) + rest // 2
    return a_cut, excess - a_cut


def _coins(keys: U64, first: int, counts: I64) -> I64:
    """Return how many of counts[i] fair coins show heads: the bits of draws first, first + 2, ..., 64 at a time."""
    heads = np.zeros(len(keys), np.int64)
    left, rows, j = counts.copy(), np.flatnonzero(counts > 0), first
    while len(rows):
        bits = np.minimum(left[rows], 64).astype(np.uint64)
        draws = draw(keys[rows], j) >> (np.uint64(64) - bits)
        heads[rows] += np.bitwise_count(draws).astype(np.int64)
        left[rows] -= bits.astype(np.int64)
        rows, j = rows[left[rows] > 0], j + 2
    return heads


def label_faults(pairs: PlacedPairs) -> Iterator[tuple[str, Bools]]:
    """Yield the labels that are not true. B may have lost its front, and a random B may be from A's source."""
    follows = pairs.one_document & (pairs.end_a <= pairs.start_b)
    yield "has label 0, but B does not follow A", (pairs.label == NEXT) & ~follows


def explain(drawn: DrawnPair) -> list[str]:
    """Describe how a pair was drawn."""
    target = "its target length was drawn for the whole document, as in Google's script"
    return [target, *drawn.about_front(), *drawn.about_random_b()]


GOOGLE = Objective(
    name=nsp.NSP.name,
    compat="google",
    summary="as google-research/bert makes them, with its faults",
    labels=nsp.LABELS,
    min_sources=2,
    tokens_per_token=nsp.TOKENS_PER_TOKEN,
    form_tells_label=True,
    cut_sentences=cut_sentences,
    make_pairs=make_pairs,
    label_faults=label_faults,
    explain=explain,
)

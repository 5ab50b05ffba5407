"""`--compat google`: pairs and masks as google-research/bert makes them, faults included.

The draws are ours, so examples are not the same one by one; their distribution is. From `create_pretraining_data.py` of
revision eedf571, with what is known of it:

- the target length is drawn once a document: short ones make more examples, so more than 10 % of examples are short;
- a chunk of one sentence is always random: more than half of the pairs are;
- a random B is drawn from any document but its own, of its own source too, and after ten tries from its own;
- B fills what A leaves of the target and ends with its document, so its length tells the label;
- what is too long loses single tokens from the front or the back: words are cut, and sentences longer than the room lost;
- halves are rounded to even; a random word may be [PAD] or [unused7]; each piece of a whole word has its own 80/10/10, a
  word may reach across [SEP], and long words are masked less often, for those that do not fit are passed over.

Documents still end with their file, and draw from the documents of one bucket.
"""

import numpy as np
from numpy.typing import NDArray

from bertloom.draws import PAIRS, U64, bounded, bounded_low, chance, draw, fold, threshold
from pipeline.examples.objectives.nsp import MIN_TARGET, RANDOM, Pairs, Sentences, no_pairs, sentence_keys
from pipeline.examples.objectives.segments import walk

TRIES = 10
FIRST_CUT_DRAW = 2 + 2 * TRIES


def make_pairs(
    s: Sentences, max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[Pairs, dict[str, int]]:
    """`create_instances_from_document` for every document of a bucket; its sentences must be whole, of any length."""
    n = len(s.document)
    if n == 0:
        return no_pairs(), {"pairs-forced-random": 0}
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
    coin = (draws & np.uint64(0xFFFFFFFF)) < np.uint64(threshold(0.5, 32))
    random = coin | (end - here == 1)

    chosen = walk(np.where(random, a_end, end))
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


def _random_b(s: Sentences, keys: U64, document_a: NDArray[np.int64]) -> NDArray[np.int64]:
    """First sentence of a random B: a document drawn up to ten times until it is another one, then a sentence of it."""
    documents = len(s.ids_of_documents)
    found = np.empty(len(keys), np.int64)
    left = np.arange(len(keys))
    for j in range(TRIES):
        found[left] = bounded(draw(keys[left], 2 + j), documents)
        left = left[found[left] == document_a[left]]
    first = s.first[found]
    return first + bounded(draw(keys, 2 + TRIES), s.first[found + 1] - first)


def _shares_of_excess(a_length: NDArray, b_length: NDArray, room: int) -> tuple[NDArray, NDArray]:
    """How many tokens A and B lose when one is taken from the longer, from B on a tie, until both fit."""
    excess = np.maximum(a_length + b_length - room, 0)
    difference = np.abs(a_length - b_length)
    one_sided = np.minimum(excess, difference)
    rest = excess - one_sided
    a_cut = np.where(a_length > b_length, one_sided, 0) + rest // 2
    return a_cut, excess - a_cut


def _coins(keys: U64, first: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of counts[i] fair coins show heads: the bits of draws first, first + 2, ..., 64 at a time."""
    heads = np.zeros(len(keys), np.int64)
    left, rows, j = counts.copy(), np.flatnonzero(counts > 0), first
    while len(rows):
        bits = np.minimum(left[rows], 64).astype(np.uint64)
        draws = draw(keys[rows], j) >> (np.uint64(64) - bits)
        heads[rows] += np.bitwise_count(draws).astype(np.int64)
        left[rows] -= bits.astype(np.int64)
        rows, j = rows[left[rows] > 0], j + 2
    return heads


def mask_counts(max_seq_length: int, masked_lm_prob: float, max_predictions: int) -> NDArray[np.int64]:
    """Number of masks by an example's length: min(max_predictions_per_seq, max(1, round(n * p))), halves to even."""
    return np.minimum([max(1, round(n * masked_lm_prob)) for n in range(max_seq_length + 1)], max_predictions)

"""Next sentence prediction: B is the text after A, or text of another source.

A chunk of sentences is filled up to the target length. Its first sentences are A, and the rest is B. If the label is
"next", this is the pair. If it is "random", A gets the B of another chunk, and the next chunk begins with the rest (Devlin
et al. 2018, appendix A.2, as in google-research/bert). Differences from Google's script, with the reasons:

- The target length is drawn for each example, not for each document: 10 % of the examples are then short, not up to 38 %.
- Every chunk has an A and a B before a coin decides its label, so A does not depend on the label. A chunk has at least two
  sentences, and none leaves a single last sentence. A document of one sentence is divided between two of its words.
- The numbers of random and next pairs differ by at most one. In Google's data 50 to 70 % are random.
- The B of a random pair is the B of another chunk from another source. It begins and ends like the true B: at the border of
  a sentence, or inside one. It has the length of the true B if that fills the room, and otherwise about that length. So the
  label cannot be guessed from its length, from how it begins and ends, or from the kind of its text.
- What is too long loses the end of B, down to a quarter of the room, then the front of A, at word starts. No word is cut.
- A sentence longer than the room is cut into pieces of at most half of it. Google's script drops what does not fit.

Every possible chunk is computed for every sentence at once. Only the walk from chunk to chunk is a loop, with one list
look-up per chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64, Bools
from bertloom.draws import bounded, draw
from pipeline.examples.objectives.objective import DrawnPair, Objective, PlacedPairs
from pipeline.examples.pairs import PLACE_TRIES, Pairs, coins, draw_places, without_surplus
from pipeline.examples.sentences import Sentences, sentence_keys, split_sentences, target_lengths, walk_chunks
from pipeline.tokens import TokenBlock
from pipeline.vocabulary import WordKinds

NEXT, RANDOM = 0, 1
LABELS = {NEXT: "next", RANDOM: "random"}
TOKENS_PER_TOKEN = 1.3  # measured; the random segments come on top of the text
TRIES = 64  # draws of a random B, each four from twice as many Bs
NEAR = 8  # the first four are drawn from the 8 next shorter and the 8 next longer Bs
TIE_DRAW = 2
FIRST_PLACE_DRAW = 3
FIRST_B_DRAW = FIRST_PLACE_DRAW + PLACE_TRIES
FIRST_FAR_DRAW = FIRST_B_DRAW + TRIES


def cut_sentences(block: TokenBlock, words: WordKinds, max_seq_length: int) -> Sentences:
    """Return the sentences of a bucket, those longer than the room cut so that a pair of the pieces fits."""
    room = max_seq_length - 3
    return split_sentences(block, words, room=room, longest=room, piece=room // 2)


def make_pairs(
    sentences: Sentences, max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[Pairs, dict[str, int]]:
    """Return all pairs of one copy of a bucket in the order of its documents, and counters."""
    s = sentences
    room = max_seq_length - 3
    keys = sentence_keys(s, max_seq_length, copy, seed)

    # for each sentence, the chunk that would begin there
    target = target_lengths(keys, room, short_seq_prob)
    short = np.flatnonzero(target < room)
    here = np.arange(len(s.document))
    end = s.full_end.copy()
    end[short] = np.searchsorted(s.edges, s.edges[short] + target[short])
    last = s.first[s.document + 1]
    end = np.minimum(np.maximum(end, here + 2), last)
    end = np.where(last - end == 1, last, end)  # a single sentence left over could only be divided inside
    draws = draw(keys, 1)
    a_end = here + 1 + bounded(draws, np.maximum(end - here - 1, 1))
    coin = coins(draws)
    put_back = np.where(last - a_end == 1, last, a_end)  # so it is not put back either
    chosen = walk_chunks(np.where(coin & (a_end < end), put_back, end))

    middle = s.edges[a_end[chosen]]
    one = np.flatnonzero(a_end[chosen] == end[chosen])
    of_one = chosen[one]
    middle[one] = draw_places(s.head, keys[of_one], FIRST_PLACE_DRAW, s.edges[of_one], s.edges[of_one + 1])
    has_b = middle >= 0
    chosen, middle = chosen[has_b], middle[has_b]
    label = coin[chosen].astype(np.int8)
    keep = without_surplus(s, chosen, label, max_seq_length, copy, seed)
    counters = {
        "pairs-of-one-sentence": int(has_b[one].sum()),
        "pairs-without-second": int((~has_b).sum()),
        "pairs-dropped": len(chosen) - len(keep),
    }
    chosen, middle, label = chosen[keep], middle[keep], label[keep]

    # cut what is too long; the label makes no difference
    stop = s.edges[end[chosen]]
    a_start, wanted = _cut_to_room(s.head, s.edges[chosen], middle, stop - middle, room)
    is_free = (middle + wanted == stop) & s.is_edge[stop]
    document = s.document[chosen]
    length = _back_to_word(s.head, middle, middle + wanted) - middle
    own = _Bs(middle, wanted, length, is_free, document, keys[chosen])
    random = np.flatnonzero(label == RANDOM)
    b_start, b_length, document_b = middle.copy(), own.length.copy(), document.copy()
    b_start[random], b_length[random], document_b[random], counters["pairs-unmatched-random-b"] = _random_bs(
        s, own, random, room - (middle - a_start)[random]
    )
    ordinal = chosen - s.first[document]
    return Pairs(a_start, middle - a_start, b_start, b_length, label, document, document_b, ordinal), counters


def _cut_to_room(head: Bools, a_start: I64, b_start: I64, b_length: I64, room: int) -> tuple[I64, I64]:
    """Return (a_start, b_length) that make consecutive segments A and B fit the room.

    B loses its end, down to a quarter of the room, then A its front, at a word start. B's end may still cut a word.
    """
    excess = np.maximum(b_start - a_start + b_length - room, 0)
    b_cut = np.minimum(excess, b_length - np.minimum(b_length, max(1, room // 4)))
    return _forward_to_word(head, a_start + (excess - b_cut), b_start), b_length - b_cut


@dataclass(frozen=True, slots=True)
class _Bs:
    """The true Bs of all pairs. All arrays (pairs,)."""

    start: I64
    wanted: I64
    """Number of tokens before the end was moved back to the end of a word."""
    length: I64
    is_free: Bools
    """Whether it ends with its last sentence, and not because the room is full."""
    document: I64
    keys: U64
    """Keys of the draws for their chunks."""


def _random_bs(s: Sentences, own: _Bs, random: I64, room: I64) -> tuple[I64, I64, I64, int]:
    """Return (start, length, document) of the B of each random pair, and the number of pairs without a matching B.

    The Bs of all pairs are sorted by how they begin and why they end, then by length. The random B is drawn from the
    neighbours of the true B, at first from the nearest ones. If A's source has most of the text, all neighbours may be from
    this source. Then it is drawn from the Bs of all other sources.

    Args:
        random: the pairs that are random.
        room: tokens that A leaves to B, for each of them.
    """
    found, length = np.full(len(random), -1), np.zeros(len(random), np.int64)
    kind = 2 * s.is_edge[own.start] + own.is_free
    source = s.source_keys[own.document]
    near = _Sorted(np.lexsort((draw(own.keys, TIE_DRAW), own.wanted, kind)), kind)
    left, far = np.arange(len(random)), None
    for j in range(FIRST_B_DRAW, FIRST_FAR_DRAW + TRIES):
        if len(left) == 0:
            break
        i = random[left]
        draws = draw(own.keys[i], j)
        if j < FIRST_FAR_DRAW:
            other = near.draw_neighbour(i, NEAR << (j - FIRST_B_DRAW) // 4, draws)
        else:
            far = far or _Sorted(np.argsort(source, kind="stable"), source)
            other = far.draw_from_other_groups(i, draws)
        size, fits = _fit(s, own, i, other)
        good = fits & (kind[other] == kind[i]) & (source[other] != source[i]) & (size <= room[left])
        found[left[good]], length[left[good]] = other[good], size[good]
        left = left[~good]
        other = other[~good]
    document, start = own.document[found], own.start[found]
    if len(left):
        document[left], start[left], length[left] = _unlike(s, own, random[left], other, room[left])
    return start, length, document, len(left)


class _Sorted:
    """Bs in groups: each group is a range of their order."""

    def __init__(self, order: NDArray[np.intp], group: NDArray[Any]):
        """order: the numbers of the Bs, sorted by group; group: the group of each B."""
        self.order = order
        self.rank = np.empty(len(order), np.int64)
        self.rank[order] = np.arange(len(order))
        ordered = group[order]
        self.first = np.searchsorted(ordered, group, side="left")
        self.past = np.searchsorted(ordered, group, side="right")

    def draw_neighbour(self, i: I64, reach: int, draws: U64) -> NDArray[np.intp]:
        """Return one of the Bs of the same group that are at most `reach` places away, for each B of `i`."""
        first = np.maximum(self.rank[i] - reach, self.first[i])
        past = np.minimum(self.rank[i] + reach + 1, self.past[i])
        return self.order[first + bounded(draws, past - first)]

    def draw_from_other_groups(self, i: I64, draws: U64) -> NDArray[np.intp]:
        """Return one of the Bs of other groups for each B of `i`, or the B itself if there is no other group."""
        size = self.past[i] - self.first[i]
        place = bounded(draws, np.maximum(len(self.order) - size, 1))
        other = self.order[np.minimum(place + (place >= self.first[i]) * size, len(self.order) - 1)]
        return np.where(size == len(self.order), i, other)


def _fit(s: Sentences, own: _Bs, i: I64, other: I64) -> tuple[I64, Bools]:
    """Return (length, whether it is about as long and ends alike) of each `other` B in the place of the true B of pair `i`.

    Where the true B is free, the other one keeps its own end. Elsewhere it gets the length of the true one.
    """
    free, ends = own.is_free[i], s.is_edge[own.start[i] + own.length[i]]
    start, past = own.start[other], s.edges[s.first[own.document[other] + 1]]
    stop = np.minimum(start + np.where(free, own.length[other], own.wanted[i]), past)
    stop = np.where(free, stop, _back_to_word(s.head, start, stop))
    about_as_long = np.abs(stop - start - own.length[i]) <= own.length[i] // 8
    return stop - start, np.where(free, about_as_long, s.is_edge[stop] == ends)


def _unlike(s: Sentences, own: _Bs, i: I64, other: I64, room: I64) -> tuple[I64, I64, I64]:
    """Return (document, start, length) of Bs of other sources for the pairs `i`, which have no B that is like the true one.

    other: a B for each pair. If it is from the same source, no other source has a B, and the start of a text of another
    source is taken.
    """
    document, start = own.document[other], own.start[other]
    for k in np.flatnonzero(s.source_keys[document] == s.source_keys[own.document[i]]):
        document[k] = _next_other_source(s, int(document[k]))
        start[k] = s.edges[s.first[document[k]]]
    stop = np.minimum(start + np.minimum(own.wanted[i], room), s.edges[s.first[document + 1]])
    return document, start, _back_to_word(s.head, start, stop) - start


def _next_other_source(s: Sentences, document: int) -> int:
    """Return the next document of another source."""
    n = len(s.source_keys)
    for step in range(1, n):
        other = (document + step) % n
        if s.source_keys[other] != s.source_keys[document] and s.first[other] < s.first[other + 1]:
            return other
    raise ValueError(
        "next sentence prediction needs documents from two sources in every bucket, but a bucket has one source: "
        "add documents or lower --validation-fraction"
    )


def _forward_to_word(head: Bools, at: I64, limit: I64) -> I64:
    """Return the first word start at or after `at` and below `limit`, or `at` where there is none."""
    moved = at.copy()
    move = np.flatnonzero(~head[moved])
    while len(move):
        moved[move] += 1
        move = move[moved[move] < limit[move]]
        move = move[~head[moved[move]]]
    return np.where(moved < limit, moved, at)


def _back_to_word(head: Bools, start: I64, end: I64) -> I64:
    """Return the last word end at or before `end` and after `start`, or `end` where there is none."""
    moved = end.copy()
    move = np.flatnonzero(moved < len(head))
    move = move[~head[moved[move]]]
    while len(move):
        moved[move] -= 1
        move = move[moved[move] > start[move]]
        move = move[~head[moved[move]]]
    return np.where(moved > start, moved, end)


def label_faults(pairs: PlacedPairs) -> Iterator[tuple[str, Bools]]:
    """Yield the labels that are not true."""
    yield "has label 0, but B does not follow A", (pairs.label == NEXT) & ~pairs.b_follows_a
    yield "has label 1, but A and B are of one source", (pairs.label == RANDOM) & pairs.one_source


def explain(drawn: DrawnPair) -> list[str]:
    """Describe how a pair was drawn."""
    s = drawn.sentences
    sentences = [drawn.about_target(drawn.max_seq_length - 3), f"a coin made it a {LABELS[drawn.label]} pair"]
    if s.first[drawn.pair.document_a[0] + 1] - s.first[drawn.pair.document_a[0]] == 1:
        sentences.append("its document has one sentence, so a draw divided it between two words")
    if drawn.label == RANDOM:
        sentences.append(
            "B was drawn from the Bs of pairs from other sources that begin and end like the true B and are about as long"
        )
    return [*sentences, *drawn.about_front()]


NSP = Objective(
    name="nsp",
    summary="is B the next segment or a random one (BERT)?",
    labels=LABELS,
    min_sources=2,
    tokens_per_token=TOKENS_PER_TOKEN,
    form_tells_label=False,
    cut_sentences=cut_sentences,
    make_pairs=make_pairs,
    label_faults=label_faults,
    explain=explain,
)

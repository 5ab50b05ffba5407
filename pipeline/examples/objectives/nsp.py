"""Next sentence prediction: B is the text after A, or random text of another source.

A chunk of sentences is filled up to the target length; its first sentences are A. Where the pair is "next", the rest of
the chunk is B. Where it is "random", B comes from another source and the rest goes back to begin the next chunk (Devlin
et al. 2018, appendix A.2, as in google-research/bert). Differences from Google's script, with the reasons:

- The target length is drawn for each example, not for each document: 10 % of the examples are then short, not up to 38 %.
- A chunk has at least two sentences, and no chunk leaves a single last sentence. Only a document of one sentence makes a
  pair that has to be random.
- The numbers of random and next pairs differ by at most one. In Google's data 50 to 70 % are random.
- A random B never has the source of A, begins at a uniformly drawn sentence, and is as long as the true B would have
  been. It ends at the end of a sentence exactly where the true B would have. Neither length nor ending tells the label.
- What is too long loses the end of B, down to a quarter of the room, then the front of A, at word starts. No word is cut.
- A sentence longer than the room is cut into pieces of at most half of it. Google's script drops what does not fit.

Every possible chunk is computed for every sentence at once. Only the walk from chunk to chunk is a loop, with a few list
look-ups per example.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64, Bools
from bertloom.draws import bounded, draw
from pipeline.examples.objectives.objective import DrawnPair, Objective, PlacedPairs
from pipeline.examples.pairs import Pairs, coins, without_surplus
from pipeline.examples.sentences import Sentences, sentence_keys, split_sentences, target_lengths
from pipeline.tokens import TokenBlock

NEXT, RANDOM = 0, 1
LABELS = {NEXT: "next", RANDOM: "random"}
TOKENS_PER_TOKEN = 1.3  # measured; the random segments come on top of the text
TRIES = 128  # draws of a random B before the best of them is taken; with 32, one in four ends where no true B would
EXACT, ENOUGH, OTHER = range(3)  # what is wanted of a random B, and what is accepted where no draw gave it


def cut_sentences(block: TokenBlock, continuation: Bools, max_seq_length: int) -> Sentences:
    """Return the sentences of a bucket, those longer than the room cut so that a pair of the pieces fits."""
    room = max_seq_length - 3
    return split_sentences(block, continuation, room=room, longest=room, piece=room // 2)


def make_pairs(
    sentences: Sentences, max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[Pairs, dict[str, int]]:
    """Return all pairs of one copy of a bucket in the order of its documents, and counters."""
    s = sentences
    counters = {"pairs-forced-random": 0, "pairs-dropped": 0, "pairs-short-random-b": 0}
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
    end = np.where(last - end == 1, last, end)  # a single sentence left over could only make a random pair
    size = end - here
    draws = draw(keys, 1)
    a_end = here + 1 + bounded(draws, np.maximum(size - 1, 1))
    put_back = np.where(last - a_end == 1, last, a_end)  # so it is not put back either
    coin = coins(draws)

    chosen, label = _walk(size, coin, put_back, end)
    counters["pairs-forced-random"] = int((size[chosen] == 1).sum())
    keep = without_surplus(s, chosen, label, max_seq_length, copy, seed)
    counters["pairs-dropped"] = len(chosen) - len(keep)
    chosen, label = chosen[keep], label[keep]

    # cut what is too long; the label makes no difference
    a_start, b_start = s.edges[chosen], s.edges[a_end[chosen]]
    a_length, b_length = b_start - a_start, s.edges[end[chosen]] - b_start
    forced = b_length == 0
    b_length[forced] = np.maximum(target[chosen[forced]] - a_length[forced], room // 4)
    a_start, b_length, b_cut = _cut_to_room(s.head, a_start, b_start, b_length, room)
    a_length = b_start - a_start

    document_b = s.document[chosen].copy()
    random = np.flatnonzero(label == RANDOM)
    whole = (b_cut[random] == 0) & ~forced[random]
    start, length = _random_b(s, keys[chosen[random]], s.document[chosen[random]], b_length[random], whole)
    counters["pairs-short-random-b"] = int((length < b_length[random]).sum())
    b_start, b_length[random] = b_start.copy(), length
    b_start[random] = s.edges[start]
    document_b[random] = s.document[start]
    b_length = _back_to_word(s.head, b_start, b_start + b_length) - b_start

    document_a = s.document[chosen]
    ordinal = chosen - s.first[document_a]
    return Pairs(a_start, a_length, b_start, b_length, label, document_a, document_b, ordinal), counters


def _cut_to_room(head: Bools, a_start: I64, b_start: I64, b_length: I64, room: int) -> tuple[I64, I64, I64]:
    """Return (a_start, b_length, tokens cut from B) that make consecutive segments A and B fit the room.

    B loses its end, down to a quarter of the room, then A its front, at a word start. B's end may still cut a word.
    """
    excess = np.maximum(b_start - a_start + b_length - room, 0)
    b_cut = np.minimum(excess, b_length - np.minimum(b_length, max(1, room // 4)))
    return _forward_to_word(head, a_start + (excess - b_cut), b_start), b_length - b_cut, b_cut


def _walk(size: I64, coin: Bools, put_back: I64, end: I64) -> tuple[I64, NDArray[np.int8]]:
    """Walk from chunk to chunk and return (first sentence of each, its label).

    A pair that has to be random shifts the balance of the labels by one; turning a random pair into a next one shifts it
    back by two. So after every second forced pair, the following pair whose coin says random becomes a next pair.

    Args:
        size: sentences of the chunk that begins at each sentence; 1 means that its pair has to be random.
        coin: whether its pair is random.
        put_back: first sentence of the following chunk if the pair is random.
        end: first sentence of the following chunk if it is not.
    """
    n = len(size)
    forced = size == 1
    steps = (np.where(coin, put_back, end) * np.where(forced, -1, 1)).data  # negative: a forced random pair
    ends = end.data
    chosen: list[int] = []
    repaid: list[int] = []  # pairs made next to restore the balance
    add = chosen.append
    at = debt = 0
    while at < n:
        add(at)
        step = steps[at]
        if step > 0:
            at = step
            continue
        at, debt = -step, debt + 1
        while debt > 0 and at < n:
            add(at)
            if steps[at] < 0:
                debt += 1
            elif coin[at]:
                debt -= 2
                repaid.append(at)
            at = ends[at]
    label = (coin | forced).astype(np.int8)
    label[repaid] = NEXT
    index = np.array(chosen, np.int64)
    return index, label[index]


def _random_b(s: Sentences, keys: U64, document_a: I64, length: I64, whole: Bools) -> tuple[I64, I64]:
    """Return (first sentence, length) of a random B for each pair.

    Up to TRIES sentences are drawn uniformly from the other documents. The first choice is one of another source with
    enough text after it, and with the end of a sentence at exactly that length where the true B was `whole`, or no end
    there where it was cut. The second choice is the first one with enough text, the third the first one of another
    source, which is then shorter.
    """
    found = np.full(len(keys), -1)
    own_size = s.first[document_a + 1] - s.first[document_a]
    for wanted in (EXACT, ENOUGH, OTHER):
        open_ = np.flatnonzero((found < 0) & (own_size < len(s.document)))
        columns: tuple[NDArray[Any], ...] = (
            keys,
            s.first[document_a],
            own_size,
            s.source_keys[document_a],
            length,
            whole,
        )
        asked = [column[open_] for column in columns]
        for j in range(TRIES):
            if len(open_) == 0:
                break
            key, own, size, source, tokens, ends = asked
            at = bounded(draw(key, 2 + j), len(s.document) - size)
            at += (at >= own) * size
            document = s.document[at]
            good = s.source_keys[document] != source
            stop = s.edges[at] + tokens
            if wanted != OTHER:
                good &= stop <= s.edges[s.first[document + 1]]
            if wanted == EXACT:
                good &= np.take(s.is_edge, stop, mode="clip") == ends
            found[open_[good]] = at[good]
            left = np.flatnonzero(~good)
            open_, asked = open_[left], [column[left] for column in asked]
    for i in np.flatnonzero(found < 0):  # all draws gave A's own source: take the next other one
        found[i] = _next_other_source(s, int(document_a[i]))
    left = s.edges[s.first[s.document[found] + 1]] - s.edges[found]
    return found, np.minimum(length, left)


def _next_other_source(s: Sentences, document: int) -> int:
    n = len(s.source_keys)
    for step in range(1, n):
        other = (document + step) % n
        if s.source_keys[other] != s.source_keys[document] and s.first[other] < s.first[other + 1]:
            return int(s.first[other])
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
    sentences = [drawn.about_target(drawn.max_seq_length - 3)]
    coin = RANDOM if coins(draw(drawn.key, 1))[0] else NEXT
    if coin == drawn.label:
        sentences.append(f"a coin made it a {LABELS[drawn.label]} pair")
    elif drawn.label == RANDOM:
        sentences.append("one sentence of the document was left, so the pair had to be random")
    else:
        sentences.append("its coin said random, but it became a next pair to balance the pairs that had to be random")
    return [*sentences, *drawn.about_front(), *drawn.about_random_b()]


NSP = Objective(
    name="nsp",
    summary="is B the next segment or a random one (BERT)?",
    labels=LABELS,
    min_sources=2,
    tokens_per_token=TOKENS_PER_TOKEN,
    length_tells_label=False,
    cut_sentences=cut_sentences,
    make_pairs=make_pairs,
    label_faults=label_faults,
    explain=explain,
)

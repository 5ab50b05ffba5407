"""Sentence order prediction (Lan et al. 2020, ALBERT): A and B are the halves of one chunk, in half of the examples swapped.

A chunk is as many sentences as fit the target length, which is drawn as for next sentence prediction. ALBERT fills the
target up and cuts what is too long; a half whose end was cut off is then known to be the second. Here both halves begin and
end in the same way, and the first half is the shorter one as often as it is the longer one, for any two lengths:

- If a chunk begins and ends at sentence borders and has a sentence border inside, both halves are whole sentences. Such
  chunks are used in pairs that have about the same two lengths in opposite order. Otherwise the lengths would show the order
  in a text whose paragraphs begin with a short sentence.
- Both halves of all other chunks begin and end inside sentences. The place between them is as likely as its mirror image.
  Each half has at least an eighth of the tokens.
"""

from collections.abc import Iterator

import numpy as np

from bertloom.arrays import I64, U64, Bools
from bertloom.draws import PAIRS, bounded, chance, draw, fold
from pipeline.examples.objectives.objective import DrawnPair, Objective, PlacedPairs
from pipeline.examples.pairs import PLACE_TRIES, Pairs, coins, draw_places, without_surplus
from pipeline.examples.sentences import (
    Sentences,
    chunk_ends,
    sentence_keys,
    split_sentences,
    target_lengths,
    walk_chunks,
)
from pipeline.tokens import TokenBlock
from pipeline.vocabulary import WordKinds

IN_ORDER, SWAPPED = 0, 1
MARGIN = 2  # tokens; a border inside a sentence is farther from its ends
LEAST_SHARE = 8  # a half that is cut inside sentences has at least an eighth of its chunk
FIRST_PLACE_DRAW = 2
PARTNER_DRAW = FIRST_PLACE_DRAW + PLACE_TRIES
FIRST_BORDER_DRAW = PARTNER_DRAW + 1
BINS = (64, 64, 32, 32, 16, 16, 8, 8)  # bins of lengths in each try to find a partner


def cut_sentences(block: TokenBlock, words: WordKinds, max_seq_length: int) -> Sentences:
    """Return the sentences of a bucket, none longer than half the room, so that any two of them fit."""
    room = max_seq_length - 3
    return split_sentences(block, words, room=room, longest=room // 2, piece=room // 2)


def make_pairs(
    sentences: Sentences, max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[Pairs, dict[str, int]]:
    """Return all pairs of one copy of a bucket, and counters. A single sentence that is left over makes no pair.

    The sentence that did not fit begins the next chunk and is therefore longer than others on average. So that this does
    not tell the label, a keyed coin per document decides whether its chunks are cut from its start or from its end.
    """
    s = sentences
    n = len(s.document)
    keys = sentence_keys(s, max_seq_length, copy, seed)
    target = target_lengths(keys, max_seq_length - 3, short_seq_prob)
    here, first, last = np.arange(n), s.first[s.document], s.first[s.document + 1]
    backward = _backward(s, max_seq_length, copy, seed)[s.document]
    begin = np.maximum(np.minimum(np.searchsorted(s.edges, s.edges[1:] - target), here - 1), first)
    size = np.where(backward, here + 1 - begin, chunk_ends(s, target, 2) - here)
    mirror = np.where(backward, first + last - 1 - here, here)  # step of the walk -> sentence where it is
    at = mirror[walk_chunks(here + size[mirror])]
    single = size[at] == 1
    at = at[~single]
    begin = np.where(backward[at], begin[at], at)
    start, stop = s.edges[begin], s.edges[begin + size[at]]
    start, middle, stop = _borders(s, keys[at], start, stop)
    made = middle >= 0
    begin, start, middle, stop = begin[made], start[made], middle[made], stop[made]
    label = coins(draw(keys[at[made]], 1)).astype(np.int8)
    counters = {"pairs-without-second": int(single.sum() + (~made).sum())}
    keep = without_surplus(s, begin, label, max_seq_length, copy, seed)
    counters["pairs-dropped"] = len(begin) - len(keep)
    label, document, ordinal = label[keep], s.document[begin[keep]], s.ordinal[begin[keep]]

    start, middle, stop = start[keep], middle[keep], stop[keep]
    swapped = label == SWAPPED
    return Pairs(
        np.where(swapped, middle, start),
        np.where(swapped, stop - middle, middle - start),
        np.where(swapped, start, middle),
        np.where(swapped, middle - start, stop - middle),
        label,
        document,
        document,
        ordinal,
    ), counters


def _borders(s: Sentences, keys: U64, start: I64, stop: I64) -> tuple[I64, I64, I64]:
    """Return (start, middle, stop) of the two halves of each chunk; a middle of -1 where it cannot be divided.

    Either all three are borders of sentences, with a mark before the last two, or all three are inside sentences. If the
    halves began or ended in different ways, a model could learn their order from that.
    """
    middle = _whole_halves(s, keys, start, stop)
    cut = np.flatnonzero(middle < 0)
    if len(cut) == 0:
        return start, middle, stop
    inside = np.append(s.head, False) & ~s.is_edge
    for distance in range(1, MARGIN + 1):
        inside[distance:] &= ~s.is_edge[:-distance]
        inside[:-distance] &= ~s.is_edge[distance:]
    start, stop = start.copy(), stop.copy()
    start[cut] = _seek(inside, start[cut], stop[cut], 1)
    stop[cut] = _seek(inside, stop[cut], start[cut], -1)
    least = (stop[cut] - start[cut]) // LEAST_SHARE
    middle[cut] = draw_places(inside, keys[cut], FIRST_PLACE_DRAW, start[cut] + least, stop[cut] - least, mirrored=True)
    return start, middle, stop


def _whole_halves(s: Sentences, keys: U64, start: I64, stop: I64) -> I64:
    """Return the border of sentences that halves each chunk, or -1 where it has none or found no partner.

    Each try draws a border for every chunk that is left. Chunks whose halves have about the same two lengths in opposite
    order then become partners. What "about" means is wider in later tries. A draw decides which chunks come first.
    """
    edges = s.edges[s.is_marked[s.edges]]
    low, high = np.searchsorted(edges, start, side="right"), np.searchsorted(edges, stop, side="left")
    middle = np.full(len(start), -1)
    left = np.flatnonzero(s.is_edge[start] & s.is_marked[stop] & (low < high))
    left = left[np.argsort(draw(keys[left], PARTNER_DRAW), kind="stable")]
    for j, bins in enumerate(BINS):
        border = edges[low[left] + bounded(draw(keys[left], FIRST_BORDER_DRAW + j), (high - low)[left])]
        found = _have_partners(border - start[left], stop[left] - border, bins)
        middle[left[found]] = border[found]
        left = left[~found]
    return middle


def _have_partners(first: I64, second: I64, bins: int) -> Bools:
    """Return which pairs of lengths have a partner: its lengths are in the same two bins, and its other one is the longer.

    Each bin has about as many of all these lengths. Of more pairs than partners, the first ones have one. A pair of equal
    lengths needs none.
    """
    counts = np.bincount(np.concatenate([first, second]))
    bin_ = (np.cumsum(counts) - counts) * bins // max(2 * len(first), 1)
    one, two, longer = bin_[first], bin_[second], np.sign(first - second)
    group = (np.minimum(one, two) * bins + np.maximum(one, two)) * 3 + 1 + longer
    sizes = np.bincount(group, minlength=3 * bins * bins)
    order = np.argsort(group.astype(np.uint16), kind="stable")  # 16 bits are sorted in linear time
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - (np.cumsum(sizes) - sizes)[group[order]]
    found: Bools = rank < sizes[group - 2 * longer]
    return found


def _seek(allowed: Bools, at: I64, limit: I64, step: int) -> I64:
    """Return the first allowed place from `at` on, in steps of 1 or -1, or `limit` where there is none before it."""
    moved = at.copy()
    move = np.flatnonzero(~allowed[moved] & (moved != limit))
    while len(move):
        moved[move] += step
        move = move[moved[move] != limit[move]]
        move = move[~allowed[moved[move]]]
    return moved


def _backward(s: Sentences, max_seq_length: int, copy: int, seed: int) -> Bools:
    """Return whether each document is cut into chunks from its end: (documents,)."""
    return chance(draw(fold(seed, PAIRS, max_seq_length, copy, s.ids_of_documents), 0), 0.5)


def label_faults(pairs: PlacedPairs) -> Iterator[tuple[str, Bools]]:
    """Yield the labels that are not true."""
    yield "has label 0, but B does not follow A", (pairs.label == IN_ORDER) & ~pairs.b_follows_a
    yield "has label 1, but A does not follow B", (pairs.label == SWAPPED) & ~pairs.a_follows_b


def explain(drawn: DrawnPair) -> list[str]:
    """Describe how a pair was drawn."""
    if drawn.sentences.is_edge[drawn.pair.a_start[0]]:
        halves = (
            "a draw chose the border of sentences between its halves, and another piece of text has about the same two "
            "lengths in opposite order"
        )
    else:
        halves = (
            "its halves begin and end inside sentences, because a sentence at an end is cut or has no mark, there is no "
            "border to choose, or no piece of text was left that has about the same two lengths in opposite order"
        )
    return [halves, f"a coin {'swapped its halves' if drawn.label == SWAPPED else 'left its halves in order'}"]


SOP = Objective(
    name="sop",
    summary="are A and B swapped (ALBERT)?",
    labels={IN_ORDER: "next", SWAPPED: "swapped"},
    min_sources=1,
    tokens_per_token=1.0,
    form_tells_label=False,
    cut_sentences=cut_sentences,
    make_pairs=make_pairs,
    label_faults=label_faults,
    explain=explain,
)

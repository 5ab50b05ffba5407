"""Sentence order prediction (Lan et al. 2020, ALBERT): A and B are the halves of one chunk, in half of the examples swapped.

A chunk is as many whole sentences as fit the target length, which is drawn as for next sentence prediction. ALBERT fills
the target up and cuts what is too long. Here nothing is cut, because a half without its end would tell which half it is.
"""

from collections.abc import Iterator

import numpy as np

from bertloom.arrays import Bools
from bertloom.draws import PAIRS, bounded, chance, draw, fold
from pipeline.examples.objectives.objective import DrawnPair, Objective, PlacedPairs
from pipeline.examples.pairs import Pairs, coins, without_surplus
from pipeline.examples.sentences import (
    Sentences,
    chunk_ends,
    sentence_keys,
    split_sentences,
    target_lengths,
    walk_chunks,
)
from pipeline.tokens import TokenBlock

IN_ORDER, SWAPPED = 0, 1


def cut_sentences(block: TokenBlock, continuation: Bools, max_seq_length: int) -> Sentences:
    """Return the sentences of a bucket, none longer than half the room, so that any two of them fit."""
    room = max_seq_length - 3
    return split_sentences(block, continuation, room=room, longest=room // 2, piece=room // 2)


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
    counters = {"pairs-without-second": int(single.sum())}
    at = at[~single]
    draws = draw(keys[at], 1)
    label = coins(draws).astype(np.int8)
    begin = np.where(backward[at], begin[at], at)
    middle, end = begin + 1 + bounded(draws, size[at] - 1), begin + size[at]
    keep = without_surplus(s, begin, label, max_seq_length, copy, seed)
    counters["pairs-dropped"] = len(begin) - len(keep)
    label, document, ordinal = label[keep], s.document[begin[keep]], s.ordinal[begin[keep]]

    start, middle, stop = (s.edges[edge[keep]] for edge in (begin, middle, end))
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


def _backward(s: Sentences, max_seq_length: int, copy: int, seed: int) -> Bools:
    """Return whether each document is cut into chunks from its end: (documents,)."""
    return chance(draw(fold(seed, PAIRS, max_seq_length, copy, s.ids_of_documents), 0), 0.5)


def label_faults(pairs: PlacedPairs) -> Iterator[tuple[str, Bools]]:
    """Yield the labels that are not true."""
    yield "has label 0, but B does not follow A", (pairs.label == IN_ORDER) & ~pairs.b_follows_a
    yield "has label 1, but A does not follow B", (pairs.label == SWAPPED) & ~pairs.a_follows_b


def explain(drawn: DrawnPair) -> list[str]:
    """Describe how a pair was drawn."""
    return [
        "a draw chose the sentence between its halves",
        f"a coin {'swapped its halves' if drawn.label == SWAPPED else 'left its halves in order'}",
    ]


SOP = Objective(
    name="sop",
    summary="are A and B swapped (ALBERT)?",
    labels={IN_ORDER: "next", SWAPPED: "swapped"},
    min_sources=1,
    tokens_per_token=1.0,
    length_tells_label=False,
    cut_sentences=cut_sentences,
    make_pairs=make_pairs,
    label_faults=label_faults,
    explain=explain,
)

"""Examples made of one run of sentences: sentence order prediction, and masked language modelling alone.

`sop` (Lan et al. 2020, ALBERT): A and B are the halves of one chunk, in half of the examples swapped. `none` (Liu et al.
2019, RoBERTa's DOC-SENTENCES): one segment, no second one and no label. A chunk is as many whole sentences as fit the target
length, drawn as for next sentence prediction (`nsp.py`; RoBERTa has `short_seq_prob` 0). ALBERT fills it up and cuts what
is too long; here nothing is cut, for a half without its end would tell which of the two it is.
"""

import numpy as np
from numpy.typing import NDArray

from bertloom.draws import PAIRS, SURPLUS, bounded, chance, draw, fold, threshold
from pipeline.examples.objectives.nsp import Pairs, Sentences, no_pairs, sentence_keys, target_lengths, without_surplus

NO_PAIR = -1


def walk(following: NDArray[np.int64]) -> NDArray[np.int64]:
    """The chunks met from the first sentence on, where `following` is the first sentence of the next chunk: (chunks,)."""
    steps, chosen, at = following.data, [], 0
    while at < len(steps):
        chosen.append(at)
        at = steps[at]
    return np.array(chosen, np.int64)


def make_swapped(
    s: Sentences, max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[Pairs, dict[str, int]]:
    """Sentence order prediction: label 1 where the segments are swapped. No sentence may be longer than half the room, so
    that any two fit. A single sentence that is left over is left out, counted.

    The sentence that did not fit begins the next chunk, and is longer than others for it. So that this does not tell the
    label, every second document, by a keyed coin, is cut into chunks from its end.
    """
    n = len(s.document)
    if n == 0:
        return no_pairs(), {"pairs-dropped": 0, "pairs-without-second": 0}
    keys = sentence_keys(s, max_seq_length, copy, seed)
    target = target_lengths(keys, max_seq_length - 3, short_seq_prob)
    here, first, last = np.arange(n), s.first[s.document], s.first[s.document + 1]
    backward = _backward(s, max_seq_length, copy, seed)[s.document]
    begin = np.maximum(np.minimum(np.searchsorted(s.edges, s.edges[1:] - target), here - 1), first)
    size = np.where(backward, here + 1 - begin, _chunk_ends(s, target, 2) - here)
    mirror = np.where(backward, first + last - 1 - here, here)  # of a step of the walk: the sentence where it is
    at = mirror[walk(here + size[mirror])]
    single = size[at] == 1
    counters = {"pairs-without-second": int(single.sum())}
    at = at[~single]
    draws = draw(keys[at], 1)
    label = ((draws & np.uint64(0xFFFFFFFF)) < np.uint64(threshold(0.5, 32))).astype(np.int8)
    begin = np.where(backward[at], begin[at], at)
    middle, end = begin + 1 + bounded(draws, size[at] - 1), begin + size[at]
    keep = without_surplus(s, begin, label, (seed, SURPLUS, max_seq_length, copy))
    counters["pairs-dropped"] = len(begin) - len(keep)
    label, document, ordinal = label[keep], s.document[begin[keep]], s.ordinal[begin[keep]]

    start, middle, stop = (s.edges[edge[keep]] for edge in (begin, middle, end))
    swapped = label == 1
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


def make_runs(
    s: Sentences, max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[Pairs, dict[str, int]]:
    """Single segments: as many whole sentences of a document as fit, at least one."""
    n = len(s.document)
    if n == 0:
        return no_pairs(), {}
    keys = sentence_keys(s, max_seq_length, copy, seed)
    end = _chunk_ends(s, target_lengths(keys, max_seq_length - 2, short_seq_prob), 1)
    chosen = walk(end)
    start, document = s.edges[chosen], s.document[chosen]
    none = np.zeros(len(chosen), np.int64)
    label = np.full(len(chosen), NO_PAIR, np.int8)
    return Pairs(
        start, s.edges[end[chosen]] - start, none, none, label, document, document, chosen - s.first[document]
    ), {}


def _backward(s: Sentences, max_seq_length: int, copy: int, seed: int) -> NDArray[np.bool_]:
    """Is this document cut into chunks from its end: (documents,)."""
    return chance(draw(fold(seed, PAIRS, max_seq_length, copy, s.ids_of_documents), 0), 0.5)


def _chunk_ends(s: Sentences, target: NDArray[np.int64], least: int) -> NDArray[np.int64]:
    """The sentence behind a chunk that begins at each one: as many as fit the target, at least so many, of one document."""
    end = np.searchsorted(s.edges, s.edges[:-1] + target, side="right") - 1
    return np.minimum(np.maximum(end, np.arange(len(end)) + least), s.first[s.document + 1])

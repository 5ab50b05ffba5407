"""Examples made of one run of sentences: sentence order prediction, and masked language modelling alone.

`sop` (Lan et al. 2020, ALBERT): A and B are the halves of one chunk, in half of the examples swapped. `none` (Liu et al.
2019, RoBERTa's DOC-SENTENCES): one segment of whole sentences, as many as fit; no second segment and no label. Chunks are
filled as for next sentence prediction (`pipeline/pairs.py`); `short_seq_prob` holds here too (RoBERTa has 0).
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.pairs import MIN_TARGET, Pairs, Sentences, back_to_word, cut_to_room, no_pairs, without_surplus
from pipeline.randomness import GOLDEN, PAIRS, SURPLUS, U64, bounded, bounded_low, chance, draw, fold, mix, threshold

NO_PAIR = -1


def sentence_keys(s: Sentences, purpose: int, max_seq_length: int, copy: int, seed: int) -> U64:
    """The key of every sentence: (sentences,)."""
    keys = fold(seed, purpose, max_seq_length, copy, s.ids_of_documents)
    return mix((keys[s.document] ^ s.ordinal.astype(np.uint64)) + GOLDEN)


def walk(following: NDArray[np.int64]) -> NDArray[np.int64]:
    """The chunks met from the first sentence on, where `following` is the first sentence of the next chunk: (chunks,)."""
    steps, chosen, at = memoryview(following), [], 0
    while at < len(steps):
        chosen.append(at)
        at = steps[at]
    return np.array(chosen, np.int64)


def make_swapped(
    s: Sentences, max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[Pairs, dict[str, int]]:
    """Sentence order prediction: label 1 where the segments are swapped. A last single sentence is left out, counted."""
    n = len(s.document)
    if n == 0:
        return no_pairs(), {"pairs-dropped": 0, "pairs-without-second": 0}
    room = max_seq_length - 3
    keys = sentence_keys(s, PAIRS, max_seq_length, copy, seed)
    target = _targets(keys, room, short_seq_prob)
    here = np.arange(n)
    end = np.searchsorted(s.edges, s.edges[:-1] + target)
    end = np.minimum(np.maximum(end, here + 2), s.first[s.document + 1])
    draws = draw(keys, 1)
    a_end = here + 1 + bounded(draws, np.maximum(end - here - 1, 1))
    coin = (draws & np.uint64(0xFFFFFFFF)) < np.uint64(threshold(0.5, 32))

    chosen = walk(end)
    single = end[chosen] - chosen == 1
    counters = {"pairs-without-second": int(single.sum())}
    chosen = chosen[~single]
    label = coin[chosen].astype(np.int8)
    keep = without_surplus(s, chosen, label, (seed, SURPLUS, max_seq_length, copy))
    counters["pairs-dropped"] = len(chosen) - len(keep)
    chosen, label = chosen[keep], label[keep]

    first_start, second_start = s.edges[chosen], s.edges[a_end[chosen]]
    second_length = s.edges[end[chosen]] - second_start
    first_start, second_length, _ = cut_to_room(s.head, first_start, second_start, second_length, room)
    second_length = back_to_word(s.head, second_start, second_start + second_length) - second_start
    first_length = second_start - first_start
    swapped = label == 1
    document = s.document[chosen]
    return Pairs(
        np.where(swapped, second_start, first_start), np.where(swapped, second_length, first_length),
        np.where(swapped, first_start, second_start), np.where(swapped, first_length, second_length),
        label, document, document, chosen - s.first[document],
    ), counters  # fmt: skip


def make_runs(
    s: Sentences, max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[Pairs, dict[str, int]]:
    """Single segments: as many whole sentences of a document as fit, at least one."""
    n = len(s.document)
    if n == 0:
        return no_pairs(), {}
    keys = sentence_keys(s, PAIRS, max_seq_length, copy, seed)
    target = _targets(keys, max_seq_length - 2, short_seq_prob)
    end = np.searchsorted(s.edges, s.edges[:-1] + target, side="right") - 1
    end = np.minimum(np.maximum(end, np.arange(n) + 1), s.first[s.document + 1])
    chosen = walk(end)
    start, document = s.edges[chosen], s.document[chosen]
    none = np.zeros(len(chosen), np.int64)
    label = np.full(len(chosen), NO_PAIR, np.int8)
    return Pairs(start, s.edges[end[chosen]] - start, none, none, label, document, document, chosen - s.first[document]), {}


def _targets(keys: U64, room: int, short_seq_prob: float) -> NDArray[np.int64]:
    draws = draw(keys, 0)
    target = np.full(len(keys), room)
    short = np.flatnonzero(chance(draws, short_seq_prob))
    target[short] = MIN_TARGET + bounded_low(draws[short], room - MIN_TARGET + 1)
    return target

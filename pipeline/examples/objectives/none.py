"""Single segments for masked language modelling alone (Liu et al. 2019, RoBERTa's DOC-SENTENCES).

An example is as many whole sentences of one document as fit the target length, at least one. RoBERTa has
`short_seq_prob` 0.
"""

import numpy as np

from pipeline.examples.objectives.objective import DrawnPair, Objective
from pipeline.examples.pairs import NO_PAIR, Pairs
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


def cut_sentences(block: TokenBlock, words: WordKinds, max_seq_length: int) -> Sentences:
    """Return the sentences of a bucket, none longer than a whole segment."""
    room = max_seq_length - 2
    return split_sentences(block, words, room=room, longest=room, piece=room)


def make_segments(
    sentences: Sentences, max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[Pairs, dict[str, int]]:
    """Return all single segments of one copy of a bucket; every token is in one of them."""
    s = sentences
    keys = sentence_keys(s, max_seq_length, copy, seed)
    end = chunk_ends(s, target_lengths(keys, max_seq_length - 2, short_seq_prob), 1)
    chosen = walk_chunks(end)
    start, document = s.edges[chosen], s.document[chosen]
    none = np.zeros(len(chosen), np.int64)
    label = np.full(len(chosen), NO_PAIR, np.int8)
    length, ordinal = s.edges[end[chosen]] - start, chosen - s.first[document]
    return Pairs(start, length, none, none, label, document, document, ordinal), {}


def explain(drawn: DrawnPair) -> list[str]:
    """Describe how a segment was drawn."""
    return [drawn.about_target(drawn.max_seq_length - 2)]


NONE = Objective(
    name="none",
    summary="single segments as long as possible (RoBERTa, with --short-seq-prob 0).",
    labels={NO_PAIR: "none"},
    min_sources=1,
    tokens_per_token=1.0,
    form_tells_label=False,
    cut_sentences=cut_sentences,
    make_pairs=make_segments,
    label_faults=lambda pairs: iter(()),
    explain=explain,
)

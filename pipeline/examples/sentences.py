"""The sentences of a bucket as one `max_seq_length` sees them: the input of every pair objective."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64, Bools
from bertloom.draws import GOLDEN, PAIRS, bounded_low, chance, draw, fold, mix
from pipeline.tokens import TokenBlock
from pipeline.vocabulary import WordKinds

MIN_TARGET = 2
"""Shortest target length, in tokens."""


@dataclass(frozen=True, slots=True)
class Sentences:
    """The sentences of a bucket, long ones cut. They follow each other in the bucket's ids."""

    ids: NDArray[Any]
    """uint16 or uint32 (tokens,)."""
    head: Bools
    """Whether a word begins at this token: bool (tokens,)."""
    edges: I64
    """First token of each sentence, and the number of tokens: (sentences + 1,)."""
    document: I64
    """Document of each sentence: (sentences,)."""
    first: I64
    """First sentence of each document, and the number of sentences: (documents + 1,)."""
    ids_of_documents: U64
    source_keys: U64
    """Of each document: (documents,)."""
    is_edge: Bools
    """Whether a sentence of the text begins here, or the last one ends; a cut does not count: bool (tokens + 1,)."""
    is_marked: Bools
    """Whether a sentence ends before this token with a mark that ends sentences: bool (tokens + 1,)."""
    full_end: I64
    """For each sentence, the first sentence that begins `room` or more tokens after its start: (sentences,)."""

    @property
    def ordinal(self) -> I64:
        """Number of each sentence in its document."""
        return np.arange(len(self.document)) - self.first[self.document]


def split_sentences(block: TokenBlock, words: WordKinds, *, room: int, longest: int | None, piece: int) -> Sentences:
    """Return the sentences of a bucket, with those of more than `longest` tokens cut into pieces at word starts.

    Args:
        words: kinds of the words of the vocabulary.
        room: tokens of an example without [CLS] and [SEP].
        longest: longest sentence that is kept whole; None keeps all.
        piece: longest piece of a sentence that is cut.
    """
    head = ~words.continuation[block.ids]
    if block.inside_words is not None:
        head &= ~block.inside_words
    edges = np.concatenate([[0], np.cumsum(block.sentence_lengths, dtype=np.int64)])
    is_edge = np.zeros(len(block.ids) + 1, bool)
    is_edge[edges] = True
    is_marked = np.zeros(len(is_edge), bool)
    is_marked[edges[1:]] = words.end_a_sentence(
        block.ids[edges[1:] - 1], block.ids[np.maximum(edges[1:] - 2, edges[:-1])]
    )
    document = np.repeat(np.arange(len(block.documents)), block.documents["num_sentences"])
    long = np.flatnonzero(block.sentence_lengths > longest) if longest is not None else np.zeros(0, np.int64)
    if len(long):
        cuts = [_cut(head, int(edges[i]), int(edges[i + 1]), piece) for i in long]
        where = np.repeat(long, [len(cut) for cut in cuts])
        flat = np.fromiter((at for cut in cuts for at in cut), np.int64, len(where))
        document = np.insert(document, where, document[where])
        edges = np.insert(edges, where + 1, flat)
    counts = np.bincount(document, minlength=len(block.documents))
    first = np.concatenate([[0], np.cumsum(counts)])
    full_end = np.searchsorted(edges, edges[:-1] + room)
    rows = block.documents
    return Sentences(
        block.ids,
        head,
        edges,
        document,
        first,
        rows["id"].copy(),
        rows["source_key"].copy(),
        is_edge,
        is_marked,
        full_end,
    )


def _cut(head: Bools, start: int, end: int, piece: int) -> list[int]:
    """Return where to cut tokens start ... end - 1 into pieces of nearly equal length, at word starts."""
    cuts = []
    while end - start > piece:
        left = end - start
        at = start + -(-left // -(-left // piece))
        word = at - int(np.argmax(head[at:start:-1])) if head[start + 1 : at + 1].any() else at
        cuts.append(word)
        start = word
    return cuts


def sentence_keys(s: Sentences, max_seq_length: int, copy: int, seed: int) -> U64:
    """Return the key of the chunk that begins at each sentence: (sentences,)."""
    keys = fold(seed, PAIRS, max_seq_length, copy, s.ids_of_documents)
    return mix((keys[s.document] ^ s.ordinal.astype(np.uint64)) + GOLDEN)


def target_lengths(keys: U64, room: int, short_seq_prob: float) -> I64:
    """Return the tokens to fill for each key: `room`, or with probability `short_seq_prob` fewer, drawn uniformly."""
    draws = draw(keys, 0)
    target = np.full(len(keys), room)
    short = np.flatnonzero(chance(draws, short_seq_prob))
    target[short] = MIN_TARGET + bounded_low(draws[short], room - MIN_TARGET + 1)
    return target


def chunk_ends(s: Sentences, target: I64, least: int) -> I64:
    """Return the end of the chunk that begins at each sentence: the first sentence after it, (sentences,).

    A chunk has as many sentences of one document as fit the target, and at least `least` where the document has them.
    """
    end = np.searchsorted(s.edges, s.edges[:-1] + target, side="right") - 1
    return np.minimum(np.maximum(end, np.arange(len(end)) + least), s.first[s.document + 1])


def walk_chunks(following: I64) -> I64:
    """Return the chunks met from the first sentence on: (chunks,). following[i] is the sentence after chunk i."""
    steps, chosen, at = following.data, [], 0
    while at < len(steps):
        chosen.append(at)
        at = steps[at]
    return np.array(chosen, np.int64)

"""The interface of a pair objective: what a second segment is, what its label means, and how both are checked."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64, Bools
from pipeline.examples.pairs import Pairs
from pipeline.examples.sentences import Sentences, sentence_keys, target_lengths
from pipeline.tokens import TokenBlock
from pipeline.vocabulary import WordKinds

CutSentences = Callable[[TokenBlock, WordKinds, int], Sentences]
"""(tokens of a bucket, kinds of the words of the vocabulary, max_seq_length) -> its sentences."""
MakePairs = Callable[[Sentences, int, int, int, float], tuple[Pairs, dict[str, int]]]
"""(sentences, max_seq_length, copy, seed, short_seq_prob) -> (pairs in the order of the documents, counters)."""


@dataclass(frozen=True, kw_only=True)
class PlacedPairs:
    """Examples of a shard and where their segments are in their documents. All arrays (examples,)."""

    label: NDArray[np.int8]
    """next_sentence_label"""
    document_a: U64
    """Id of A's document."""
    start_a: I64
    end_a: I64
    """First token of A in its document (`start_a`), and the token after its last one."""
    document_b: U64
    """Id of B's document; 0 without B, as all that follows."""
    start_b: I64
    end_b: I64
    """First token of B in its document (`start_b`), and the token after its last one."""
    one_source: Bools
    """Whether A and B are from the same source; False where documents/ does not hold both documents."""

    @property
    def one_document(self) -> Bools:
        return np.equal(self.document_a, self.document_b)

    @property
    def b_follows_a(self) -> Bools:
        return self.one_document & np.equal(self.end_a, self.start_b)

    @property
    def a_follows_b(self) -> Bools:
        return self.one_document & np.equal(self.end_b, self.start_a)


@dataclass(frozen=True, kw_only=True)
class DrawnPair:
    """One example before masking, and what it was drawn from."""

    sentences: Sentences
    pair: Pairs
    """The example alone."""
    max_seq_length: int
    copy: int
    seed: int
    short_seq_prob: float

    @property
    def label(self) -> int:
        return int(self.pair.label[0])

    @property
    def chunk(self) -> int:
        """First sentence of its chunk, counted in the bucket."""
        return int(self.sentences.first[self.pair.document_a[0]] + self.pair.sentence[0])

    @property
    def key(self) -> U64:
        """Key of its chunk: (1,)."""
        keys = sentence_keys(self.sentences, self.max_seq_length, self.copy, self.seed)
        return keys[self.chunk : self.chunk + 1]

    def about_target(self, room: int) -> str:
        """Describe its target length. room: tokens of a full example without [CLS] and [SEP]."""
        target = int(target_lengths(self.key, room, self.short_seq_prob)[0])
        if target == room:
            return f"its target length is all {room} tokens"
        return f"its target length is {target} of {room} tokens: 1 example in {1 / self.short_seq_prob:g} is short"

    def about_front(self) -> list[str]:
        """Describe what A lost to fit, if anything."""
        lost = int(self.pair.a_start[0] - self.sentences.edges[self.chunk])
        return [f"A lost {lost} tokens from its front, to fit"] if lost else []

    def about_random_b(self) -> list[str]:
        """Describe where a random B was drawn from; nothing where the label is 0."""
        s, document = self.sentences, int(self.pair.document_a[0])
        if not self.label:
            return []
        others = len(s.document) - int(s.first[document + 1] - s.first[document])
        return [f"B was drawn from the {others:,} sentences of the {len(s.source_keys) - 1:,} other documents"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A pair objective. Adding one takes a file with its functions, a line in `registry.py`, and a test."""

    name: str
    """Value of --pairs."""
    compat: str | None = None
    """Value of --compat, for a variant that reproduces another program; None for bertloom's own objectives."""
    summary: str
    """One sentence for `bertloom preprocess --help`."""
    labels: Mapping[int, str]
    """What each value of next_sentence_label means: {0: "next", 1: ...} for pairs, {-1: "none"} for single segments."""
    min_sources: int
    """Source texts that every bucket needs; 2 where a random B must come from another one."""
    tokens_per_token: float
    """Tokens in the examples of one copy for each token of text, for the estimate of disk space."""
    form_tells_label: bool
    """Whether the label is known to be predictable from the lengths and ends of the segments. Then no gate limits it."""
    cut_sentences: CutSentences
    """Returns the sentences of a bucket, from its tokens, the kinds of its words and max_seq_length."""
    make_pairs: MakePairs
    """Returns the pairs of one copy of a bucket in the order of its documents, and counters of what was dropped. Takes the
    sentences, max_seq_length, the number of the copy, the seed and short_seq_prob."""
    label_faults: Callable[[PlacedPairs], Iterator[tuple[str, Bools]]]
    """Yields (what is wrong, which examples) for labels that are not true."""
    explain: Callable[[DrawnPair], list[str]]
    """Returns sentences on how an example was drawn."""

    @property
    def predicts_label(self) -> bool:
        """Whether there is a label to predict."""
        return len(self.labels) > 1

"""The words of a batch of examples, and the tokens of those that are masked: what schemes of whole words share."""

from dataclasses import dataclass

import numpy as np

from bertloom.arrays import I64, Bools
from pipeline.examples.masking.scheme import Chosen, Unmasked


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """The words of a batch of examples. Tokens are counted without [CLS] and [SEP]."""

    edges: I64
    """First token of each word, and the number of tokens: (words + 1,)."""
    first_word: I64
    """First word of each example, and the number of words: (n + 1,)."""
    first_token: I64
    """First token of each example, and the number of tokens: (n + 1,)."""

    @property
    def pieces(self) -> I64:
        """Tokens of each word: (words,)."""
        return np.diff(self.edges)


def find_words(examples: Unmasked, across_segments: bool = False) -> Words:
    """Return the words of a batch of examples.

    across_segments: whether a B that begins inside a word continues A's last word, as in Google's script.
    """
    starts, a_length, b_length = examples.starts, examples.a_length, examples.b_length
    content = np.ones(len(examples.heads), bool)
    content[starts] = content[starts + a_length + 1] = False
    pair = b_length > 0
    content[(starts + a_length + b_length + 2)[pair]] = False
    begins = examples.heads.copy()
    begins[starts + 1] = True
    if not across_segments:
        begins[(starts + a_length + 2)[pair]] = True
    begins = begins[content]
    first_token = np.concatenate([[0], np.cumsum(a_length + b_length)])
    edges = np.append(np.flatnonzero(begins), len(begins))
    return Words(edges=edges, first_word=np.searchsorted(edges[:-1], first_token), first_token=first_token)


def choose_tokens(words: Words, is_masked: Bools, group: I64 | None, decide_together: bool = True) -> Chosen:
    """Return the tokens of the masked words.

    Args:
        is_masked: whether each word is masked (words,).
        group: of each word, the group whose first mask decides for all of them (words,); None: each word is one.
        decide_together: whether groups share a decision.
    """
    masked = np.flatnonzero(is_masked)
    pieces, word_start = words.pieces[masked], words.edges[masked]
    ends = np.cumsum(pieces)
    before = ends - pieces
    token = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(word_start - before, pieces)
    counts = np.diff(np.searchsorted(token, words.first_token))
    deciders = None
    if decide_together:
        continues = np.diff(masked if group is None else group[masked], prepend=-1) == 0
        deciders = np.repeat(np.maximum.accumulate(np.where(continues, 0, before)), pieces)
    return Chosen(numbers=token - np.repeat(words.first_token[:-1], counts), counts=counts, deciders=deciders)

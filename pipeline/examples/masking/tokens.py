"""Static masks for masked language modelling: 15 % of an example's tokens, replaced 80/10/10.

An example of n tokens, specials counted, has min(max_predictions_per_seq, max(1, floor(n·p + 1/2))) masks, drawn without
replacement from its tokens but [CLS] and [SEP] (Devlin et al. 2018, 3.1 and A.2). Of the chosen, 80 % become [MASK],
10 % a random word, 10 % stay. Against google-research/bert: halves are rounded up, not to even, and a random word is
never a special or an unused one.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bertloom.draws import GOLDEN, U64, bounded, bounded_low, draw, mix, threshold
from pipeline.examples.masking.spans import choose_spans
from pipeline.examples.masking.whole_words import choose_words
from pipeline.vocabulary import Vocabulary


@dataclass(frozen=True)
class Masking:
    """How the examples of one length are masked; `pipeline.stages.weave.ExamplesConfig` has the options in words."""

    counts: NDArray[np.int64]
    """Masks of an example by its length: (max_seq_length + 1,)."""
    max_predictions: int
    vocabulary: Vocabulary
    whole_words: bool = False
    mask_token_prob: float = 0.8
    random_token_prob: float = 0.1
    google: bool = False
    """Google's faults too: `pipeline.examples.objectives.google`."""
    spans: bool = False
    """Spans of whole words: with `whole_words` alone."""

    @property
    def replacements(self) -> NDArray:
        """The words that a random one is drawn from."""
        words = self.vocabulary.ordinary
        return np.arange(len(self.vocabulary.words), dtype=words.dtype) if self.google else words


def default_max_predictions(max_seq_length: int, masked_lm_prob: float) -> int:
    """floor(L·p + 1/2) + 1: 20 for 128 and 78 for 512 at p = 0.15; Google's scripts say 20 and 77 by hand."""
    return int(max_seq_length * Fraction(str(masked_lm_prob)) + Fraction(1, 2)) + 1


def mask_counts(max_seq_length: int, masked_lm_prob: float, max_predictions: int) -> NDArray[np.int64]:
    """Number of masks of an example by its length, specials counted: (max_seq_length + 1,). Exact, no floats."""
    p = Fraction(str(masked_lm_prob))
    wanted = [max(1, int(n * p + Fraction(1, 2))) for n in range(max_seq_length + 1)]
    return np.minimum(wanted, max_predictions)


def choose(keys: U64, sizes: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """Draws counts[i] of the numbers 0 ... sizes[i] - 1 without replacement: (row, number), sorted.

    Floyd's algorithm (Bentley and Floyd 1987), a step for all rows at a time; a bitmap tells what is taken and gives the
    numbers back in order without a sort. Step j takes draw j of the row's key.
    """
    bits = max(1, int(sizes.max(initial=1)) - 1).bit_length()
    taken = np.zeros(len(keys) << bits, bool)
    order = np.argsort(-counts, kind="stable")
    active = np.searchsorted(-counts[order], -np.arange(counts.max(initial=0)), side="left")  # rows with counts > step
    keys, base, room = keys[order], order << bits, (sizes - counts)[order]
    for step, n in enumerate(active):
        last = room[:n] + step
        number = base[:n] + bounded(draw(keys[:n], step), last + 1)
        number = np.where(taken[number], base[:n] + last, number)
        taken[number] = True
    flat = np.flatnonzero(taken)
    return flat >> bits, flat & ((1 << bits) - 1)


def mask_tokens(
    input_ids: NDArray,
    heads: NDArray[np.bool_],
    starts: NDArray[np.int64],
    a_length: NDArray[np.int64],
    b_length: NDArray[np.int64],
    keys: U64,
    masking: Masking,
) -> tuple[NDArray[np.uint16], NDArray, NDArray[np.int64]]:
    """Masks a run of examples in place: (masked_lm_positions (masks,), masked_lm_ids (masks,), masks of each (n,)).

    input_ids: all examples end to end (tokens,); heads: does a word begin at this token (tokens,); starts: of each
    example (n,); keys: of each (n,). With P for max_predictions, mask r of an example in the order of the text takes draw
    P + r: its upper half decides between [MASK], a random word and the word itself, its lower half names the random word.
    Whole words, and spans of them, take the decision of their first mask.
    """
    size = a_length + b_length
    quota = np.minimum(masking.counts[size + 2 + (b_length > 0)], size)
    if masking.whole_words:
        rows, number, decider = _whole_words(heads, starts, a_length, b_length, keys, quota, masking)
        quota = np.bincount(rows, minlength=len(starts))
    else:
        rows, number = choose(keys, size, quota)
        decider = None
    positions = number + 1
    positions += number >= np.repeat(a_length, quota)
    flat = np.repeat(starts, quota)
    flat += positions
    originals = input_ids[flat]

    rank = np.arange(masking.max_predictions + 1, masking.max_predictions + 1 + len(flat))
    rank -= np.repeat(np.cumsum(quota) - quota, quota)
    draws = mix(np.repeat(keys, quota) + rank.view(np.uint64) * GOLDEN)
    share = draws >> np.uint64(32)
    if decider is not None and not masking.google:
        share = share[decider]
    mask_below = threshold(masking.mask_token_prob, 32)
    masked = share < np.uint64(mask_below)
    below = np.uint64(mask_below + threshold(masking.random_token_prob, 32))
    replaced, words = np.flatnonzero(~masked & (share < below)), masking.replacements
    new = np.where(masked, originals.dtype.type(masking.vocabulary.mask), originals)
    new[replaced] = words[bounded_low(draws[replaced], len(words))]
    input_ids[flat] = new
    return positions.astype(np.uint16), originals, quota


def _whole_words(
    heads: NDArray[np.bool_],
    starts: NDArray,
    a_length: NDArray,
    b_length: NDArray,
    keys: U64,
    quota: NDArray,
    masking: Masking,
) -> tuple[NDArray, NDArray, NDArray]:
    """The tokens of whole words drawn for masks: (row, number in its segments, index of its word's or span's first mask)."""
    content = np.ones(len(heads), bool)
    content[starts] = content[starts + a_length + 1] = False
    pair = b_length > 0
    content[(starts + a_length + b_length + 2)[pair]] = False
    begins = heads.copy()
    begins[starts + 1] = True
    if not masking.google:  # there, a B that was cut inside a word is taken for the rest of A's last word
        begins[(starts + a_length + 2)[pair]] = True
    begins = begins[content]
    size = a_length + b_length
    first = np.cumsum(size) - size  # first token of each row, specials left out
    edges = np.append(np.flatnonzero(begins), len(begins))
    word_start, pieces = edges[:-1], np.diff(edges)
    first_word = np.searchsorted(word_start, np.append(first, len(begins)))
    if masking.spans:
        b_word = np.searchsorted(word_start, first + a_length)
        taken, span = choose_spans(keys, first_word, b_word, edges, quota, masking.max_predictions)
    else:
        taken, span = choose_words(keys, first_word, pieces, quota, masking.max_predictions, masking.google), None
    chosen = np.flatnonzero(taken)
    group = chosen if span is None else span[chosen]
    pieces, word_start = pieces[chosen], word_start[chosen]
    ends = np.cumsum(pieces)
    before = ends - pieces
    token = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(word_start - before, pieces)
    rows = np.repeat(np.arange(len(first)), np.diff(np.searchsorted(token, np.append(first, len(begins)))))
    goes_on = np.diff(group, prepend=-1) == 0
    decider = np.maximum.accumulate(np.where(goes_on, 0, before))
    return rows, token - first[rows], np.repeat(decider, pieces)

"""The masks of `--compat google`: as google-research/bert makes them, with its faults, to compare with it.

- The number of masks is rounded to even where it is a half.
- A random word may be any of the vocabulary, such as [PAD] or [unused7].
- Whole words (`--do-whole-word-mask`): each piece has its own 80/10/10 decision. A word may continue across [SEP]. Long
  words are masked less often, because a word that does not fit is passed over.
"""

from dataclasses import replace

import numpy as np

from bertloom.arrays import I64, U64, Bools
from bertloom.draws import bounded, draw
from pipeline.examples.masking.scheme import SCHEME_DRAWS, Chosen, Unmasked
from pipeline.examples.masking.tokens import TOKENS
from pipeline.examples.masking.whole_words import WHOLE_WORDS
from pipeline.examples.masking.words import choose_tokens, find_words


def mask_counts(max_seq_length: int, masked_lm_prob: float, max_predictions: int) -> I64:
    """Return min(max_predictions_per_seq, max(1, round(n * p))) by an example's length n, halves rounded to even."""
    return np.minimum([max(1, round(n * masked_lm_prob)) for n in range(max_seq_length + 1)], max_predictions)


def choose_words(keys: U64, first_word: I64, pieces: I64, counts: I64) -> Bools:
    """Return which words are masked: bool (words,). Words are drawn one after another; one that does not fit is not taken.

    The arguments are those of `whole_words.choose_words`. Step j takes draw SCHEME_DRAWS + j of the example's key.
    """
    seen = np.zeros(len(pieces), bool)
    taken = np.zeros(len(pieces), bool)
    words = np.diff(first_word)
    left, unseen, rows = counts.copy(), words.copy(), np.arange(len(counts))
    step = SCHEME_DRAWS
    while len(rows := rows[(left[rows] > 0) & (unseen[rows] > 0)]):
        word = first_word[rows] + bounded(draw(keys[rows], step), words[rows])
        fresh = ~seen[word]
        seen[word] = True
        unseen[rows] -= fresh
        fits = fresh & (pieces[word] <= left[rows])
        taken[word[fits]] = True
        left[rows[fits]] -= pieces[word[fits]]
        step += 1
    return taken


def choose(examples: Unmasked) -> Chosen:
    """Choose whole words, each piece with a decision of its own."""
    words = find_words(examples, across_segments=True)
    is_masked = choose_words(examples.keys, words.first_word, words.pieces, examples.counts)
    return choose_tokens(words, is_masked, None, decide_together=False)


GOOGLE_TOKENS = replace(
    TOKENS, name="google_token", compat="google", can_be_redrawn=False, draws_any_word=True, count_masks=mask_counts
)
GOOGLE_WHOLE_WORDS = replace(
    WHOLE_WORDS,
    name="google_whole_word",
    compat="google",
    can_be_redrawn=False,
    extra_predictions=0,
    draws_any_word=True,
    count_masks=mask_counts,
    choose=choose,
)

"""Whole-word masks: all pieces of a word or none (google-research/bert, May 2019).

Google's script draws words in random order until an example has its number of masks, and passes over a word that does not
fit, so it masks long words less often than short ones. Here the words of an example form a circle in random order, and a
window with as many tokens as masks are wanted is placed on it, from a uniformly drawn token. Words that are wholly inside
are masked, the words at its two edges with probability (their tokens inside) / (their tokens). So every word has the same
chance, whatever its length, and an example has its number of masks on average, within max_predictions_per_seq. A short
example may have none.
"""

import numpy as np

from bertloom.arrays import I64, U64, Bools
from bertloom.draws import bounded, bounded_low, draw
from pipeline.examples.masking.scheme import SCHEME_DRAWS, Chosen, MaskingScheme, Unmasked
from pipeline.examples.masking.words import choose_tokens, find_words

ROOM = 8
"""Masks that the last word may add by default."""


def choose_words(keys: U64, first_word: I64, pieces: I64, counts: I64, max_predictions: int) -> Bools:
    """Return which words are masked: bool (words,).

    Step j takes draw SCHEME_DRAWS + j of the example's key. Its upper half chooses a word (in step 0 a token, where the
    window begins), its lower half decides about a word at an edge.

    Args:
        keys: of each example (n,).
        first_word: first word of each example, and the number of words (n + 1,).
        pieces: tokens of each word (words,).
        counts: masks wanted in each example (n,).
    """
    seen = np.zeros(len(pieces), bool)
    taken = np.zeros(len(pieces), bool)
    left = counts.copy()
    spare = max_predictions - left  # masks that there may be beyond those wanted
    words = np.diff(first_word)
    unseen = words.copy()
    rows = np.flatnonzero((left > 0) & (unseen > 0))

    edges = np.concatenate([[0], np.cumsum(pieces)])
    begin, end = edges[first_word[rows]], edges[first_word[rows + 1]]
    draws = draw(keys[rows], SCHEME_DRAWS)
    token = begin + bounded(draws, end - begin)
    word = np.searchsorted(edges, token, side="right") - 1
    size = pieces[word]
    after = np.minimum(edges[word + 1] - token, left[rows])
    around = np.maximum(left[rows] - (end - begin) + token - edges[word], 0)  # the window may end in this word again
    lucky = (bounded_low(draws, size) < after + around) & (size - after <= spare[rows])
    seen[word], taken[word] = True, lucky
    unseen[rows] -= 1
    left[rows] -= after
    spare[rows] += after - size * lucky

    step = SCHEME_DRAWS + 1
    while len(rows := rows[(left[rows] > 0) & (unseen[rows] > 0)]):
        draws = draw(keys[rows], step)
        word = first_word[rows] + bounded(draws, words[rows])
        fresh = ~seen[word]
        seen[word] = True
        unseen[rows] -= fresh
        size = pieces[word]
        fits = fresh & (size <= left[rows])
        taken[word[fits]] = True
        left[rows[fits]] -= size[fits]
        over = fresh & ~fits
        lucky = over & (bounded_low(draws, size) < left[rows]) & (size - left[rows] <= spare[rows])
        taken[word[lucky]] = True
        left[rows[over]] = 0
        step += 1
    return taken


def choose(examples: Unmasked) -> Chosen:
    """Choose whole words. All pieces of a word share the decision of its first mask."""
    words = find_words(examples)
    is_masked = choose_words(examples.keys, words.first_word, words.pieces, examples.counts, examples.max_predictions)
    return choose_tokens(words, is_masked, None)


WHOLE_WORDS = MaskingScheme(
    name="whole_word",
    option="do_whole_word_mask",
    summary="whole words",
    can_be_redrawn=False,
    whole_words=True,
    extra_predictions=ROOM,
    choose=choose,
)

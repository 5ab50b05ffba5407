"""Whole-word masks: all pieces of a word or none (google-research/bert, May 2019).

Words are drawn in random order, by keyed draws, until an example's number of masks is reached. Where a word does not fit,
Google passes it over, and so masks long words less often than short ones. Here the words lie on a circle in random order,
and a window of as many tokens as there shall be masks is laid on it, from a token drawn uniformly: what lies in it whole is
masked, and the words at its two edges with probability (their tokens in it) / (their tokens). So every word has the same
chance, whatever its length, and an example has its number of masks on average, within max_predictions_per_seq. An example
of a few tokens may have none.
"""

import numpy as np
from numpy.typing import NDArray

from bertloom.draws import U64, bounded, bounded_low, draw

FIRST_DRAW = 1 << 17  # behind all draws of `pipeline.examples.masking.tokens`: no draw decides two things


def choose_words(
    keys: U64,
    first_word: NDArray[np.int64],
    pieces: NDArray[np.int64],
    counts: NDArray[np.int64],
    max_predictions: int,
    pass_over: bool,
) -> NDArray[np.bool_]:
    """Which words are masked: bool (words,).

    keys: of each example (n,); first_word: of each example, and the number of words (n + 1,); pieces: tokens of each word;
    counts: masks wanted of each example. Step j takes draw FIRST_DRAW + j of the example's key: its upper half names a word
    (at first a token, where the window begins), its lower half decides about one at an edge. pass_over: Google's way.
    """
    seen = np.zeros(len(pieces), bool)
    taken = np.zeros(len(pieces), bool)
    left = counts.copy()
    spare = max_predictions - left  # masks that there may be beyond those wanted
    unseen = np.diff(first_word)
    rows = np.flatnonzero((left > 0) & (unseen > 0))
    step = FIRST_DRAW
    if not pass_over:
        edges = np.concatenate([[0], np.cumsum(pieces)])
        begin, end = edges[first_word[rows]], edges[first_word[rows + 1]]
        draws = draw(keys[rows], step)
        token = begin + bounded(draws, end - begin)
        word = np.searchsorted(edges, token, side="right") - 1
        size = pieces[word]
        behind = np.minimum(edges[word + 1] - token, left[rows])
        around = np.maximum(left[rows] - (end - begin) + token - edges[word], 0)  # the window ends in this word again
        lucky = (bounded_low(draws, size) < behind + around) & (size - behind <= spare[rows])
        seen[word], taken[word] = True, lucky
        unseen[rows] -= 1
        left[rows] -= behind
        spare[rows] += behind - size * lucky
        step, rows = step + 1, rows[(left[rows] > 0) & (unseen[rows] > 0)]
    words = np.diff(first_word)
    while len(rows):
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
        if not pass_over:
            lucky = over & (bounded_low(draws, size) < left[rows]) & (size - left[rows] <= spare[rows])
            taken[word[lucky]] = True
            left[rows[over]] = 0
        step += 1
        rows = rows[(left[rows] > 0) & (unseen[rows] > 0)]
    return taken

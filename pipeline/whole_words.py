"""Whole-word masks: all pieces of a word or none (google-research/bert, May 2019).

Words are drawn in random order, by keyed draws, until an example's number of masks is reached. Where the next word does
not fit, Google passes it over, and so masks long words less often than short ones. Here it ends the draw, taken with
probability (masks left) / (its pieces): then every word has the same chance, whatever its length, and an example has its
number of masks on average, within the limit max_predictions_per_seq.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.randomness import U64, bounded, bounded_low, draw



def choose_words(
    keys: U64, first_word: NDArray[np.int64], pieces: NDArray[np.int64], counts: NDArray[np.int64],
    max_predictions: int, pass_over: bool,
) -> NDArray[np.bool_]:  # fmt: skip
    """Which words are masked: bool (words,).

    keys: of each example (n,); first_word: of each example, and the number of words (n + 1,); pieces: tokens of each word;
    counts: masks wanted of each example. Step j takes draw j of the example's key: its upper half names a word, its lower
    half decides about one that does not fit. pass_over: Google's way with those.
    """
    seen = np.zeros(len(pieces), bool)
    taken = np.zeros(len(pieces), bool)
    left = counts.copy()
    words = np.diff(first_word)
    rows = np.flatnonzero((left > 0) & (words > 0))
    unseen = words.copy()
    step = 0
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
            lucky = over & (bounded_low(draws, np.maximum(size, 1)) < left[rows])
            lucky &= counts[rows] - left[rows] + size <= max_predictions
            taken[word[lucky]] = True
            left[rows[over]] = 0
        step += 1
        rows = rows[(left[rows] > 0) & (unseen[rows] > 0)]
    return taken

"""How well the label of a pair can be guessed from the lengths of its segments and the kinds of their first and last tokens.

A model that guesses labels from these learns how the pairs were made, and not what the segments mean.
"""

import itertools
import unicodedata

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, Bools
from pipeline.checks.report import Examples, Guess
from pipeline.vocabulary import Vocabulary

LENGTH_BINS = 16
FULL = 4  # totals that have a bin of their own: max_seq_length and the next smaller ones
ROUNDS, RATE, RIDGE = 20, 0.3, 8.0


def guess_from_borders(e: Examples, vocabulary: Vocabulary) -> Guess | None:
    """Learn the labels on each half of the examples, predict those of the other half, and return the accuracy.

    Examples are in random order, so every second one is a random half. Returns None unless both halves have both labels.
    """
    label = (e.label == 1).astype(np.int64)
    counts = [np.bincount(label[half::2], minlength=2) for half in (0, 1)]
    if len(label) < 4 or min(map(min, counts)) == 0:
        return None
    tables = cells(e, vocabulary)
    score = np.empty(len(label))
    for half in (0, 1):
        learn, test = slice(half, None, 2), slice(1 - half, None, 2)
        weight = 0.5 / (counts[half] / counts[half].sum())[label[learn]]
        score[test] = fit([table[learn] for table in tables], label[learn], weight, [table[test] for table in tables])
    right = (score > 0) == (label == 1)
    shares = [float(right[label == value].mean()) for value in (0, 1)]
    error = 0.5 * float(np.sqrt(sum(0.25 / n for n in np.bincount(label))))
    return Guess(sum(shares) / 2, error)


def never_first(vocabulary: Vocabulary) -> Bools:
    """Return whether each word never begins a sentence: pieces, most marks, and small letters if there are capitals."""
    texts, inside = [text or "" for text in vocabulary.readable.texts], vocabulary.continuation
    first = [text[:1] for text in texts]
    has_capitals = sum(map(str.isupper, itertools.compress(first, ~inside))) > len(texts) // 100
    marks = [
        letter != "" and unicodedata.category(letter) in ("Pe", "Pf", "Po") and text not in ('"', "'")
        for letter, text in zip(first, texts)
    ]
    small = [has_capitals and letter.islower() for letter in first]
    found: Bools = np.array(marks) | np.array(small) | inside
    return found


def cells(e: Examples, vocabulary: Vocabulary) -> list[I64]:
    """Return the cell of each example in each table: two lengths, or a length and how one segment begins and ends.

    No table has the borders of both segments: which end of A goes with which beginning of B is language.
    """
    inside = never_first(vocabulary)
    a, b = e.segment_b - 2, e.b_length
    full = np.clip(FULL - (e.max_seq_length - e.lengths), 0, FULL)
    total = np.where(full > 0, LENGTH_BINS + full, _binned(a + b))
    tables = [_pair(one, two) for one, two in ((_binned(a), _binned(b)), (_binned(a), total), (_binned(b), total))]
    for length, begin, past in (
        (a, e.starts + 1, e.starts + e.segment_b - 1),
        (b, e.starts + e.segment_b, e.starts + e.lengths - 1),
    ):
        whole = vocabulary.kinds.end_a_sentence(e.truth[past - 1], e.truth[np.maximum(past - 2, begin)])
        tables.append(_pair(_binned(length), inside[e.truth[begin]] * 2 + whole))
    return tables


def _binned(length: I64) -> I64:
    """Return the bin of each length, with about as many examples in each."""
    edges = np.unique(np.quantile(length, np.arange(1, LENGTH_BINS) / LENGTH_BINS).astype(np.int64))
    found: I64 = np.searchsorted(edges, length, side="right")
    return found


def _pair(one: I64, two: I64) -> I64:
    return one * int(two.max() + 1) + two


def fit(tables: list[I64], label: I64, weight: NDArray[np.float64], asked: list[I64]) -> NDArray[np.float64]:
    """Return the log odds of label 1 for the asked cells: logistic regression on the tables, with a ridge."""
    score, found = np.zeros(len(label)), np.zeros(len(asked[0]))
    for _ in range(ROUNDS):
        for table, question in zip(tables, asked, strict=True):
            size = int(max(table.max(), question.max())) + 1
            probability = 1 / (1 + np.exp(-score))
            slope = np.bincount(table, weight * (label - probability), size)
            curve = np.bincount(table, weight * probability * (1 - probability), size)
            step = RATE * slope / (curve + RIDGE)
            score += step[table]
            found += step[question]
    return found

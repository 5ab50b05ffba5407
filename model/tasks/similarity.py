"""How good vectors are: the ranks of relevant texts in a search, and the correlation of cosines with scores.

Texts are ranked by the cosine of their vector and the query's; of equal cosines the earlier text comes first. Vectors may be
an array or, for words that are counted, a sparse matrix of SciPy.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.preprocessing import normalize

DEPTH = 10
"""Number of texts that a search finds."""
TEXTS_AT_ONCE = 1024
"""Texts that are compared with the queries in one product."""
SEARCH_METRICS = ("ndcg_at_10", "mrr_at_10", "recall_at_10", "accuracy_at_1")


class Search:
    """The DEPTH best texts for each query, among texts that are added in portions and need not be kept."""

    def __init__(self, queries: Any) -> None:
        """queries: vectors (Q, C)."""
        self._queries = normalize(queries)
        self._num_texts = 0
        self._cosines = np.full((queries.shape[0], DEPTH), -np.inf, dtype=np.float32)
        self.best = np.full((queries.shape[0], DEPTH), -1)
        """int64 (Q, DEPTH), the numbers of the best texts, the best first; -1 if there are fewer texts"""

    def add(self, texts: Any) -> None:
        """Add texts by their vectors (N, C). The first text of all has the number 0."""
        for start in range(0, texts.shape[0], TEXTS_AT_ONCE):
            part = normalize(texts[start : start + TEXTS_AT_ONCE])
            cosines = self._queries @ part.T  # (Q, N)
            cosines = cosines.toarray() if sparse.issparse(cosines) else cosines
            rows = np.flatnonzero(cosines.max(1) > self._cosines[:, -1])
            found = np.concatenate([self._cosines[rows], cosines[rows]], axis=1)
            numbers = np.arange(self._num_texts, self._num_texts + cosines.shape[1])
            known = np.concatenate([self.best[rows], np.broadcast_to(numbers, (len(rows), len(numbers)))], axis=1)
            order = np.argsort(-found, axis=1, kind="stable")[:, :DEPTH]
            self._cosines[rows] = np.take_along_axis(found, order, axis=1)
            self.best[rows] = np.take_along_axis(known, order, axis=1)
            self._num_texts += cosines.shape[1]


def search_metrics(best: np.ndarray, relevant: Sequence[Mapping[int, float]]) -> dict[str, float]:
    """Return the means over all queries of nDCG, reciprocal rank and recall at DEPTH, and the share of right first texts.

    >>> {name: round(value, 3) for name, value in search_metrics(np.array([[7, 5, -1]]), [{5: 1.0}]).items()}
    {'ndcg_at_10': 0.631, 'mrr_at_10': 0.5, 'recall_at_10': 1.0, 'accuracy_at_1': 0.0}

    Args:
        best: see `Search`.
        relevant: for each query the grades, above 0, of its relevant texts, at least one. Only nDCG depends on the grades.
    """
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    sums = np.zeros(len(SEARCH_METRICS))
    for found, grades in zip(best.tolist(), relevant, strict=True):
        gains = [grades.get(number, 0.0) for number in found]
        ideal = sorted(grades.values(), reverse=True)[:DEPTH]
        ranks = [rank for rank, gain in enumerate(gains, 1) if gain > 0]
        sums += (
            np.dot(gains, discounts[: len(gains)]) / np.dot(ideal, discounts[: len(ideal)]),
            1 / ranks[0] if ranks else 0.0,
            len(ranks) / len(grades),
            1 in ranks,
        )
    return dict(zip(SEARCH_METRICS, (sums / len(relevant)).tolist()))


def cosines(first: Any, second: Any) -> np.ndarray:
    """Return the cosine of each vector of one (N, C) with that of the other."""
    first, second = normalize(first), normalize(second)
    product = first.multiply(second) if sparse.issparse(first) else first * second
    return np.asarray(product.sum(1)).reshape(-1)

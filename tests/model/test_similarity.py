"""Metrics of searches, against scikit-learn and a full sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import ndcg_score

from model.tasks import similarity
from model.tasks.similarity import DEPTH, Search, cosines, search_metrics


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 99), st.booleans())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_search_in_portions_finds_what_a_stable_sort_finds(num_texts, portion, seed, is_sparse):
    draw = np.random.default_rng(seed)
    queries, texts = (draw.integers(-1, 2, (number, 3)).astype(np.float32) for number in (4, num_texts))  # many ties
    kind = sparse.csr_matrix if is_sparse else np.asarray
    search = Search(kind(queries))
    for start in range(0, num_texts, portion):
        search.add(kind(texts[start : start + portion]))
    exact = np.round(np.array([[_cosine(query, text) for text in texts] for query in queries]), 5)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :DEPTH]
    assert np.take_along_axis(exact, order, 1) == pytest.approx(
        np.take_along_axis(exact, search.best[:, : order.shape[1]], 1), abs=1e-5
    )
    assert (search.best[:, num_texts:] == -1).all()


def test_of_equal_texts_the_first_ones_are_found(monkeypatch):
    monkeypatch.setattr(similarity, "TEXTS_AT_ONCE", 7)
    search = Search(np.ones((2, 4)))
    search.add(np.ones((30, 4)))
    assert search.best.tolist() == [list(range(DEPTH))] * 2


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / lengths) if lengths else 0.0


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30).filter(any), st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_ndcg_with_grades_is_that_of_scikit_learn(grades, seed):
    scores = np.random.default_rng(seed).permutation(len(grades)).astype(float)
    best = np.full((1, DEPTH), -1)
    order = np.argsort(-scores)[:DEPTH]
    best[0, : len(order)] = order
    relevant = {number: float(grade) for number, grade in enumerate(grades) if grade}
    found = search_metrics(best, [relevant])
    assert found["ndcg_at_10"] == pytest.approx(ndcg_score([grades], [scores], k=DEPTH))
    assert found["recall_at_10"] == len(relevant.keys() & set(order.tolist())) / len(relevant)


def test_cosines_are_the_same_of_arrays_and_of_sparse_matrices():
    first, second = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[4.0, 3.0], [1.0, 0.0]])
    assert cosines(first, second) == pytest.approx([0.96, 0.0])
    assert cosines(sparse.csr_matrix(first), sparse.csr_matrix(second)) == pytest.approx([0.96, 0.0])

"""What a task can reach without pretraining. A baseline is measured like a model, by the task's own metrics.

A baseline takes the training rows, the labels of all their targets (int64 class ids, float32, or uint8 (targets, labels) of
multilabel), the dev rows and the number of their targets. It returns class ids, or numbers, of the dev rows' targets; for
multilabel the probability of each label; for embed a vector of each text. A task lists those that suit it.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

from model.tasks.choice import ChoiceRow
from model.tasks.embed import EmbedRow
from model.tasks.sequence import TextRow
from model.tasks.tag import WORD, TagRow

Baseline = Callable[[Sequence[Any], np.ndarray, Sequence[Any], int], Any]


def majority(train: Sequence[Any], labels: np.ndarray, dev: Sequence[Any], num_targets: int) -> np.ndarray:
    """Return the most frequent class, or the mean of the numbers, of the training rows for every target.

    For multilabel it is the share of the training rows that have each label.
    """
    if labels.ndim == 2:
        return np.tile(labels.mean(0), (num_targets, 1))
    return np.full(num_targets, labels.mean() if labels.dtype.kind == "f" else np.bincount(labels).argmax())


def tf_idf(train: Sequence[TextRow], labels: np.ndarray, dev: Sequence[TextRow], num_targets: int) -> np.ndarray:
    """Return classes by logistic regression, or numbers by ridge regression; each of two texts has its own weights.

    For multilabel there is a logistic regression for each label.
    """
    parts: list[list[sparse.csr_matrix]] = [[], []]
    for name in ("first", "second"):
        texts = [[getattr(row, name) or "" for row in rows] for rows in (train, dev)]
        if any(texts[0]):
            weigh = TfidfVectorizer(analyzer=words_and_pairs, sublinear_tf=True)
            parts[0].append(weigh.fit_transform(texts[0]))
            parts[1].append(weigh.transform(texts[1]))
    if labels.ndim == 2:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about labels that all rows have
            several = OneVsRestClassifier(LogisticRegression(C=10.0, max_iter=1000))
            chances: np.ndarray = several.fit(sparse.hstack(parts[0]), labels).predict_proba(sparse.hstack(parts[1]))
        return chances
    is_number = labels.dtype.kind == "f"
    learner = Ridge(random_state=0) if is_number else LogisticRegression(C=10.0, max_iter=1000)
    found: np.ndarray = learner.fit(sparse.hstack(parts[0]), labels).predict(sparse.hstack(parts[1]))
    return found


def word_overlap(train: Sequence[TextRow], labels: np.ndarray, dev: Sequence[TextRow], num_targets: int) -> np.ndarray:
    """Return classes by logistic regression on how many words the two texts share."""
    learner = LogisticRegression(max_iter=1000).fit([overlap(row) for row in train], labels)
    found: np.ndarray = learner.predict([overlap(row) for row in dev])
    return found


def overlap(row: TextRow) -> list[float]:
    """Return the share of the first text's words that the second has, and the reverse."""
    first, second = (set(words(text or "")) for text in (row.first, row.second))
    both = len(first & second)
    return [both / max(len(first), 1), both / max(len(second), 1)]


def closest_ending(
    train: Sequence[ChoiceRow], labels: np.ndarray, dev: Sequence[ChoiceRow], num_targets: int
) -> np.ndarray:
    """Return the ending of each row that has the largest share of its words in the context and the question."""
    found = []
    for row in dev:
        known = {*words(row.context), *words(row.question or "")}
        shares = [len(known & set(own)) / max(len(set(own)), 1) for own in map(words, row.endings)]
        found.append(shares.index(max(shares)))
    return np.array(found)


def word_memory(train: Sequence[TagRow], labels: np.ndarray, dev: Sequence[TagRow], num_targets: int) -> np.ndarray:
    """Return the most frequent class of each word; the most frequent class of all for a word never seen."""
    usual = int(np.bincount(labels).argmax())
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    for word, label in zip((word for row in train for word in row.tokens), labels.tolist()):
        seen[word][label] += 1
    known = {word: counts.most_common(1)[0][0] for word, counts in seen.items()}
    return np.array([known.get(word, usual) for row in dev for word in row.tokens])


def tf_idf_vectors(
    train: Sequence[EmbedRow], labels: np.ndarray, dev: Sequence[EmbedRow], num_targets: int
) -> sparse.csr_matrix:
    """Return the weighted words of each text; a word is weighted by how few of the dev rows' texts have it."""
    return TfidfVectorizer(analyzer=words, sublinear_tf=True).fit_transform(text for row in dev for text in row.texts)


def words(text: str) -> list[str]:
    """Return the words, signs and single Chinese characters of a text, lower-cased."""
    return WORD.findall(text.lower())


def words_and_pairs(text: str) -> list[str]:
    """Return the words of a text, and each two neighbours."""
    found = words(text)
    return found + [f"{first} {second}" for first, second in zip(found, found[1:])]


BASELINES: dict[str, Baseline] = {
    "majority": majority,
    "tf-idf": tf_idf,
    "word overlap": word_overlap,
    "word memory": word_memory,
    "closest ending": closest_ending,
    "tf-idf vectors": tf_idf_vectors,
}
"""The baselines by name, in the order of a table."""

"""What can be had on a task without any pretraining: measured like a model, by the task's own metrics.

    majority       the most frequent class, or the mean of the numbers, of the training rows
    tf-idf         classify, pair, regress: logistic regression, or ridge, on words and pairs of words weighed by TF-IDF
    word overlap   pair: logistic regression on how many words the two texts share
    word memory    tag: the most frequent class of each word; of a word never seen, that of all words

Span has none: an answer has no class.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from model.tasks.sequence import TextRow
from model.tasks.tag import WORD, TagRow

NAMES = ("majority", "tf-idf", "word overlap", "word memory")
"""In the order of a table."""


def predict_baselines(task: str, train: Sequence[Any], labels: np.ndarray, dev: Sequence[Any]) -> dict[str, np.ndarray]:
    """What each baseline says of the dev rows, by its name: class ids, or numbers for regress; {} for span.

    Args:
        task: classify, pair, regress, tag or span.
        train: its training rows.
        labels: of all training rows, of tag of all their words: int64 class ids, or float32.
    """
    if task == "span":
        return {}
    num_targets = sum(len(row.tokens) for row in dev) if task == "tag" else len(dev)
    usual = labels.mean() if task == "regress" else np.bincount(labels).argmax()
    found = {"majority": np.full(num_targets, usual)}
    if task == "tag":
        return found | {"word memory": word_memory(train, labels, dev, int(usual))}
    found["tf-idf"] = tf_idf(train, labels, dev)
    if task == "pair":
        learner = LogisticRegression(max_iter=1000).fit([overlap(row) for row in train], labels)
        found["word overlap"] = learner.predict([overlap(row) for row in dev])
    return found


def tf_idf(train: Sequence[TextRow], labels: np.ndarray, dev: Sequence[TextRow]) -> np.ndarray:
    """Classes or numbers of the dev rows; the two texts of a row have weights of their own."""
    parts: list[list[sparse.csr_matrix]] = [[], []]
    for name in ("first", "second"):
        texts = [[getattr(row, name) or "" for row in rows] for rows in (train, dev)]
        if any(texts[0]):
            weigh = TfidfVectorizer(analyzer=words_and_pairs, sublinear_tf=True)
            parts[0].append(weigh.fit_transform(texts[0]))
            parts[1].append(weigh.transform(texts[1]))
    is_number = labels.dtype.kind == "f"
    learner = Ridge(random_state=0) if is_number else LogisticRegression(C=10.0, max_iter=1000)
    return learner.fit(sparse.hstack(parts[0]), labels).predict(sparse.hstack(parts[1]))


def overlap(row: TextRow) -> list[float]:
    """Which share of the first text's words the second has, and the other way round."""
    first, second = (set(words(text or "")) for text in (row.first, row.second))
    both = len(first & second)
    return [both / max(len(first), 1), both / max(len(second), 1)]


def word_memory(train: Sequence[TagRow], labels: np.ndarray, dev: Sequence[TagRow], usual: int) -> np.ndarray:
    """The most frequent class of each word of the dev rows."""
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    for word, label in zip((word for row in train for word in row.tokens), labels.tolist()):
        seen[word][label] += 1
    known = {word: counts.most_common(1)[0][0] for word, counts in seen.items()}
    return np.array([known.get(word, usual) for row in dev for word in row.tokens])


def words(text: str) -> list[str]:
    """Words, signs, and single Chinese characters, lower-cased."""
    return WORD.findall(text.lower())


def words_and_pairs(text: str) -> list[str]:
    """Words, and each two that stand together."""
    found = words(text)
    return found + [f"{first} {second}" for first, second in zip(found, found[1:])]

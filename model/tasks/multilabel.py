"""multilabel: a text, or two texts together, have any number of labels, also none.

Each label has a logit of its own, and the loss is the mean of their binary cross-entropies. A text has the labels whose
probability is at least their threshold. The thresholds are those with the highest F1 of each label on the dev rows; they are
kept with the model.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch.nn.functional as F
from scipy.special import expit, logit
from torch import Tensor

from bertloom.counts import counted
from model.hub.tokenizer import TextTokenizer
from model.tasks.columns import Column
from model.tasks.data import TaskBatch, TaskData
from model.tasks.heads import SequenceModel
from model.tasks.sequence import SequenceTask, TextRow
from model.tasks.task import label_of, sorted_labels, string_of
from model.tasks.values import BadRow, ClassName, Parts, from_cell

LABELS = Column("labels", "labels", "label", parts=".+")
"""A column with all labels, or one for each."""
MAX_TARGETS = 1 << 28
"""Largest number of rows times labels: each takes five bytes."""
OTHER_ENTRIES = ("id", "probabilities", "error")
"""Entries of an answer that cannot have the name of a label."""
UNCERTAIN = 0.5
"""Threshold of a label that no dev row has."""


class MultilabelModel(SequenceModel):
    """Any number of labels for a text or a pair of texts."""

    def losses(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """Return the binary cross-entropy of each label, (I, L)."""
        return F.binary_cross_entropy_with_logits(logits, batch.labels.float(), reduction="none")


@dataclass(frozen=True, kw_only=True)
class MultilabelTask(SequenceTask):
    """Labels for each text or pair of texts."""

    label_separator: str | None = None
    """What separates the labels in a string. None: they are a list, or columns."""
    in_columns: bool = False
    """Whether each label had a column of 0 and 1 in the training rows."""
    thresholds: tuple[float, ...] = ()
    """Lowest probability of each label that a text has. Empty: 0.5 for all."""

    name = "multilabel"
    model_class = MultilabelModel
    written = (LABELS,)
    flags = ("label_separator", *SequenceTask.flags)

    def __post_init__(self) -> None:
        """Check what a config.json may hold."""
        if not isinstance(self.label_separator, str | None):
            raise ValueError(f"label_separator is {self.label_separator!r:.40}, expected a string")
        if not isinstance(self.thresholds, list | tuple) or len(self.thresholds) not in (0, len(self.labels)):
            raise ValueError(
                f"thresholds={self.thresholds!r:.60}: expected a number for each of {counted(len(self.labels), 'label')}"
            )
        for value in self.thresholds:
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"thresholds: {value!r:.40} is not a probability: expected a number from 0 to 1")

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("micro_f1", "macro_f1")

    def forms(self, labelled: bool) -> list[tuple[str, ...]]:
        return [(*form, LABELS) if labelled else form for form in self.text_forms]

    def parse(self, place: str, values: Mapping[str, Any]) -> TextRow:
        texts = super().parse(place, {name: value for name, value in values.items() if name != LABELS})
        if LABELS not in values:
            return texts
        found = values[LABELS]
        labels = self._marked(found) if isinstance(found, Parts) else self._listed(found)
        for label in labels:
            self.check_label(label)
        if len(set(labels)) < len(labels):
            twice = next(label for label, count in Counter(labels).items() if count > 1)
            raise BadRow(f"has the label {twice!r:.60} twice")
        return texts._replace(label=tuple(labels), label_columns=tuple(found) if isinstance(found, Parts) else ())

    def _listed(self, found: Any) -> list[str]:
        """Return the labels of a list or a string."""
        if self.label_separator is not None:
            if not isinstance(found, str) or isinstance(found, ClassName):
                raise BadRow(f"labels is {found!r:.60}, expected a string: for lists, omit --label-separator")
            found = [part for part in found.split(self.label_separator) if part.strip()]
        elif type(found) is str and not found.strip():
            found = []
        else:
            found = from_cell(found)
        if not isinstance(found, list):
            raise BadRow(
                f"labels is {found!r:.60}, expected a list: for a string of labels, give --label-separator; for a single "
                f"label, --task classify"
            )
        return [label_of(label) for label in found]

    def _marked(self, found: Parts) -> list[str]:
        """Return the labels whose columns hold 1."""
        if not found:
            raise BadRow("has no column of a label")
        if self.in_columns:
            for label in self.labels:
                if label not in found:
                    raise BadRow(f"has no column {label!r:.60}, which the training rows have")
        return [label for label, value in found.items() if is_one(value, label)]

    def label_counts(self, rows: Sequence[TextRow]) -> Mapping[str, int]:
        return Counter(label for row in rows for label in labels_of(row))

    def learn(self, rows: Sequence[TextRow]) -> Self:
        counts, columns = self.label_counts(rows), dict.fromkeys(name for row in rows for name in row.label_columns)
        labels = self.labels or tuple(columns) or sorted_labels(counts)
        if self.label_separator is not None and all(len(labels_of(row)) < 2 for row in rows):
            example = max((label for row in rows for label in labels_of(row)), key=len, default="")
            raise ValueError(
                f"label_separator={self.label_separator!r} separates no labels: none of the {len(rows):,} training rows has "
                f"two, as in {example!r:.60}: give another one; for a single label per text, use --task classify"
            )
        check_labels(labels, counts, columns, len(rows))
        known: Self = replace(self, labels=labels, in_columns=bool(columns))
        return super(MultilabelTask, known).learn(rows)

    def label_array(self, rows: Sequence[TextRow]) -> np.ndarray:
        """Return 1 for each label that a row has, uint8 (I, L)."""
        ids = {label: number for number, label in enumerate(self.labels)}
        found = np.zeros((len(rows), len(ids)), dtype=np.uint8)
        for number, row in enumerate(rows):
            found[number, [ids[label] for label in labels_of(row)]] = 1
        return found

    def tokenize(self, rows: Sequence[TextRow], tokenizer: TextTokenizer) -> TaskData:
        data = super().tokenize(rows, tokenizer)
        return replace(data, weights=np.ones(data.labels.shape, dtype=np.float32))

    def count_targets(self, data: TaskData) -> np.ndarray:
        counts: np.ndarray = data.labels.sum(0, dtype=np.int64)
        return counts

    def weigh_targets(self, data: TaskData, given: Mapping[str, float]) -> np.ndarray:
        """Return the weight of each label of each text, float32 (I, L).

        given: weights of the texts that have a label. Empty: together they weigh as much as those that do not have it.
        """
        counts = self.count_targets(data)
        balanced = (len(data.labels) - counts) / np.maximum(counts, 1)
        table = np.array([given.get(label, 1.0) for label in self.labels]) if given else np.maximum(balanced, 1e-6)
        weights: np.ndarray = np.where(data.labels == 1, table, 1.0).astype(np.float32)
        return weights

    def logits_of(self, found: np.ndarray, data: TaskData) -> np.ndarray:
        """`found` are probabilities (I, L)."""
        logits: np.ndarray = logit(found.clip(1e-9, 1 - 1e-9))
        return logits

    def calibrate(self, data: TaskData, logits: np.ndarray) -> Self:
        chances = probabilities(logits)
        return replace(
            self,
            thresholds=tuple(best_threshold(chances[:, n], data.labels[:, n] == 1) for n in range(len(self.labels))),
        )

    def measure(self, rows: Sequence[TextRow], data: TaskData, logits: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import f1_score

        predicted = self._chosen(probabilities(logits))
        return {
            f"{average}_f1": float(f1_score(data.labels, predicted, average=average, zero_division=0))
            for average in ("micro", "macro")
        }

    def answer(self, rows: Sequence[TextRow], data: TaskData, logits: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        answers = []
        chances = probabilities(logits)
        for row, chosen in zip(chances, self._chosen(chances)):
            best = np.argsort(-row, kind="stable")[:top_k]
            named = {"probabilities": {self.labels[number]: round(float(row[number]), 6) for number in best}}
            labels = [label for label, is_chosen in zip(self.labels, chosen) if is_chosen]
            if self.in_columns:
                answers.append(dict(zip(self.labels, chosen.astype(int).tolist())) | named)
            else:
                answers.append({"labels": self.written_labels(labels)} | named)
        return answers

    def written_labels(self, labels: list[str]) -> list[str] | str:
        """Return labels in the form of the training rows."""
        return labels if self.label_separator is None else self.label_separator.join(labels)

    def cells(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        if self.in_columns:
            return {LABELS: Parts((label, answer[label]) for label in self.labels)}
        labels = answer[LABELS]
        return {LABELS: labels if isinstance(labels, str) else json.dumps(labels, ensure_ascii=False)}

    def _chosen(self, chances: np.ndarray) -> np.ndarray:
        """Return which labels each text has, bool (I, L)."""
        chosen: np.ndarray = chances >= np.array(self.thresholds or [UNCERTAIN] * len(self.labels))
        return chosen

    def configuration(self) -> dict[str, Any]:
        content = super().configuration()
        learnt = {name: getattr(self, name) for name in ("label_separator", "in_columns", "thresholds")}
        return content | {"problem_type": "multi_label_classification", "bertloom": content["bertloom"] | learnt}


def check_labels(labels: Sequence[str], counts: Mapping[str, int], columns: Collection[str], num_rows: int) -> None:
    """Raise ValueError if labels cannot be learnt.

    Args:
        counts: occurrences of each label in the training rows.
        columns: the labels that have a column of 0 and 1; empty if they have none.
        num_rows: number of training rows.
    """
    if lacking := [label for label in labels if not counts.get(label)]:
        what = "remove its column, or name the others: --columns labels=A,B,…" if columns else "omit it in --labels"
        raise ValueError(f"no training row has the label {lacking[0]!r:.60}: {what}")
    if len(labels) < 2:
        raise ValueError(
            f"the training rows have {counted(len(labels), 'label')}, expected at least two: for one, use --task "
            f"classify"
        )
    for label in columns:
        string_of(label, "the name of a column")
    if columns and (wrong := set(columns) & set(OTHER_ENTRIES)):
        raise ValueError(f"the column {min(wrong)!r} of a label has the name of another entry of answers: rename it")
    if num_rows * len(labels) > MAX_TARGETS:
        raise ValueError(
            f"{num_rows:,} rows and {len(labels):,} labels are too many together: expected at most {MAX_TARGETS:,} "
            f"targets; are the labels separated rightly, such as {labels[0]!r:.60}?"
        )


def labels_of(row: TextRow) -> tuple[str, ...]:
    """Return the labels of a row; none if they are not known."""
    assert row.label is None or isinstance(row.label, tuple)
    return row.label or ()


def is_one(value: Any, name: str) -> bool:
    """Return whether the value in the column of a label is 1; raise BadRow if it is neither 0 nor 1."""
    number = value.number if isinstance(value, ClassName) else value
    known = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
    text = str(number).strip().lower()
    if text not in known:
        raise BadRow(
            f"{name} is {value!r:.40}, expected 0 or 1 in the column of a label: name the column with all labels, or those "
            f"with 0 and 1: --columns labels=A,B,…"
        )
    return known[text]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the probability of each label, float64 (I, L)."""
    chances: np.ndarray = expit(logits.astype(np.float64))
    return chances


def best_threshold(chances: np.ndarray, true: np.ndarray) -> float:
    """Return the lowest probability at which a label should be predicted, for the highest F1 of that label.

    It is the middle between two probabilities, and of several the one nearest to 0.5; 0.5 if no text has the label.

    >>> best_threshold(np.array([0.125, 0.25, 0.5, 0.75]), np.array([False, True, True, True]))
    0.1875
    """
    if not true.any():
        return UNCERTAIN
    order = np.argsort(-chances, kind="stable")
    chances, hits = chances[order], np.cumsum(true[order])
    lower = np.append(chances[1:], -1.0)
    scores = np.where(chances > lower, 2 * hits / (np.arange(1, len(chances) + 1) + hits[-1]), -1.0)
    middles = (chances + lower.clip(0)) / 2
    middles = np.where(middles > lower, middles, chances)  # two neighbouring numbers have no middle
    best = np.flatnonzero(scores == scores.max())
    return float(middles[best[np.abs(middles[best] - UNCERTAIN).argmin()]])

"""Whole texts: a class for a text (classify) or for two (pair), or a number for either (regress).

A text that is too long is read in windows, whose logits are averaged; of two texts that are too long together the longer
loses its end, token by token, as in google-research/bert.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from model.hub.tokenizer import TextTokenizer
from model.tasks.data import DataBuilder, TaskData
from model.tasks.heads import SequenceModel
from model.tasks.rows import BadRow
from model.tasks.task import Task, label_of, softmax, text_of

ROWS_AT_ONCE = 1024
"""Rows tokenized in one call: `tokenizers` shares them out to all cores, and its objects are larger than our arrays."""
ANY_TEXTS = "classify or pair"
"""The name of the task of a model of others, which does not say what it reads."""
FORMS: dict[str, list[tuple[str, ...]]] = {
    "classify": [("text",)],
    "pair": [("text_a", "text_b")],
    "regress": [("text_a", "text_b"), ("text",)],
    ANY_TEXTS: [("text_a", "text_b"), ("text",)],
}
"""What a row has, but for its label; of several forms the first one that is found."""


class TextRow(NamedTuple):
    """A row of classify, pair or regress."""

    place: str
    """Where it stands in its file."""
    id: Any
    """Its `id`, if it has one."""
    first: str
    """The text, or the first of two."""
    second: str | None
    """The second of two."""
    label: str | float | None
    """The class, or the number; None if it is not known."""


@dataclass(frozen=True, kw_only=True)
class SequenceTask(Task[TextRow]):
    """classify, pair and regress."""

    model_class = SequenceModel

    @property
    def has_classes(self) -> bool:
        return self.name != "regress"

    @property
    def num_outputs(self) -> int:
        return len(self.labels) if self.has_classes else 1

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy", "macro_f1", "matthews") if self.has_classes else ("pearson", "spearman")

    def forms(self, labelled: bool) -> list[tuple[str, ...]]:
        return [(*form, "label") if labelled else form for form in FORMS[self.name]]

    def parse(self, place: str, values: Mapping[str, Any]) -> TextRow:
        texts = [text_of(values[name], name) for name in ("text", "text_a", "text_b") if name in values]
        label: str | float | None = None
        if "label" in values:
            if values["label"] is None:
                raise BadRow("has no label")
            label = label_of(values["label"]) if self.has_classes else number_of(values["label"])
            if isinstance(label, str):
                self.check_label(label)
        return TextRow(place, values["id"], texts[0], texts[1] if len(texts) == 2 else None, label)

    def label_counts(self, rows: Sequence[TextRow]) -> Mapping[str, int]:
        return Counter(str(row.label) for row in rows) if self.has_classes else {}

    def tokenize(self, rows: Sequence[TextRow], tokenizer: TextTokenizer) -> TaskData:
        builder = DataBuilder(tokenizer)
        num_cut = 0
        for start in range(0, len(rows), ROWS_AT_ONCE):
            chunk = rows[start : start + ROWS_AT_ONCE]
            firsts = tokenizer.ids([row.first for row in chunk])
            seconds = tokenizer.ids([row.second or "" for row in chunk])
            for number, (row, first, second) in enumerate(zip(chunk, firsts, seconds), start):
                if row.second is None:
                    windows = self.reading.windows(len(first), self.reading.max_seq_length - 2)
                    for begin, end in windows:
                        builder.add_sequence(first[begin:end])
                    num_cut += windows[-1][1] < len(first)
                else:
                    room = self.reading.max_seq_length - 3
                    keep = min(len(second), max(room - len(first), room // 2))
                    num_cut += len(first) + len(second) > room
                    builder.add_sequence(first[: room - keep], second[:keep])
                builder.add_item(number)
        if self.has_classes:
            ids = {label: number for number, label in enumerate(self.labels)}
            labels = np.array([0 if row.label is None else ids[str(row.label)] for row in rows])
        else:
            labels = np.array([row.label or 0.0 for row in rows], dtype=np.float32)
        return builder.build(labels, num_cut=num_cut)

    def measure(self, rows: Sequence[TextRow], data: TaskData, logits: np.ndarray) -> dict[str, float]:
        if not self.has_classes:
            return correlations(data.labels, logits[:, 0])
        from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

        predicted = logits.argmax(1)
        return {
            "accuracy": float(accuracy_score(data.labels, predicted)),
            "macro_f1": float(f1_score(data.labels, predicted, average="macro", zero_division=0)),
            "matthews": float(matthews_corrcoef(data.labels, predicted)),
        }

    def answer(self, rows: Sequence[TextRow], data: TaskData, logits: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        if not self.has_classes:
            return [{"value": round(float(value), 6)} for value in logits[:, 0]]
        answers = []
        for row in softmax(logits):
            best = np.argsort(-row, kind="stable")[:top_k]
            chances = {self.labels[number]: round(float(row[number]), 6) for number in best}
            answers.append({"label": self.labels[best[0]], "probabilities": chances})
        return answers

    def configuration(self) -> dict[str, Any]:
        kind = "single_label_classification" if self.has_classes else "regression"
        names = {} if self.has_classes else {"id2label": {0: "value"}, "label2id": {"value": 0}}
        return super().configuration() | {"problem_type": kind} | names


def number_of(value: Any) -> float:
    """The number to predict; BadRow if it is none."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadRow(f"label is {value!r:.40}, expected a number")
    return number


def correlations(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Pearson's and Spearman's coefficients; 0 where all numbers of a side are equal, and they are not defined."""
    from scipy.stats import pearsonr, spearmanr

    if np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    return {name: float(f(true, predicted).statistic) for name, f in (("pearson", pearsonr), ("spearman", spearmanr))}

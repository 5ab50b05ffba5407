"""What tasks on whole texts have in common: a row is a text, or a pair of texts, with a label.

A text that is too long is read in windows, whose logits are averaged. If two texts are too long together, the longer one
loses its end, token by token, as in google-research/bert.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from scipy.special import softmax

from model.hub.tokenizer import TextTokenizer
from model.tasks.data import DataBuilder, TaskData, Windowing
from model.tasks.heads import SequenceModel
from model.tasks.task import PooledTask, label_of, text_of
from model.tasks.values import BadRow

ROWS_AT_ONCE = 1024
"""Rows tokenized in one call: `tokenizers` shares them out to all cores, and its objects are larger than our arrays."""


class TextRow(NamedTuple):
    """A row of a task on whole texts."""

    place: str
    """Its place in the file, such as "line 3"."""
    id: Any
    """Its `id`, if it has one."""
    first: str
    """The text, or the first of two."""
    second: str | None
    """The second of two."""
    label: str | float | tuple[str, ...] | None
    """The class, the number, or the labels; None if it is not known."""
    label_columns: tuple[str, ...] = ()
    """The labels that have a column in the row, if the labels of a text are in columns of 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class SequenceTask(PooledTask[TextRow]):
    """A task on whole texts: classes, unless a subclass predicts something else."""

    text_forms: ClassVar[list[tuple[str, ...]]] = [("text_a", "text_b"), ("text",)]
    """The columns of a row, without its label; of several forms the first one that the file has."""
    model_class = SequenceModel
    written = ("label",)
    baselines: ClassVar[tuple[str, ...]] = ("majority", "tf-idf")

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy", "macro_f1", "matthews")

    def forms(self, labelled: bool) -> list[tuple[str, ...]]:
        return [(*form, "label") if labelled else form for form in self.text_forms]

    def parse_label(self, value: Any) -> str | float | tuple[str, ...]:
        """Return the label of a row; BadRow if it cannot be used."""
        if isinstance(value, float) and not value.is_integer():
            raise BadRow(f"label is {value}, expected a string or an integer: to predict numbers, use --task regress")
        label = label_of(value)
        self.check_label(label)
        return label

    def label_array(self, rows: Sequence[TextRow]) -> np.ndarray:
        """Return the labels (I,) of rows; zeros for rows without one."""
        ids = {label: number for number, label in enumerate(self.labels)}
        return np.array([0 if row.label is None else ids[str(row.label)] for row in rows])

    def parse(self, place: str, values: Mapping[str, Any]) -> TextRow:
        texts = [text_of(values[name], name) for name in ("text", "text_a", "text_b") if name in values]
        label = None
        if "label" in values:
            if values["label"] is None:
                raise BadRow("has no label")
            label = self.parse_label(values["label"])
        return TextRow(place, values["id"], texts[0], texts[1] if len(texts) == 2 else None, label)

    def label_counts(self, rows: Sequence[TextRow]) -> Mapping[str, int]:
        return Counter(row.label for row in rows if isinstance(row.label, str))

    def learn(self, rows: Sequence[TextRow]) -> Self:
        if rows[0].second is not None:
            refuse_windows(self.windowing, self.name, "two texts")
        learnt = super().learn(rows)
        if not self.labels and learnt.labels and (number := some_decimal(learnt.labels)):
            raise ValueError(
                f"the {len(learnt.labels):,} labels are numbers, such as {number}: to predict numbers, use --task regress; "
                f"if they are classes, list them with --labels"
            )
        return learnt

    def tokenize(self, rows: Sequence[TextRow], tokenizer: TextTokenizer) -> TaskData:
        builder = DataBuilder(tokenizer)
        num_cut = 0
        for start in range(0, len(rows), ROWS_AT_ONCE):
            chunk = rows[start : start + ROWS_AT_ONCE]
            firsts = tokenizer.ids([row.first for row in chunk])
            seconds = tokenizer.ids([row.second or "" for row in chunk])
            for number, (row, first, second) in enumerate(zip(chunk, firsts, seconds), start):
                if row.second is None:
                    windows = self.windowing.windows(len(first), self.windowing.max_seq_length - 2)
                    for begin, end in windows:
                        builder.add_sequence(first[begin:end])
                    num_cut += windows[-1][1] < len(first)
                else:
                    room = self.windowing.max_seq_length - 3
                    num_cut += len(first) + len(second) > room
                    builder.add_sequence(*cut_pair(first, second, room))
                builder.add_item(number)
        return builder.build(self.label_array(rows), num_cut=num_cut)

    def measure(self, rows: Sequence[TextRow], data: TaskData, logits: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

        predicted = logits.argmax(1)
        return {
            "accuracy": float(accuracy_score(data.labels, predicted)),
            "macro_f1": float(f1_score(data.labels, predicted, average="macro", zero_division=0)),
            "matthews": float(matthews_corrcoef(data.labels, predicted)),
        }

    def answer(self, rows: Sequence[TextRow], data: TaskData, logits: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        answers = []
        for row in softmax(logits.astype(np.float64), axis=1):
            best = np.argsort(-row, kind="stable")[:top_k]
            chances = {self.labels[number]: round(float(row[number]), 6) for number in best}
            answers.append({"label": self.labels[best[0]], "probabilities": chances})
        return answers

    def configuration(self) -> dict[str, Any]:
        return super().configuration() | {"problem_type": "single_label_classification"}


def refuse_windows(windowing: Windowing, task: str, texts: str) -> None:
    """Raise ValueError if windows are asked for, because two texts share one sequence. task, texts: what the error names."""
    for name in ("stride", "max_windows"):
        if (value := getattr(windowing, name)) is not None:
            raise ValueError(
                f"{name}={value}: {texts} share one sequence, and {task} reads no windows of them: leave it out. The longer "
                f"one is cut"
            )


def cut_pair(first: np.ndarray, second: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two texts that together have at most `room` tokens: the longer one loses its end, token by token."""
    keep = min(len(second), max(room - len(first), room // 2))
    return first[: room - keep], second[:keep]


def some_decimal(labels: Sequence[str]) -> str | None:
    """Return a label that is not a whole number, if all labels are numbers.

    >>> some_decimal(["1", "2.5"]), some_decimal(["1.0", "2.0"]), some_decimal(["2.5", "nan"])
    ('2.5', None, None)
    """
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        return None
    if not all(map(math.isfinite, numbers.values())):
        return None
    return next((label for label, number in numbers.items() if not number.is_integer()), None)


@dataclass(frozen=True, kw_only=True)
class TextsTask(SequenceTask):
    """Classes of texts or pairs, for a model that was not fine-tuned by bertloom: its files do not say which."""

    name = "classify or pair"

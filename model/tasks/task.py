"""The interface of a task: it parses and tokenizes rows, computes metrics and gives answers.

A task is one file, such as `classify.py`, and one line of `registry.py`. Nothing outside this folder compares the names of
tasks, and a task does not depend on files or on the training loop.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from model.hub.tokenizer import TextTokenizer
from model.pooling import Pooling, VectorForm
from model.shape import EncoderConfig
from model.tasks.data import TaskData, Windowing
from model.tasks.heads import TaskModel
from model.tasks.values import BadRow, ClassName, is_utf8

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Task(ABC, Generic[Row]):
    """A task, with everything needed to read rows and predictions. It is saved in config.json, next to the weights.

    A subclass needs `metrics`, `forms`, `parse`, `label_counts`, `tokenize`, `measure` and `answer`. The other methods have
    defaults.
    """

    windowing: Windowing
    """How long texts are divided."""
    labels: tuple[str, ...] = ()
    """The classes in the order of their ids. Empty before `learn`, and for tasks without classes."""

    name: ClassVar[str]
    """Name in the registry."""
    model_class: ClassVar[type[TaskModel]]
    """Class of the model."""
    has_classes: ClassVar[bool] = True
    """Whether a target's label is the index of one of `labels`."""
    has_two_segments: ClassVar[bool] = False
    """Whether every sequence has a segment A and a segment B."""
    trains_vectors: ClassVar[bool] = False
    """Whether the task trains vectors of texts."""
    baselines: ClassVar[tuple[str, ...]] = ()
    """Names of suitable baselines in `model.tasks.baselines`."""
    written: ClassVar[tuple[str, ...]] = ()
    """Purposes of the columns that `cells` fills when a file is written with predictions. Empty: the predictions of the task
    are written as JSON Lines, whatever the form of the file."""
    flags: ClassVar[tuple[str, ...]] = ()
    """Fields that are set by flags of the same names, which not all tasks have."""
    foreign: ClassVar[Mapping[str, Any]] = {}
    """Values of fields for models that were not fine-tuned by bertloom, because their files do not have them."""

    @property
    def num_outputs(self) -> int:
        """Number of outputs of the classifier."""
        return len(self.labels)

    @property
    def vectors(self) -> VectorForm | None:
        """How the model makes vectors of texts, for a task that trains them."""
        return None

    def build_model(self, config: EncoderConfig) -> TaskModel:
        """Return a new model for the task, on an encoder of this configuration."""
        return self.model_class(config, self.num_outputs)

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that `measure` returns. The first one chooses the best model; higher is better for all."""

    @abstractmethod
    def forms(self, labelled: bool) -> Sequence[Sequence[str]]:
        """Return the forms that a row may have, with or without a label: for each the purposes of its columns."""

    @abstractmethod
    def parse(self, place: str, values: Mapping[str, Any]) -> Row:
        """Return a row; raise BadRow if its values are unusable.

        Args:
            place: where the row is, for messages, such as "line 7".
            values: value of each column, by its purpose.
        """

    @abstractmethod
    def label_counts(self, rows: Sequence[Row]) -> Mapping[str, int]:
        """Return the number of occurrences of each label."""

    @abstractmethod
    def tokenize(self, rows: Sequence[Row], tokenizer: TextTokenizer) -> TaskData:
        """Return the rows as token ids. The labels of rows without labels are 0."""

    @abstractmethod
    def measure(self, rows: Sequence[Row], data: TaskData, logits: np.ndarray) -> dict[str, float]:
        """Return the metrics of labelled rows by name, from a model's logits on them."""

    @abstractmethod
    def answer(self, rows: Sequence[Row], data: TaskData, logits: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        """Return the answer to each row, as a dict that JSON can hold.

        Args:
            rows: as `parse` returned them.
            data: as `tokenize` returned it for these rows.
            logits: of the model on `data`, float32.
            top_k: number of classes whose probabilities the answer has, the most likely first.
        """

    def configured(self, config: EncoderConfig) -> EncoderConfig:
        """Return the configuration of the encoder with what the task chooses; ValueError if the encoder has no choice."""
        return config

    def cells(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an answer puts into columns, by purpose: a value, a list of words, or Parts for several columns."""
        return {purpose: answer[purpose] for purpose in self.written}

    def learn(self, rows: Sequence[Row]) -> Self:
        """Return the task with what its training rows define: the labels, if none were given."""
        return self if self.labels else replace(self, labels=sorted_labels(self.label_counts(rows)))

    def learn_dev(self, rows: Sequence[Row]) -> Self:
        """Return the task with what the form of its dev rows defines: nothing, for most tasks."""
        return self

    def remarks(self, data: TaskData) -> list[str]:
        """Return lines about the training rows that a user should know."""
        return []

    def check_batches(self, data: TaskData, batch_size: int) -> None:
        """Raise ValueError if batches of this number of training rows teach nothing; for tasks that compare rows."""

    def calibrate(self, data: TaskData, logits: np.ndarray) -> Self:
        """Return the task with what the dev rows decide, from a model's logits on them: nothing, for most tasks."""
        return self

    def count_targets(self, data: TaskData) -> np.ndarray:
        """Return the number of targets of each label, int64 (labels,)."""
        return np.bincount(data.labels, minlength=len(self.labels))

    def weigh_targets(self, data: TaskData, given: Mapping[str, float]) -> np.ndarray:
        """Return the weight of each target in the loss, float32.

        given: weights of labels, and 1 for the others. Empty: such that each label has the same total weight, as in
            scikit-learn.
        """
        table = [given.get(label, 1.0) for label in self.labels]
        if not given:
            counts = self.count_targets(data)
            table = [len(data.labels) / (len(self.labels) * max(int(count), 1)) for count in counts]
        weights: np.ndarray = np.array(table, dtype=np.float32)[data.labels]
        return weights

    def logits_of(self, found: np.ndarray, data: TaskData) -> np.ndarray:
        """Return logits that stand for what a baseline has found for each target: classes, or numbers."""
        return np.eye(self.num_outputs)[found] if self.has_classes else found[:, None]

    def check_label(self, label: str) -> None:
        """Raise BadRow if the task's labels are known and this is not one of them."""
        if self.labels and label not in self.labels:
            known = ", ".join(self.labels[:10]) + (" …" if len(self.labels) > 10 else "")
            advice = "; a file with numbers needs numbers in --labels" if label.isdecimal() else ""
            raise BadRow(f"label {label!r:.60} is not one of the {len(self.labels)} labels: {known}{advice}")

    def configuration(self) -> dict[str, Any]:
        """Return the entries of config.json about the task: keys of transformers, and others under "bertloom"."""
        names = dict(enumerate(self.labels))
        values = {"id2label": names, "label2id": {label: number for number, label in names.items()}} if names else {}
        return values | {"bertloom": {"task": self.name, **vars(self.windowing)}}


@dataclass(frozen=True, kw_only=True)
class PooledTask(Task[Row]):
    """A task whose classifier reads one vector for each sequence."""

    pooling: Pooling | None = None
    """How that vector is made; None for what the model's shape says."""

    flags: ClassVar[tuple[str, ...]] = ("pooling",)

    def configured(self, config: EncoderConfig) -> EncoderConfig:
        return config if self.pooling is None else replace(config, shape=config.shape.with_pooling(self.pooling))


def sorted_labels(labels: Mapping[str, int]) -> tuple[str, ...]:
    """Return labels in the order of their ids: that of their file if it has one, by number, or else alphabetically.

    >>> sorted_labels({"10": 1, "9": 1})
    ('9', '10')
    """
    numbers = {str(label): label.number for label in labels if isinstance(label, ClassName)}
    if len(numbers) == len(labels):
        return tuple(sorted(numbers, key=numbers.__getitem__))
    try:
        return tuple(sorted(labels, key=float))
    except ValueError:
        return tuple(sorted(labels))


def text_of(value: Any, name: str) -> str:
    """Return a text; raise BadRow if it is not a string, or has no visible character."""
    text = string_of(value, name)
    if not any(character.isprintable() and not character.isspace() for character in text):
        raise BadRow(f"{name} is empty" if not text.strip() else f"{name} has no visible character")
    return text


def string_of(value: Any, name: str) -> str:
    """Return a string that a tokenizer accepts; raise BadRow if the value is not one."""
    if not isinstance(value, str):
        raise BadRow(f"{name} is {value!r:.40}, expected a string")
    if not is_utf8(value):
        raise BadRow(f"{name} is not valid UTF-8: save the file in UTF-8")
    return value


def label_of(value: Any, name: str = "label") -> str:
    """Return a label as a string without surrounding spaces; numbers and truth values are written as in JSON."""
    if isinstance(value, ClassName) and value:
        string_of(value, name)
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if not isinstance(value, str):
        raise BadRow(f"{name} is {value!r:.40}, expected a string or an integer")
    if not value.strip():
        raise BadRow(f"{name} is empty")
    return string_of(value, name).strip()

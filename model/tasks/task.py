"""The interface of a task: how its rows are parsed, tokenized, learnt, measured and answered.

A task is one file, such as `classify.py`, and one line of `registry.py`. It says everything about itself: nothing
outside this folder compares the names of tasks. A task knows nothing of files or of the training loop.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from model.hub.tokenizer import TextTokenizer
from model.tasks.data import TaskData, Windowing
from model.tasks.heads import TaskModel
from model.tasks.rows import BadRow, is_utf8

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Task(ABC, Generic[Row]):
    """A task, with all that reading a row and a prediction needs. It is kept in config.json next to the weights."""

    windowing: Windowing
    """How long texts are cut."""
    labels: tuple[str, ...] = ()
    """The classes in the order of their ids. Empty before `learn`, and for tasks without classes."""

    name: ClassVar[str]
    """Its name in the registry."""
    model_class: ClassVar[type[TaskModel]]
    """The model that learns it."""
    has_classes: ClassVar[bool] = True
    """Whether a target's label is the index of one of `labels`."""
    has_two_segments: ClassVar[bool] = False
    """Whether every sequence has a segment A and a segment B."""
    baselines: ClassVar[tuple[str, ...]] = ()
    """Names of the baselines that it can be compared with, see `model.tasks.baselines`."""
    foreign: ClassVar[Mapping[str, Any]] = {}
    """Values of fields for a model that was not fine-tuned by bertloom, whose files do not give them."""

    @property
    def num_outputs(self) -> int:
        """Numbers that the classifier gives."""
        return len(self.labels)

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The names of what `measure` gives, the one that says which model is best first; more is better in all."""

    @abstractmethod
    def forms(self, labelled: bool) -> Sequence[Sequence[str]]:
        """What a row has to have, for `read_rows`; with what is to be predicted, or without."""

    @abstractmethod
    def parse(self, place: str, values: Mapping[str, Any]) -> Row:
        """A row from its values by what they are for; BadRow if they cannot be used."""

    @abstractmethod
    def label_counts(self, rows: Sequence[Row]) -> Mapping[str, int]:
        """How often each label occurs."""

    @abstractmethod
    def tokenize(self, rows: Sequence[Row], tokenizer: TextTokenizer) -> TaskData:
        """The rows as token ids; rows without what is to be predicted get zeros for it."""

    @abstractmethod
    def measure(self, rows: Sequence[Row], data: TaskData, logits: np.ndarray) -> dict[str, float]:
        """The metrics of a model's logits on labelled rows and their data."""

    @abstractmethod
    def answer(self, rows: Sequence[Row], data: TaskData, logits: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        """What the logits say of each row, in words and with probabilities, of the `top_k` most likely classes."""

    def learn(self, rows: Sequence[Row]) -> Self:
        """The task with what is found in its training rows: the labels, if none were given."""
        return self if self.labels else replace(self, labels=sorted_labels(self.label_counts(rows)))

    def check_label(self, label: str) -> None:
        """Raises BadRow unless the label is one of the task's, if these are known."""
        if self.labels and label not in self.labels:
            known = ", ".join(self.labels[:10]) + (" …" if len(self.labels) > 10 else "")
            raise BadRow(f"label {label!r} is none of the {len(self.labels)} labels: {known}")

    def configuration(self) -> dict[str, Any]:
        """What config.json says of the task: transformers' keys, and under "bertloom" what it has none for."""
        names = dict(enumerate(self.labels))
        values = {"id2label": names, "label2id": {label: number for number, label in names.items()}} if names else {}
        return values | {"bertloom": {"task": self.name, **vars(self.windowing)}}


def sorted_labels(labels: Mapping[str, int]) -> tuple[str, ...]:
    """Labels in the order of their ids: that of numbers if all are numbers, else of their characters.

    >>> sorted_labels({"10": 1, "9": 1})
    ('9', '10')
    """
    try:
        return tuple(sorted(labels, key=float))
    except ValueError:
        return tuple(sorted(labels))


def text_of(value: Any, name: str) -> str:
    """A text that can be read; BadRow if it is none, or nothing in it can be seen."""
    value = string_of(value, name)
    if not any(character.isprintable() and not character.isspace() for character in value):
        raise BadRow(f"{name} is empty" if not value.strip() else f"{name} holds nothing that can be seen")
    return value


def string_of(value: Any, name: str) -> str:
    """A string that a tokenizer takes; BadRow if it is none."""
    if not isinstance(value, str):
        raise BadRow(f"{name} is {value!r:.40}, expected a string")
    if not is_utf8(value):
        raise BadRow(f"{name} is not valid UTF-8")
    return value


def label_of(value: Any, name: str = "label") -> str:
    """A label as a string, without spaces around it; a number or a truth value as JSON writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if not isinstance(value, str):
        raise BadRow(f"{name} is {value!r:.40}, expected a string or an integer")
    if not value.strip():
        raise BadRow(f"{name} is empty")
    return string_of(value, name).strip()

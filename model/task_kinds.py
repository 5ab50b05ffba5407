"""The tasks by name, and the task of a model that lies on disk."""

from typing import Literal, get_args

from model.task import Task
from model.task_data import Reading
from model.task_sequence import SequenceTask
from model.task_span import SpanTask
from model.task_tag import TagTask

TaskName = Literal["classify", "pair", "regress", "tag", "span"]
KINDS: dict[str, type[Task]] = {
    "classify": SequenceTask, "pair": SequenceTask, "regress": SequenceTask, "tag": TagTask, "span": SpanTask,
}  # fmt: skip
assert set(KINDS) == set(get_args(TaskName))


def make_task(name: str, reading: Reading, labels: tuple[str, ...] = ()) -> Task:
    """The task of that name, before it has seen any row."""
    return KINDS[name](name=name, reading=reading, labels=labels)

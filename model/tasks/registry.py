"""The tasks by name, and the task of a model that lies on disk."""

from typing import Any, Literal, get_args

from model.hub.pretrained import Pretrained
from model.tasks.data import Reading
from model.tasks.sequence import ANY_TEXTS, SequenceTask
from model.tasks.span import SpanTask
from model.tasks.tag import TagTask
from model.tasks.task import Task

TaskName = Literal["classify", "pair", "regress", "tag", "span"]
"""What can be learnt."""
KINDS: dict[str, type[Task]] = {
    "classify": SequenceTask,
    "pair": SequenceTask,
    "regress": SequenceTask,
    "tag": TagTask,
    "span": SpanTask,
    ANY_TEXTS: SequenceTask,
}
assert set(KINDS) == {*get_args(TaskName), ANY_TEXTS}


def make_task(name: str, reading: Reading, labels: tuple[str, ...] = ()) -> Task:
    """The task of that name, before it has seen any row."""
    return KINDS[name](name=name, reading=reading, labels=labels)


def task_of(pretrained: Pretrained) -> Task:
    """The task that a model was fine-tuned for, by bertloom or by others.

    Raises:
        ValueError: it was not fine-tuned, or for a task that is none of ours.
    """
    configuration, where = pretrained.configuration, f"{pretrained.path}/config.json"
    outputs = pretrained.weights.get("classifier.weight")
    kind = configuration.get("problem_type")
    if pretrained.form == "ForQuestionAnswering":
        name = "span"
    elif pretrained.form == "ForTokenClassification" and outputs is not None:
        name = "tag"
    elif pretrained.form == "ForSequenceClassification" and outputs is not None:
        if kind not in (None, "single_label_classification", "regression"):
            raise ValueError(f"{where}: problem_type is {kind!r}, expected single_label_classification or regression")
        name = "regress" if kind == "regression" or len(outputs) == 1 else ANY_TEXTS
    else:
        raise ValueError(
            f"{pretrained.path} was not trained for a task, it is a {pretrained.architecture}: fine-tune it first with "
            f"`bertloom finetune`, or let it fill in words with --fill"
        )
    labels: tuple[str, ...] = ()
    if name in ("tag", ANY_TEXTS):
        assert outputs is not None
        names = configuration.get("id2label") or {str(number): f"LABEL_{number}" for number in range(len(outputs))}
        if set(names) != {str(number) for number in range(len(outputs))}:
            raise ValueError(f"{where}: id2label names {len(names)} labels, the classifier has {len(outputs)}")
        labels = tuple(names[str(number)] for number in range(len(outputs)))
    ours: dict[str, Any] = dict(configuration.get("bertloom") or {})
    if not ours:  # a model of others
        ours = {"task": name, "max_seq_length": pretrained.max_seq_length}
        if name == "span":
            ours["may_be_unanswerable"] = True  # as after SQuAD 2.0: their files do not say
    reading = Reading(
        max_seq_length=ours.pop("max_seq_length"),
        stride=ours.pop("stride", None),
        max_windows=ours.pop("max_windows", None),
    )
    name = ours.pop("task")
    return KINDS[name](name=name, reading=reading, labels=labels, **ours)

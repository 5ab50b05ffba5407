"""The tasks by name, and the task of a model on disk.

A task is imported when it is used: the names are known without torch.
"""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from model.hub.pretrained import Pretrained
    from model.tasks.data import Windowing
    from model.tasks.task import Task

TASKS = {
    "classify": "model.tasks.classify:ClassifyTask",
    "pair": "model.tasks.pair:PairTask",
    "regress": "model.tasks.regress:RegressTask",
    "tag": "model.tasks.tag:TagTask",
    "span": "model.tasks.span:SpanTask",
    "multilabel": "model.tasks.multilabel:MultilabelTask",
    "choice": "model.tasks.choice:ChoiceTask",
    "embed": "model.tasks.embed:EmbedTask",
}
"""The registry: the class of each task."""

if TYPE_CHECKING:
    TaskName = str
else:
    TaskName = Literal[tuple(TASKS)]

TEXTS = "classify or pair"
FOREIGN = {"ForQuestionAnswering": "span", "ForTokenClassification": "tag", "ForMultipleChoice": "choice"}
"""By the form of a model in transformers: the task of one that was not fine-tuned by bertloom."""


def task_class(name: str) -> "type[Task[Any]]":
    """Return the class of the task of that name."""
    found: type[Task[Any]] = resolve_name({TEXTS: "model.tasks.sequence:TextsTask", **TASKS}[name])
    return found


def make_task(name: str, windowing: "Windowing", labels: tuple[str, ...] = (), **flags: Any) -> "Task[Any]":
    """Return the task of that name, before it has seen any row.

    flags: values of its `Task.flags`.
    """
    return task_class(name)(windowing=windowing, labels=labels, **flags)


def task_of(pretrained: "Pretrained") -> "Task[Any]":
    """Return the task that a model was fine-tuned for, by bertloom or by others.

    Raises:
        ValueError: it was not fine-tuned, or bertloom does not have its task.
    """
    from model.tasks.data import Windowing

    configuration, where = pretrained.configuration, f"{pretrained.path}/config.json"
    outputs = pretrained.weights.get("classifier.weight")
    ours: dict[str, Any] = dict(configuration.get("bertloom") or {})
    kind = task_class(ours.pop("task", None) or foreign_task(pretrained, where))
    if not ours:
        ours = {"max_seq_length": pretrained.max_seq_length, **kind.foreign}
    labels: tuple[str, ...] = ()
    if kind.has_classes:
        assert outputs is not None
        names = configuration.get("id2label") or {str(number): f"LABEL_{number}" for number in range(len(outputs))}
        if set(names) != {str(number) for number in range(len(outputs))}:
            raise ValueError(f"{where}: id2label names {len(names)} labels, but the classifier has {len(outputs)}")
        labels = tuple(names[str(number)] for number in range(len(outputs)))
    windowing = Windowing(
        max_seq_length=ours.pop("max_seq_length"),
        stride=ours.pop("stride", None),
        max_windows=ours.pop("max_windows", None),
    )
    return kind(windowing=windowing, labels=labels, **ours)


def foreign_task(pretrained: "Pretrained", where: str) -> str:
    """Return the name of the task that transformers' class and configuration of a model stand for."""
    outputs, problem = pretrained.weights.get("classifier.weight"), pretrained.configuration.get("problem_type")
    if pretrained.form in FOREIGN and (outputs is not None or FOREIGN[pretrained.form] == "span"):
        return FOREIGN[pretrained.form]
    if pretrained.form == "ForSequenceClassification" and outputs is not None:
        if problem == "multi_label_classification":
            return "multilabel"
        if problem not in (None, "single_label_classification", "regression"):
            raise ValueError(
                f"{where}: problem_type is {problem!r}, expected single_label_classification, "
                f"multi_label_classification or regression"
            )
        return "regress" if problem == "regression" or len(outputs) == 1 else TEXTS
    raise ValueError(
        f"{pretrained.path} was not trained for a task, it is a {pretrained.architecture}: fine-tune it first with "
        f"`bertloom finetune`, or let it fill in words with --fill"
    )

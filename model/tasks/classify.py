"""classify: a text has a class."""

from dataclasses import dataclass

from model.tasks.sequence import SequenceTask


@dataclass(frozen=True, kw_only=True)
class ClassifyTask(SequenceTask):
    """A class for each text."""

    name = "classify"
    text_forms = [("text",)]

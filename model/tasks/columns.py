"""The purposes of columns, and the names by which the columns for them are recognised."""

import re
from typing import Self

KNOWN_NAMES = {
    "text": ("text", "sentence"),
    "text_a": ("text_a", "a", "sentence1", "premise", "question1", "question"),
    "text_b": ("text_b", "b", "sentence2", "hypothesis", "question2", "sentence"),
    "label": ("label", "score"),
    "tokens": ("tokens", "words"),
    "tags": ("tags", "ner_tags"),
    "question": ("question",),
    "context": ("context",),
    "answers": ("answers",),
}
"""The purposes of columns, and the names by which a column is recognised. `Column` is a purpose with names of its own."""


class Column(str):
    """The purpose of a column, with the names by which its column is recognised."""

    names: tuple[str, ...]
    """Names of the column."""
    parts: re.Pattern[str] | None
    """Names of several columns that take its place, such as ending0, ending1, …"""

    def __new__(cls, purpose: str, *names: str, parts: str = "") -> Self:
        self = super().__new__(cls, purpose)
        self.names = names
        self.parts = re.compile(parts) if parts else None
        return self


def known_names(purpose: str) -> tuple[str, ...]:
    """Return the names by which the column for a purpose is recognised."""
    return purpose.names if isinstance(purpose, Column) else KNOWN_NAMES[purpose]


def pattern_of(purpose: str) -> re.Pattern[str] | None:
    """Return the names of several columns that may take the place of one, or None."""
    return purpose.parts if isinstance(purpose, Column) else None

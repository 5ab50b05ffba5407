"""The values in rows: what is unusable, what is the name of a class, and what can be written as UTF-8."""

from typing import Any, Self


class BadRow(ValueError):
    """An unusable row, or an unusable value of a row; the message is the reason."""


class ClassName(str):
    """The name of a class in a column of numbers, as `datasets` declares it (ClassLabel)."""

    number: int
    """The number of the class in the file, which is its place among the labels."""

    def __new__(cls, name: str, number: int) -> Self:
        self = super().__new__(cls, name)
        self.number = number
        return self


class Parts(dict[str, Any]):
    """The values of several columns that serve one purpose, by the names of the columns."""


def is_utf8(text: str) -> bool:
    """Return whether a string can be written as UTF-8. Surrogates cannot; Python makes them of bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""The values in rows: what is unusable, what is the name of a class, and what can be written as UTF-8."""

from contextlib import suppress
from typing import Any, Self

from bertloom.json_files import loads


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


def from_cell(value: Any) -> Any:
    """Return the JSON value in a string, as a cell of a table holds it; strings without one and other values as they are.

    >>> from_cell('["a", "b"]'), from_cell("a")
    (['a', 'b'], 'a')
    """
    if isinstance(value, str) and not isinstance(value, ClassName):
        with suppress(ValueError):
            return loads(value)
    return value


def is_utf8(text: str) -> bool:
    """Return whether a string can be written as UTF-8. Surrogates cannot; Python makes them of bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

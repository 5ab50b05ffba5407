"""The filters of the list of examples, as its address has them.

    d0/examples?split=train&length=128&word=learning

A list shows the examples for which all of its filters hold. `jobs/browser/conditions.py` has what each filter means for the
rows of a member, and `jobs/browser/search.py` finds the examples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple
from urllib.parse import urlencode

from bertloom.arrays import I64, Bools
from jobs.browser.query import document_id, whole_number


class Range(NamedTuple):
    """Whole numbers from `first` to `last`."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def holds(self, values: I64) -> Bools:
        """Return which values are in it."""
        found: Bools = (values >= self.first) & (values <= self.last)
        return found


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What a list shows; None: everything."""

    split: str | None = None
    length: int | None = None
    """max_seq_length."""
    copy: int | None = None
    label: int | None = None
    """Value of next_sentence_label."""
    source: str | None = None
    """The file that A or B is from, or an archive that holds it."""
    document: int | None = None
    """The document that A or B is from."""
    word: str | None = None
    """Words that the true text holds one after the other."""
    token: int | None = None
    """Id of a token of the true text."""
    masked: int | None = None
    """True id of a masked token."""
    masked_at: Range | None = None
    """A position in this range is masked."""
    tokens: Range | None = None
    """Number of tokens."""
    unknown: bool | None = None
    """Whether the true text holds [UNK]; only True is a filter."""
    script: str | None = None
    """The script of most words of the true text, as `pipeline/text/scripts.py` names it."""

    def given(self) -> dict[str, Any]:
        """Return the values of the filters that are given, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Filters:
        """Return the filters in the query of an address. Empty values and other names are ignored.

        >>> Filters.of({"length": "128", "tokens": "100-128", "word": ""})
        Filters(split=None, length=128, ..., tokens=Range(first=100, last=128), ...)

        Raises:
            ValueError: a value is not possible.
        """
        given = {name: values[name].strip() for name in PARSERS if values.get(name, "").strip()}
        return cls(**{name: PARSERS[name](name, text) for name, text in given.items()})

    def texts(self) -> dict[str, str]:
        """Return the filters that are given, as an address has them."""
        return {name: _text(name, value) for name, value in self.given().items()}

    def query(self, **changes: object) -> str:
        """Return the query of an address with these filters, after changes. A change to None leaves a value out.

        >>> Filters(split="train", copy=0).query(copy=None, label=1)
        'split=train&label=1'
        """
        changed = {name: None if value is None else _text(name, value) for name, value in changes.items()}
        return urlencode({name: text for name, text in {**self.texts(), **changed}.items() if text is not None})


def _word(name: str, text: str) -> str:
    return text


def _number(least: int, most: int) -> Callable[[str, str], int]:
    return lambda name, text: whole_number(name, text, least, most)


def _range(name: str, text: str) -> Range:
    if not (found := re.fullmatch(r"([0-9]{1,9})(?:\s*[-–]\s*([0-9]{1,9}))?", text)):
        raise ValueError(f"{name}={text:.80}: expected a number, or the first and the last of a range: {name}=100-128")
    return Range(int(found[1]), int(found[2] or found[1]))


def _one_of(*choices: str) -> Callable[[str, str], str]:
    def parse(name: str, text: str) -> str:
        if text not in choices:
            raise ValueError(f"{name}={text:.80}: expected {' or '.join(choices)}")
        return text

    return parse


def _true(name: str, text: str) -> bool:
    return whole_number(name, text, 1, 1) == 1


PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "split": _one_of("train", "validation"),
    "length": _number(1, 1 << 16),
    "copy": _number(0, 1 << 31),
    "label": _number(-1, 1),
    "source": _word,
    "document": document_id,
    "word": _word,
    "token": _number(0, 1 << 32),
    "masked": _number(0, 1 << 32),
    "masked_at": _range,
    "tokens": _range,
    "unknown": _true,
    "script": _word,
}
"""In the order of an address."""


def _text(name: str, value: object) -> str:
    return f"{value:016x}" if name == "document" else "1" if value is True else str(value)

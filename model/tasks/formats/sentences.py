"""Sentences in files with a line for each word: reads them as records, and writes their lines with predicted tags.

A form of such files makes a `Line` of each line: which lines are words, and where their columns are.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from model.tasks.formats.row_format import Answers, Records
from model.tasks.formats.text_files import changed_error
from model.tasks.values import BadRow

MAX_WORDS = 4096
"""Largest number of words in a sentence. A file without blank lines would be one sentence."""
MAX_CHARACTERS = 1 << 20
"""Largest number of characters in the words of a sentence, with all their columns."""
SPACED = re.compile("[^ \r\n]+")
SENTENCE_ID = re.compile(r"# ?sent_id ?= ?(.*\S)")


def columns_of(text: str) -> list[str]:
    """Return the columns of a line without its end. One tab, or any number of spaces, is between two of them.

    >>> columns_of("EU  NNP "), columns_of("New York\\tLOC")
    (['EU', 'NNP'], ['New York', 'LOC'])
    """
    return text.split("\t") if "\t" in text else [column for column in text.split(" ") if column]


def place_of(text: str, column: int) -> tuple[int, int]:
    """Return begin and end of a column of a line.

    >>> place_of("EU  NNP ", 1)
    (4, 7)
    """
    columns = text.rstrip("\r\n").split("\t")
    if len(columns) == 1:
        return next(islice(SPACED.finditer(text), column, None)).span()
    begin = sum(map(len, columns[:column])) + column
    return begin, begin + len(columns[column])


class Line(NamedTuple):
    """A line of a file."""

    number: int
    """Its number, from 1."""
    text: str
    """The line, with its end."""
    columns: list[str] | BadRow | None = None
    """The columns of a word, separated by tabs or spaces; None if the line is not a word."""
    is_border: bool = False
    """Whether the line is between sentences."""


def read_sentences(lines: Iterable[Line], names: Mapping[str, int], needed: Container[str]) -> Records:
    """Yield the place of each sentence and its words by column; None for columns that are not needed.

    names: the indices of the columns by name.
    """
    for is_border, block in groupby(lines, attrgetter("is_border")):
        if not is_border and (record := _record(block, names, needed)):
            yield record


def _record(
    block: Iterable[Line], names: Mapping[str, int], needed: Container[str]
) -> tuple[str, dict[str, Any] | BadRow] | None:
    """Return the record of the lines between two borders; None if none of them is a word."""
    words: list[list[str]] = []
    places = sorted({place for name, place in names.items() if name in needed})
    first = last = size = 0
    identity = None
    for line in block:
        if line.columns is None:
            match = SENTENCE_ID.match(line.text)
            identity = match.group(1) if match else identity
            continue
        if isinstance(line.columns, BadRow):
            return f"line {line.number}", line.columns
        first, last, size = first or line.number, line.number, size + len(line.text)
        if len(words) == MAX_WORDS or size > MAX_CHARACTERS:
            return f"line {first}", BadRow(
                f"begins a sentence of more than {MAX_WORDS:,} words or {MAX_CHARACTERS:,} characters: "
                f"expected a blank line between sentences"
            )
        words.append([line.columns[place] for place in places])
    if not words:
        return None
    columns = dict(zip(places, map(list, zip(*words))))
    values = {name: columns[place] if name in needed else None for name, place in names.items()}
    return f"line {first}" if first == last else f"lines {first} to {last}", {**values, "id": identity}


def write_sentences(path: Path, lines: Iterable[Line], column: int, separator: str, answers: Answers) -> Iterator[str]:
    """Yield the lines with the tags of the answers in a column.

    Args:
        path: for errors.
        column: index of the column. A word that has no such column gets it after a separator.
        answers: one for each record that `read_sentences` yields.
    """
    remaining = iter(answers)
    for _, block in groupby(lines, attrgetter("is_border")):
        is_read, tags = False, None
        for line in block:
            if line.columns is None:
                yield line.text
                continue
            if not is_read:
                answer = next(remaining, None)
                if answer is None:
                    raise changed_error(path)
                is_read, tags = True, None if isinstance(answer, BadRow) else iter(answer["tags"])
            if tags is None:
                yield line.text
                continue
            tag = next(tags, None)
            if tag is None or isinstance(line.columns, BadRow):
                raise changed_error(path)
            begin, end = place_of(line.text, min(column, len(line.columns) - 1))
            if column < len(line.columns):
                yield f"{line.text[:begin]}{tag}{line.text[end:]}"
            else:
                yield f"{line.text[:end]}{separator}{tag}{line.text[end:]}"
        if tags is not None and next(tags, None) is not None:
            raise changed_error(path)
    if next(remaining, None) is not None:
        raise changed_error(path)

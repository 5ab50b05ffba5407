"""Reads the rows of a task's files: finds the columns that the task needs, and parses the values of each record."""

import json
import re
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bertloom.json_files import check_regular
from model.tasks.columns import known_names, pattern_of
from model.tasks.formats.registry import names_columns, read_records
from model.tasks.values import BadRow, Parts, is_utf8

Row = TypeVar("Row")

OPTIONAL_COLUMNS = ("id", "is_impossible")
"""Columns that are passed on if a row has them."""
MAX_NAMED = 5
"""Largest number of bad rows that an error lists."""
MAX_SHOWN = 20
"""Largest number of columns that an error lists."""
MAX_HELD = 1000
"""Number of rows that are searched for one that has the columns."""


Place = str | tuple[str, ...] | re.Pattern[str]
"""Where the value for a purpose is: in a column, in these columns, or in all other columns with such names."""


class NeededColumns(Container[str]):
    """The names of the columns that `read_rows` may look at."""

    def __init__(self, names: Collection[str], patterns: Sequence[re.Pattern[str]]) -> None:
        self._names, self._patterns = frozenset(names), patterns

    def __contains__(self, name: object) -> bool:
        return name in self._names or any(pattern.fullmatch(str(name)) for pattern in self._patterns)


class Rejected(NamedTuple):
    """A skipped row."""

    file: str
    """Path of its file."""
    place: str
    """Its place in the file, such as "line 3"."""
    reason: str
    """Why it is unusable."""


def read_task(
    path: Path,
    forms: Sequence[Sequence[str]],
    parse: Callable[[str, dict[str, Any]], Row],
    columns: Mapping[str, str],
    on_bad_row: str,
) -> tuple[list[Row], list[Rejected]]:
    """Return the usable rows of a file, and the others.

    Args:
        forms, parse, columns: see `read_rows`.
        on_bad_row: "stop" raises an error about bad rows, "skip" does not.

    Raises:
        ValueError: no row is usable; or on_bad_row is "stop" and there are bad rows; or it is a pipe, which cannot be read
            again when the command is resumed.
    """
    if path.exists():
        check_regular(path)
    rows, rejected = [], []
    for place, row in read_rows(path, read_records(path, needed_columns(forms, columns)), forms, parse, columns):
        if isinstance(row, BadRow):
            rejected.append(Rejected(str(path), place, str(row)))
        else:
            rows.append(row)
    if rejected and (on_bad_row == "stop" or not rows):
        named = "; ".join(f"{place}: {reason}" for _, place, reason in rejected[:MAX_NAMED])
        more = f"; and {len(rejected) - MAX_NAMED} more" if len(rejected) > MAX_NAMED else ""
        advice = "fix them, or skip them with --on-bad-row skip" if rows else "is it the right file?"
        raise ValueError(
            f"{path}: {len(rejected)} of {len(rejected) + len(rows)} rows cannot be used: {named}{more}: {advice}"
        )
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows, rejected


def read_rows(
    path: Path,
    records: Iterable[tuple[str, dict[str, Any] | BadRow]],
    forms: Sequence[Sequence[str]],
    parse: Callable[[str, dict[str, Any]], Row],
    columns: Mapping[str, str],
) -> Iterator[tuple[str, Row | BadRow]]:
    """Yield the place of each record, and its row or the reason why it is unusable.

    Args:
        path: for errors.
        records: from `read_records`.
        forms: alternative lists of purposes, such as [["text", "label"]]. The first row that has the columns of one of
            them decides; up to MAX_HELD rows before it are bad.
        parse: a function of the place and of the values by purpose that returns a row or raises BadRow.
        columns: names of columns that KNOWN_NAMES does not have, such as {"text": "review"}.

    Raises:
        ValueError: the columns of the file fit none of the forms.
    """
    names: dict[str, Place] = {}
    lacking: ValueError | None = None  # about the first row
    held: list[tuple[str, dict[str, Any] | BadRow]] = []
    for place, values in records:
        held.append((place, values))
        if not names and not isinstance(values, BadRow):
            try:
                names = find_columns(path, list(values), forms, columns)
            except ValueError as error:
                lacking = lacking or error
        if not names and lacking:
            if len(held) == MAX_HELD:
                raise lacking
            continue
        for place, values in held:
            try:
                yield place, values if isinstance(values, BadRow) else parse(place, by_purpose(values, names))
            except BadRow as error:
                yield place, error
        held.clear()
    if lacking and not names:
        raise lacking


def needed_columns(forms: Sequence[Sequence[str]], columns: Mapping[str, str]) -> NeededColumns:
    """Return the columns that `read_rows` may look at, for a file with rows in these forms."""
    purposes = dict.fromkeys(purpose for form in forms for purpose in form)
    known = {name for purpose in purposes for name in known_names(purpose)}
    given = {part for name in columns.values() for part in (name, *name.split(","))}
    patterns = [parts for purpose in purposes if purpose not in columns and (parts := pattern_of(purpose))]
    return NeededColumns(known | given | {*OPTIONAL_COLUMNS}, patterns)


def by_purpose(values: Mapping[str, Any], places: Mapping[str, Place]) -> dict[str, Any]:
    """Return the values of a row by purpose; those of several columns as Parts.

    Raises:
        BadRow: one is missing or cannot be read, or the `id` cannot be written as UTF-8.
    """
    names = {purpose: names_in(values, place, places) for purpose, place in places.items()}
    used = [name for parts in names.values() for name in parts]
    for name in used:
        if name not in values:
            raise BadRow(f"has no {name!r}")
    for name in (*used, *OPTIONAL_COLUMNS):
        if isinstance(value := values.get(name), BadRow):
            raise BadRow(f"{name} {value}")
    identity = values.get("id")
    if isinstance(identity, (list, dict)):
        identity = json.dumps(identity, ensure_ascii=False, default=str)
    if isinstance(identity, str) and not is_utf8(identity):
        raise BadRow("id is not valid UTF-8")
    optional = {name: values.get(name) for name in OPTIONAL_COLUMNS}
    found = {
        purpose: values[place] if isinstance(place, str) else Parts((name, values[name]) for name in names[purpose])
        for purpose, place in places.items()
    }
    return optional | found


def names_in(found: Collection[str], place: Place, places: Mapping[str, Place]) -> Sequence[str]:
    """Return the names of the columns at a place. A pattern does not cover the columns of other purposes."""
    if isinstance(place, str):
        return (place,)
    if isinstance(place, tuple):
        return place
    taken = {name for name in places.values() if isinstance(name, str)} | {*OPTIONAL_COLUMNS}
    return [name for name in found if place.fullmatch(name) and name not in taken]


def find_columns(
    path: Path, found: Collection[str], forms: Sequence[Sequence[str]], columns: Mapping[str, str]
) -> dict[str, Place]:
    """Return the place of the value for each purpose, for the first form whose columns are there.

    >>> find_columns(Path("x"), ["sentence", "label"], [["text", "label"]], {})
    {'text': 'sentence', 'label': 'label'}
    """
    purposes = {purpose: purpose for form in forms for purpose in form}
    shown = ", ".join(f"{name:.40}" for name in list(found)[:MAX_SHOWN]) + (", …" if len(found) > MAX_SHOWN else "")
    given: dict[str, Place] = {}
    for purpose, name in columns.items():
        if purpose not in purposes:
            raise ValueError(
                f"{path}: --columns {purpose}={name}: this task does not read {purpose!r}: expected one of "
                f"{', '.join(purposes)}"
            )
        is_list = name not in found and pattern_of(purposes[purpose]) is not None
        parts = tuple(name.split(",")) if is_list else (name,)
        for part in parts:
            if part not in found:
                raise ValueError(f"{path} has no column {part!r} for {purpose}: its columns are {shown}")
        given[purpose] = parts if len(parts) > 1 else name
    lacking = []
    for form in forms:
        places: dict[str, Place] = {}
        for purpose in form:
            if place := given.get(purpose) or _recognized(purpose, found, places):
                places[purpose] = place
        if len(places) == len(form):
            return places
        lacking.append([purpose for purpose in form if purpose not in places])
    purpose = min(lacking, key=len)[0]
    advice = (
        ". If the first line is a row, add one above it with the names of the columns" if names_columns(path) else ""
    )
    raise ValueError(
        f"{path} has no column for {purpose}: expected {' or '.join(known_names(purpose))}, its columns are {shown}; is it "
        f"a file for this task? If so, name the column: --columns {purpose}=NAME{advice}"
    )


def _recognized(purpose: str, found: Collection[str], places: Mapping[str, Place]) -> Place | None:
    """Return the place for a purpose by the names of columns, or None."""
    for name in known_names(purpose):
        if name in found and name not in places.values():
            return name
    pattern = pattern_of(purpose)
    return pattern if pattern and names_in(found, pattern, places) else None

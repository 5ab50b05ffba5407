"""Reads the rows of a task's files: finds the columns that the task needs, and parses the values of each record."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bertloom.json_files import check_regular
from model.tasks.records import names_columns, read_records
from model.tasks.values import BadRow, is_utf8

Row = TypeVar("Row")

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
"""The purposes of columns, and the names by which a column is recognised."""
OPTIONAL_COLUMNS = ("id", "is_impossible")
"""Columns that are passed on if a row has them."""
MAX_NAMED = 5
"""Largest number of bad rows that an error lists."""
MAX_SHOWN = 20
"""Largest number of columns that an error lists."""
MAX_HELD = 1000
"""Number of rows that are searched for one that has the columns."""


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
    names: dict[str, str] = {}
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


def needed_columns(forms: Sequence[Sequence[str]], columns: Mapping[str, str]) -> set[str]:
    """Return the names of the columns that `read_rows` may look at, for a file with rows in these forms."""
    known = {name for form in forms for purpose in form for name in KNOWN_NAMES[purpose]}
    return known | {*columns.values(), *OPTIONAL_COLUMNS}


def by_purpose(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of a row by purpose.

    Raises:
        BadRow: one is missing or cannot be read, or the `id` cannot be written as UTF-8.
    """
    for name in names.values():
        if name not in values:
            raise BadRow(f"has no {name!r}")
    for name in (*names.values(), *OPTIONAL_COLUMNS):
        if isinstance(value := values.get(name), BadRow):
            raise BadRow(f"{name} {value}")
    identity = values.get("id")
    if isinstance(identity, (list, dict)):
        identity = json.dumps(identity, ensure_ascii=False, default=str)
    if isinstance(identity, str) and not is_utf8(identity):
        raise BadRow("id is not valid UTF-8")
    optional = {name: values.get(name) for name in OPTIONAL_COLUMNS}
    return optional | {purpose: values[name] for purpose, name in names.items()}


def find_columns(
    path: Path, found: Collection[str], forms: Sequence[Sequence[str]], columns: Mapping[str, str]
) -> dict[str, str]:
    """Return the column of each purpose, for the first form whose columns are there.

    >>> find_columns(Path("x"), ["sentence", "label"], [["text", "label"]], {})
    {'text': 'sentence', 'label': 'label'}
    """
    purposes = list(dict.fromkeys(purpose for form in forms for purpose in form))
    shown = ", ".join(f"{name:.40}" for name in list(found)[:MAX_SHOWN]) + (", …" if len(found) > MAX_SHOWN else "")
    for purpose, name in columns.items():
        if purpose not in purposes:
            raise ValueError(
                f"{path}: --columns {purpose}={name}: this task does not read {purpose!r}: expected one of "
                f"{', '.join(purposes)}"
            )
        if name not in found:
            raise ValueError(f"{path} has no column {name!r} for {purpose}: its columns are {shown}")
    lacking = []
    for form in forms:
        names: dict[str, str] = {}
        for purpose in form:
            known = [columns[purpose]] if purpose in columns else KNOWN_NAMES[purpose]
            names[purpose] = next((name for name in known if name in found and name not in names.values()), "")
        if all(names.values()):
            return names
        lacking.append([purpose for purpose in form if not names[purpose]])
    purpose = min(lacking, key=len)[0]
    advice = (
        ". If the first line is a row, add one above it with the names of the columns" if names_columns(path) else ""
    )
    raise ValueError(
        f"{path} has no column for {purpose}: expected {' or '.join(KNOWN_NAMES[purpose])}, its columns are {shown}; is it "
        f"a file for this task? If so, name the column: --columns {purpose}=NAME{advice}"
    )

"""Rows of a file or of standard input as a stream, for the commands that apply a model."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

from jobs.support.messages import errors_of
from jobs.support.outputs import STANDARD
from model.tasks.formats.json_lines import json_lines
from model.tasks.formats.registry import read_records
from model.tasks.rows import needed_columns, read_rows
from model.tasks.task import text_of
from model.tasks.values import BadRow

Row = TypeVar("Row")

ROWS_AT_ONCE = 1024
"""Rows that go through a model together: `tokenizers` shares them among all cores."""
TEXT_FORMS = [("text",)]
"""The columns of a row that is a text."""
OnBadRow = Literal["stop", "skip"]


class Text(NamedTuple):
    """A row."""

    place: str
    """Its place in the file, such as "line 3"."""
    id: Any
    """Its `id`, if it has one."""
    text: str


def read_input(
    path: Path,
    forms: Sequence[Sequence[str]],
    parse: Callable[[str, dict[str, Any]], Row],
    columns: Mapping[str, str],
    on_bad_row: OnBadRow,
    written: Collection[str] = (),
) -> Iterator[list[tuple[str, Row | BadRow]]]:
    """Return the places and rows of a file, or of JSONL on standard input if the path is -, in lists of up to ROWS_AT_ONCE.

    Args:
        forms, parse, columns: see `read_rows`.
        written: purposes of columns that the caller will write and does not read.

    Raises:
        ValueError: now, if there is no such file or its name has no known ending; later, if there is no row, the file cannot
            be read, or a row cannot be used and on_bad_row is "stop".
    """
    is_piped = str(path) == STANDARD
    name = Path("standard input") if is_piped else path
    named = nullcontext if is_piped else partial(errors_of, "--input")
    with named():
        records = (
            json_lines(name, cast(BufferedReader, sys.stdin.buffer))
            if is_piped
            else read_records(path, needed_columns(forms, columns))
        )
    read = {purpose: column for purpose, column in columns.items() if purpose not in written}
    return _chunks(named, name, read_rows(name, records, forms, parse, read), on_bad_row)


def _chunks(
    named: Callable[[], AbstractContextManager[None]],
    name: Path,
    rows: Iterator[tuple[str, Row | BadRow]],
    on_bad_row: OnBadRow,
) -> Iterator[list[tuple[str, Row | BadRow]]]:
    is_empty = True
    while True:
        with named():
            chunk = list(islice(rows, ROWS_AT_ONCE))
            if is_empty and not chunk:
                raise ValueError(f"{name} has no rows")
            for place, row in chunk:
                if isinstance(row, BadRow) and on_bad_row == "stop":
                    raise ValueError(f"{name}: {place}: {row}: fix it, or skip such rows with --on-bad-row skip")
        if not chunk:
            return
        is_empty = False
        yield chunk


def parse_text(place: str, values: Mapping[str, Any]) -> Text:
    """Return a row from its values; raise BadRow if its text cannot be used."""
    return Text(place, values.get("id"), text_of(values["text"], "text"))

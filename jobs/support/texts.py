"""Texts of a file or of standard input as a stream, for the commands that read nothing else of a row."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from model.tasks.rows import BadRow, json_lines, read_records, read_rows
from model.tasks.task import text_of

ROWS_AT_ONCE = 1024
OnBadRow = Literal["stop", "skip"]


class Text(NamedTuple):
    """A row."""

    place: str
    """Where it stands."""
    id: Any
    """Its `id`, if it has one."""
    text: str


def read_texts(path: Path, columns: Mapping[str, str], on_bad_row: OnBadRow) -> Iterator[list[Text | BadRow]]:
    """The rows of a file, or of JSONL on standard input if its path is -, some at a time.

    Raises:
        ValueError: a row cannot be used and bad ones are not to be passed over, or there is none.
    """
    is_piped = str(path) == "-"
    name = Path("standard input") if is_piped else path
    records = json_lines(sys.stdin.buffer) if is_piped else read_records(path)
    rows = read_rows(name, records, [("text",)], parse, columns)
    is_empty = True
    while chunk := [row for _, row in zip(range(ROWS_AT_ONCE), rows)]:
        is_empty = False
        for place, row in chunk:
            if isinstance(row, BadRow) and on_bad_row == "stop":
                raise ValueError(f"{name}: {place}: {row}: mend it, or go on past such rows with --on-bad-row skip")
        yield [BadRow(f"{place}: {row}") if isinstance(row, BadRow) else row for place, row in chunk]
    if is_empty:
        raise ValueError(f"{name} has no rows")


def parse(place: str, values: Mapping[str, Any]) -> Text:
    """A row from its values; BadRow if its text cannot be used."""
    return Text(place, values.get("id"), text_of(values["text"], "text"))

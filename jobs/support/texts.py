"""What the commands that apply a model share: texts of a file or of standard input as a stream, and the output."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from bertloom.whole_files import whole_file
from model.tasks.rows import BadRow, json_lines, read_records, read_rows
from model.tasks.task import text_of

ROWS_AT_ONCE = 1024
"""Rows that go through a model together: `tokenizers` shares them among all cores."""
OnBadRow = Literal["stop", "skip"]


class Text(NamedTuple):
    """A row."""

    place: str
    """Its place in the file, such as "line 3"."""
    id: Any
    """Its `id`, if it has one."""
    text: str


def read_texts(path: Path, columns: Mapping[str, str], on_bad_row: OnBadRow) -> Iterator[list[Text | BadRow]]:
    """Yield the rows of a file, or of JSONL on standard input if the path is -, in lists of up to ROWS_AT_ONCE.

    Raises:
        ValueError: there is no row; or a row cannot be used, and on_bad_row is "stop".
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
                raise ValueError(f"{name}: {place}: {row}: fix it, or skip such rows with --on-bad-row skip")
        yield [BadRow(f"{place}: {row}") if isinstance(row, BadRow) else row for place, row in chunk]
    if is_empty:
        raise ValueError(f"{name} has no rows")


def parse(place: str, values: Mapping[str, Any]) -> Text:
    """Return a row from its values; raise BadRow if its text cannot be used."""
    return Text(place, values.get("id"), text_of(values["text"], "text"))


@contextmanager
def open_output(path: Path) -> Iterator[IO[str]]:
    """Open standard output if the path is -, else a file that has its name only once it is whole."""
    if str(path) == "-":
        yield sys.stdout
        return
    with whole_file(path, "w") as file:
        yield file

"""JSON Lines: a line with a JSON object is a record."""

from collections.abc import Container
from io import BufferedReader
from pathlib import Path
from typing import Any

from bertloom.json_files import loads
from model.tasks.formats.row_format import Records, RowFormat
from model.tasks.formats.text_files import opened, read_lines
from model.tasks.values import BadRow, is_utf8


def _read(path: Path, needed: Container[str]) -> Records:
    with opened(path) as file:
        yield from json_lines(path, file)


def json_lines(path: Path, file: BufferedReader) -> Records:
    """Yield the place and the values of each line of JSONL. path: for errors."""
    for number, line in enumerate(read_lines(path, file), 1):
        if line.strip():
            yield f"line {number}", _json_object(line)


def _json_object(line: str) -> dict[str, Any] | BadRow:
    if not is_utf8(line):
        return BadRow("is not valid UTF-8: save the file in UTF-8")
    try:
        values = loads(line)
    except ValueError as error:
        return BadRow(f"is not JSON ({error})")
    if not isinstance(values, dict):
        return BadRow(f'is {values!r:.40}, expected a JSON object such as {{"text": …}}')
    return values


JSON_LINES = RowFormat(endings=(".jsonl",), read=_read)

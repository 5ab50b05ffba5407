"""Plain text: a line is a record, as the column `text`."""

from collections.abc import Container
from pathlib import Path

from model.tasks.formats.row_format import Records, RowFormat
from model.tasks.formats.text_files import opened, read_lines


def _read(path: Path, needed: Container[str]) -> Records:
    with opened(path) as file:
        for number, line in enumerate(read_lines(path, file), 1):
            if line.strip():
                yield f"line {number}", {"text": line.rstrip("\r\n")}


TEXT_LINES = RowFormat(endings=(".txt",), read=_read)

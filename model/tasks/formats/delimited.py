"""CSV and TSV: a record below a header. In CSV, fields may be quoted as in RFC 4180; in TSV, quotes have no meaning."""

import csv
import itertools
import re
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from bertloom.counts import counted
from model.tasks.formats import text_files
from model.tasks.formats.row_format import Records, RowFormat
from model.tasks.formats.text_files import opened, read_lines
from model.tasks.values import BadRow

HEAD_LINES = 100
"""Number of lines that decide how the fields of a .csv file are separated."""


def _read_csv(path: Path, needed: Container[str]) -> Records:
    with opened(path) as file:
        yield from _below_header(path, _csv_rows(read_lines(path, file)))


def _read_tsv(path: Path, needed: Container[str]) -> Records:
    with opened(path) as file:
        yield from _below_header(path, _tsv_rows(read_lines(path, file)))


def _below_header(path: Path, rows: Iterable[tuple[str, list[str] | BadRow]]) -> Records:
    """Yield the values of rows by the names in the first of them. Columns without a name are left out."""
    header: list[str] | None = None
    for place, row in rows:
        if isinstance(row, BadRow):
            yield place, row
        elif header is None:
            header = [name.strip() for name in row]
            names = [name for name in header if name]
            if len(set(names)) < len(names):
                raise ValueError(f"{path}: the header has a column twice: {', '.join(names)}; rename one of them")
        elif len(row) != len(header):
            yield place, BadRow(f"has {counted(len(row), 'column')}, the header has {len(header)}")
        else:
            yield place, {name: value for name, value in zip(header, row) if name}


def _tsv_rows(lines: Iterable[str]) -> Iterator[tuple[str, list[str] | BadRow]]:
    for number, line in enumerate(lines, 1):
        if line.strip("\r\n"):
            yield f"line {number}", line.rstrip("\r\n").split("\t")


def _csv_rows(lines: Iterator[str]) -> Iterator[tuple[str, list[str] | BadRow]]:
    head = list(itertools.islice(lines, HEAD_LINES))
    delimiter = delimiter_of(head[0]) if head else ","
    csv.field_size_limit(text_files.MAX_CHARACTERS)  # the default is less than a long document
    reader = csv.reader(
        itertools.chain(head, lines),
        delimiter=delimiter,
        skipinitialspace=has_spaced_quotes(head, delimiter),
        strict=True,
    )
    while True:
        begin = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = f"up to line {reader.line_num}" if reader.line_num > begin else "here"
            yield f"line {begin}", BadRow(f"has wrong quotes {what} ({error})")
            continue
        if row:
            yield f"line {begin}", row


def delimiter_of(header: str) -> str:
    """Return what separates the columns of a .csv file: a comma, unless the header has none and has another separator.

    >>> delimiter_of("text;label")
    ';'
    """
    return "," if "," in header else next((sign for sign in (";", "\t") if sign in header), ",")


def has_spaced_quotes(lines: Iterable[str], delimiter: str) -> bool:
    """Return whether spaces precede the quotes of a field, as in `"good", "bad"`: they are then no part of it.

    >>> has_spaced_quotes(['"a film", "good"'], ","), has_spaced_quotes(['"a film, good","bad"'], ",")
    (True, False)
    """
    pattern = re.compile(rf'(?:^[^"]*|"){delimiter} +"(?!")')
    return any(pattern.search(line) for line in lines)


CSV = RowFormat(endings=(".csv",), read=_read_csv, has_header=True)
TSV = RowFormat(endings=(".tsv",), read=_read_tsv, has_header=True)

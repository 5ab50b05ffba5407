"""CSV and TSV: a record below a header. In CSV, fields may be quoted as in RFC 4180; in TSV, quotes have no meaning."""

import csv
import io
import itertools
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bertloom.counts import counted
from bertloom.json_files import check_regular
from model.tasks.columns import known_names
from model.tasks.formats import text_files
from model.tasks.formats.row_format import Answers, Records, RowFormat
from model.tasks.formats.text_files import changed_error, opened, read_lines, rewrite
from model.tasks.values import BadRow, Parts

HEAD_LINES = 100
"""Number of lines that decide how the fields of a .csv file are separated."""


class Record(NamedTuple):
    """A record of a file, or a blank line."""

    place: str
    """Its place, such as "line 3"."""
    text: str
    """Its lines, with their ends."""
    fields: list[str] | BadRow | None
    """Its fields; None for a blank line."""


class Table(NamedTuple):
    """What a file holds."""

    records: Iterator[Record]
    join: Callable[[Sequence[str]], str]
    """Returns the text of a record, without its end, from its fields."""
    separators: str = ""
    """Characters that no field can have."""


Cut = Callable[[Iterator[str]], Table]
"""Returns the table in the lines of a file."""


def _read(cut: Cut, path: Path, needed: Container[str]) -> Records:
    """Yield the values of records by the names in the first of them. Columns without a name are left out."""
    header: list[str] | None = None
    with opened(path) as file:
        for place, _, fields in cut(read_lines(path, file)).records:
            if fields is None:
                continue
            if isinstance(fields, BadRow):
                yield place, fields
            elif header is None:
                header = [name.strip() for name in fields]
                names = [name for name in header if name]
                if len(set(names)) < len(names):
                    raise ValueError(f"{path}: the header has a column twice: {', '.join(names)}; rename one of them")
            elif len(fields) != len(header):
                yield place, BadRow(f"has {counted(len(fields), 'column')}, the header has {len(header)}")
            else:
                yield place, {name: value for name, value in zip(header, fields) if name}


def _write(cut: Cut, path: Path, columns: Mapping[str, str], answers: Answers) -> Iterator[bytes]:
    """Return the file with the answers in their columns. New columns come after the others."""
    check_regular(path)  # it is read a second time for the answers
    return rewrite(path, lambda lines: _write_records(path, cut(lines), columns, answers))


def _write_records(path: Path, table: Table, columns: Mapping[str, str], answers: Answers) -> Iterator[str]:
    """Yield the text of each record with its answer."""
    remaining = iter(answers)
    header: list[str] | None = None
    num_fields = 0
    for _, text, fields in table.records:
        end = text[len(text.rstrip("\r\n")) :]
        if fields is None:
            yield text
            continue
        if header is None and not isinstance(fields, BadRow):
            num_fields = len(fields)
            first, remaining = _first_usable(remaining)
            header = [name.strip() for name in fields]
            header += [name for name in _cells(first, header, columns) if name not in header]
            yield table.join([*fields, *header[num_fields:]]) + end
            continue
        answer = next(remaining, None)
        if answer is None:
            raise changed_error(path)
        if isinstance(answer, BadRow):
            yield text
            continue
        if isinstance(fields, BadRow) or header is None or len(fields) != num_fields:
            raise changed_error(path)
        fields += [""] * (len(header) - num_fields)
        for name, value in _cells(answer, header, columns).items():
            if any(sign in value for sign in table.separators):
                raise ValueError(
                    f"{path}: the answer {value!r:.60} does not fit into a file without quotes: give --out a name that "
                    f"ends in .jsonl"
                )
            fields[header.index(name)] = value
        yield table.join(fields) + end
    if next(remaining, None) is not None:
        raise changed_error(path)


def _first_usable(
    answers: Iterator[Mapping[str, Any] | BadRow],
) -> tuple[Mapping[str, Any], Iterator[Mapping[str, Any] | BadRow]]:
    """Return the first answer that fills columns, and all answers again."""
    held: list[Mapping[str, Any] | BadRow] = []
    for answer in answers:
        held.append(answer)
        if not isinstance(answer, BadRow):
            return answer, itertools.chain(held, answers)
    return {}, iter(held)


def _cells(answer: Mapping[str, Any], header: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of the cells that an answer fills, by column. Words of a list are separated by spaces."""
    cells: dict[str, str] = {}
    for purpose, value in answer.items():
        if isinstance(value, Parts):
            cells |= {name: str(part) for name, part in value.items()}
            continue
        found = [name for name in known_names(purpose) if name in header]
        name = columns.get(purpose) or next(iter(found), str(purpose))
        cells[name] = " ".join(value) if isinstance(value, list) else str(value)
    return cells


def _cut_tsv(lines: Iterator[str]) -> Table:
    return Table(_tsv_records(lines), "\t".join, separators="\t\r\n")


def _tsv_records(lines: Iterator[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        content = line.rstrip("\r\n")
        yield Record(f"line {number}", line, content.split("\t") if content else None)


def _cut_csv(lines: Iterator[str]) -> Table:
    head = list(itertools.islice(lines, HEAD_LINES))
    delimiter = delimiter_of(head[0]) if head else ","
    records = _csv_records(itertools.chain(head, lines), delimiter, has_spaced_quotes(head, delimiter))
    return Table(records, partial(_join_csv, delimiter))


def _csv_records(lines: Iterator[str], delimiter: str, skips_spaces: bool) -> Iterator[Record]:
    taken: list[str] = []
    csv.field_size_limit(text_files.MAX_CHARACTERS)  # the default is less than a long document
    reader = csv.reader(_noted(lines, taken), delimiter=delimiter, skipinitialspace=skips_spaces, strict=True)
    while True:
        begin = reader.line_num + 1
        fields: list[str] | BadRow
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = f"up to line {reader.line_num}" if reader.line_num > begin else "here"
            fields = BadRow(f"has wrong quotes {what} ({error})")
        yield Record(f"line {begin}", "".join(taken), fields if isinstance(fields, BadRow) else fields or None)
        taken.clear()


def _noted(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    """Yield lines, and append each to `taken`."""
    for line in lines:
        taken.append(line)
        yield line


def _join_csv(delimiter: str, fields: Sequence[str]) -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerow(fields)  # it quotes all fields that have a part of its line end
    return file.getvalue().removesuffix("\r\n")


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


CSV = RowFormat(endings=(".csv",), read=partial(_read, _cut_csv), write=partial(_write, _cut_csv), has_header=True)
TSV = RowFormat(endings=(".tsv",), read=partial(_read, _cut_tsv), write=partial(_write, _cut_tsv), has_header=True)

"""Rows of a task's files, one after the other, each with its place in the file.

| name ends in | a row is                                                                                            |
|--------------|-----------------------------------------------------------------------------------------------------|
| .jsonl       | a line that holds a JSON object                                                                     |
| .csv         | a record under a header, quoted where it needs to be (RFC 4180)                                     |
| .tsv         | a line under a header; a quote is text like any other, as in GLUE's files, and swallows no lines    |
| .parquet     | a row                                                                                               |
| .json        | an object of a list, or a question of SQuAD 1.1 and 2.0 (CMRC 2018 and DRCD have the same form)     |

All but Parquet may be compressed as .gz. Text is UTF-8, with or without a byte order mark; blank lines are no rows. A row
that cannot be used comes in its turn as a BadRow, so that the caller may stop, or count it and go on.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

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
"""What a column is for, and the names it is found by."""
ALSO_GIVEN = ("id", "is_impossible")
"""Columns that rows are given where they are there."""
FORMATS = (".jsonl", ".csv", ".tsv", ".parquet", ".json")
MAX_NAMED = 5
"""Bad rows that an error names one by one."""
MAX_HELD = 1000
"""Rows in which one that has the columns is looked for."""


class BadRow(ValueError):
    """A row that cannot be used; the words say why."""


class Rejected(NamedTuple):
    """A row that was left out."""

    file: str
    """Path of its file."""
    place: str
    """Where in it: "line 3", "row 3"."""
    reason: str
    """Why."""


def read_task(
    path: Path,
    forms: Sequence[Sequence[str]],
    parse: Callable[[str, dict[str, Any]], Row],
    columns: Mapping[str, str],
    on_bad_row: str,
) -> tuple[list[Row], list[Rejected]]:
    """All rows of a file that can be used, and those that cannot.

    Args:
        forms, parse, columns: see `read_rows`.
        on_bad_row: "skip" leaves bad rows out.

    Raises:
        ValueError: there is no row that can be used; or on_bad_row is "stop" and there are bad ones, the first are named.
    """
    rows, rejected = [], []
    for place, row in read_rows(path, read_records(path), forms, parse, columns):
        if isinstance(row, BadRow):
            rejected.append(Rejected(str(path), place, str(row)))
        else:
            rows.append(row)
    if rejected and (on_bad_row == "stop" or not rows):
        named = "; ".join(f"{place}: {reason}" for _, place, reason in rejected[:MAX_NAMED])
        more = f"; and {len(rejected) - MAX_NAMED} more" if len(rejected) > MAX_NAMED else ""
        advice = "mend them, or leave them out with --on-bad-row skip" if rows else "is it the right file?"
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
    """The place and the row of each record, or what is wrong with it.

    Args:
        path: for errors.
        records: from `read_records`.
        forms: what is needed, such as [["text", "label"]]; of several forms the first one that the columns serve. They
            are those of the first row that serves one; the rows before it, MAX_HELD at most, are bad.
        parse: a row from its place and its values, by what they are for; raises BadRow.
        columns: the names of columns that are not found by KNOWN_NAMES, such as {"text": "review"}.

    Raises:
        ValueError: the columns of the file have none of the forms.
    """
    names: dict[str, str] = {}
    lacking: ValueError | None = None  # what the first row has not
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
                yield place, values if isinstance(values, BadRow) else parse(place, chosen_of(values, names))
            except BadRow as error:
                yield place, error
        held.clear()
    if lacking and not names:
        raise lacking


def chosen_of(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The values of a row by what they are for; BadRow if it lacks one, or its `id` cannot be written."""
    for name in names.values():
        if name not in values:
            raise BadRow(f"has no {name!r}")
    if isinstance(values.get("id"), str) and not is_utf8(values["id"]):
        raise BadRow("id is not valid UTF-8")
    return {name: values.get(name) for name in ALSO_GIVEN} | {use: values[name] for use, name in names.items()}


def is_utf8(text: str) -> bool:
    """Whether a string can be written: half a surrogate pair, or what stands for a byte that is no UTF-8, cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def find_columns(
    path: Path, found: Collection[str], forms: Sequence[Sequence[str]], columns: Mapping[str, str]
) -> dict[str, str]:
    """The column for each purpose of the first form that can be served.

    >>> find_columns(Path("x"), ["sentence", "label"], [["text", "label"]], {})
    {'text': 'sentence', 'label': 'label'}
    """
    purposes = list(dict.fromkeys(purpose for form in forms for purpose in form))
    for purpose, name in columns.items():
        if purpose not in purposes:
            raise ValueError(f"columns: {purpose!r} is nothing that this task reads: expected {', '.join(purposes)}")
        if name not in found:
            raise ValueError(f"{path}: there is no column {name!r} for {purpose}: it has {', '.join(found)}")
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
    raise ValueError(
        f"{path}: no column is found for {purpose}: expected {' or '.join(KNOWN_NAMES[purpose])}, it has "
        f"{', '.join(found)}; is it a file for this task? Else name the column: --columns {purpose}=NAME"
    )


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Place and values by column of each row, in the order of the file; see the top of this file."""
    suffixes = path.suffixes[-2:]
    compressed = suffixes[-1:] == [".gz"]
    suffix = "".join(suffixes[:-1][-1:] if compressed else suffixes[-1:])
    if suffix not in FORMATS or (compressed and suffix == ".parquet"):
        raise ValueError(f"{path}: its format is unknown: expected a name that ends in {' '.join(FORMATS)}")
    if suffix == ".parquet":
        yield from _parquet(path)
        return
    opened: Any = gzip.open if compressed else open
    with opened(path, "rb") as file:
        try:
            if suffix == ".jsonl":
                yield from json_lines(file)
            elif suffix == ".json":
                yield from _json(path, file)
            else:
                yield from _table(path, file, suffix)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: {error}: it is no gzip file, or is damaged or cut short") from None


def json_lines(lines: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Place and values of each line of JSONL."""
    for number, line in enumerate(_unmarked(lines), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError both are
            yield f"line {number}", BadRow(f"is not JSON ({error})")
            continue
        is_object = isinstance(values, dict)
        yield (
            f"line {number}",
            values if is_object else BadRow(f'is no JSON object such as {{"text": …}}: {values!r:.40}'),
        )


def _unmarked(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines without a byte order mark before the first."""
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix(b"\xef\xbb\xbf")


def _table(path: Path, file: IO[bytes], suffix: str) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    # What is no UTF-8 is kept as surrogates, which parsers refuse: the row can then be named.
    lines = (line.decode("utf-8", "surrogateescape") for line in _unmarked(file))
    rows = _csv_rows(lines) if suffix == ".csv" else _tsv_rows(lines)
    header: list[str] | None = None
    for place, row in rows:
        if isinstance(row, BadRow):
            yield place, row
        elif header is None:
            header = [name.strip() for name in row]
            if len(set(header)) < len(header):
                raise ValueError(f"{path}: the header names a column twice: {', '.join(header)}")
        elif len(row) != len(header):
            yield place, BadRow(f"has {len(row)} columns, the header has {len(header)}")
        else:
            yield place, dict(zip(header, row))


def _tsv_rows(lines: Iterable[str]) -> Iterator[tuple[str, list[str] | BadRow]]:
    for number, line in enumerate(lines, 1):
        if line.strip("\r\n"):
            yield f"line {number}", line.rstrip("\r\n").split("\t")


def _csv_rows(lines: Iterable[str]) -> Iterator[tuple[str, list[str] | BadRow]]:
    csv.field_size_limit(2**31 - 1)  # the limit is of the whole process, and by default less than a long document
    reader = csv.reader(lines, strict=True)
    while True:
        begin = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = f"up to line {reader.line_num}" if reader.line_num > begin else "here"
            yield f"line {begin}", BadRow(f"its quotes are wrong {what} ({error})")
            continue
        if row:
            yield f"line {begin}", row


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    try:
        number = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield f"row {number}", values
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file, or is damaged: {error}") from None


def _json(path: Path, file: IO[bytes]) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    try:
        content = json.loads(file.read().removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise ValueError(f"{path} is not one JSON value ({error}): if each line is one, name it .jsonl") from None
    if isinstance(content, list):
        for number, values in enumerate(content, 1):
            yield f"item {number}", values if isinstance(values, dict) else BadRow(f"is no object: {values!r:.40}")
        return
    try:
        questions = [
            {"context": paragraph["context"], "answers": None} | question
            for article in content["data"]
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: neither a list of objects nor SQuAD's form, data > paragraphs > context and qas ({error!r})"
        ) from None
    numbers: dict[str, int] = {}
    for number, question in enumerate(questions, 1):
        name = repr(question.get("id", f"number {number}"))
        same = numbers.setdefault(name, number)  # answers are told apart by it
        yield f"question {number} (id {name})", BadRow(f"has the id of question {same}") if same < number else question

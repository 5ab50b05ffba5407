"""Reads the rows of a task's files as a stream, each with its place in the file.

| name ends in | a row is                                                                                            |
|--------------|-----------------------------------------------------------------------------------------------------|
| .jsonl       | a line with a JSON object                                                                           |
| .csv         | a record below a header, quoted as in RFC 4180                                                      |
| .tsv         | a line below a header; quotes have no meaning, as in GLUE's files                                   |
| .parquet     | a row                                                                                               |
| .json        | an object of a list, or a question of SQuAD 1.1 or 2.0 (CMRC 2018 and DRCD have the same format)    |

All except Parquet may be compressed as .gz. Text is UTF-8, with or without a byte order mark. Blank lines are ignored. An
unusable row is returned as a BadRow in its place, so that the caller can stop, or count it and continue.
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
"""The purposes of columns, and the names by which a column is recognised."""
OPTIONAL_COLUMNS = ("id", "is_impossible")
"""Columns that are passed on if a row has them."""
FORMATS = (".jsonl", ".csv", ".tsv", ".parquet", ".json")
MAX_NAMED = 5
"""Largest number of bad rows that an error lists."""
MAX_HELD = 1000
"""Number of rows that are searched for one that has the columns."""


class BadRow(ValueError):
    """An unusable row; the message is the reason."""


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
        ValueError: no row is usable; or on_bad_row is "stop" and there are bad rows.
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


def by_purpose(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of a row by purpose; BadRow if one is missing, or if `id` cannot be written as UTF-8."""
    for name in names.values():
        if name not in values:
            raise BadRow(f"has no {name!r}")
    if isinstance(values.get("id"), str) and not is_utf8(values["id"]):
        raise BadRow("id is not valid UTF-8")
    optional = {name: values.get(name) for name in OPTIONAL_COLUMNS}
    return optional | {purpose: values[name] for purpose, name in names.items()}


def is_utf8(text: str) -> bool:
    """Return whether a string can be written as UTF-8. Surrogates cannot; Python makes them of bytes that are not UTF-8."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def find_columns(
    path: Path, found: Collection[str], forms: Sequence[Sequence[str]], columns: Mapping[str, str]
) -> dict[str, str]:
    """Return the column of each purpose, for the first form whose columns are there.

    >>> find_columns(Path("x"), ["sentence", "label"], [["text", "label"]], {})
    {'text': 'sentence', 'label': 'label'}
    """
    purposes = list(dict.fromkeys(purpose for form in forms for purpose in form))
    for purpose, name in columns.items():
        if purpose not in purposes:
            raise ValueError(f"columns: this task does not read {purpose!r}: expected one of {', '.join(purposes)}")
        if name not in found:
            raise ValueError(f"{path} has no column {name!r} for {purpose}: its columns are {', '.join(found)}")
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
        f"{path} has no column for {purpose}: expected {' or '.join(KNOWN_NAMES[purpose])}, its columns are "
        f"{', '.join(found)}; is it a file for this task? If so, name the column: --columns {purpose}=NAME"
    )


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Yield the place of each row and its values by column, in the order of the file; see the top of this module."""
    suffixes = path.suffixes[-2:]
    compressed = suffixes[-1:] == [".gz"]
    suffix = "".join(suffixes[:-1][-1:] if compressed else suffixes[-1:])
    if suffix not in FORMATS or (compressed and suffix == ".parquet"):
        raise ValueError(f"{path}: unknown format: expected a name that ends in {' '.join(FORMATS)}")
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
            raise ValueError(f"{path} is not a gzip file, or is damaged or truncated: {error}") from None


def json_lines(lines: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Yield the place and the values of each line of JSONL."""
    for number, line in enumerate(_unmarked(lines), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                values = BadRow(f'is {values!r:.40}, expected a JSON object such as {{"text": …}}')
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError both are
            values = BadRow(f"is not JSON ({error})")
        yield f"line {number}", values


def _unmarked(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines, without a byte order mark."""
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix(b"\xef\xbb\xbf")


def _table(path: Path, file: IO[bytes], suffix: str) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    # Bytes that are not UTF-8 become surrogates, which `string_of` refuses with the place of the row.
    lines = (line.decode("utf-8", "surrogateescape") for line in _unmarked(file))
    rows = _csv_rows(lines) if suffix == ".csv" else _tsv_rows(lines)
    header: list[str] | None = None
    for place, row in rows:
        if isinstance(row, BadRow):
            yield place, row
        elif header is None:
            header = [name.strip() for name in row]
            if len(set(header)) < len(header):
                raise ValueError(f"{path}: the header has a column twice: {', '.join(header)}; rename one of them")
        elif len(row) != len(header):
            yield place, BadRow(f"has {len(row)} columns, the header has {len(header)}")
        else:
            yield place, dict(zip(header, row))


def _tsv_rows(lines: Iterable[str]) -> Iterator[tuple[str, list[str] | BadRow]]:
    for number, line in enumerate(lines, 1):
        if line.strip("\r\n"):
            yield f"line {number}", line.rstrip("\r\n").split("\t")


def _csv_rows(lines: Iterable[str]) -> Iterator[tuple[str, list[str] | BadRow]]:
    csv.field_size_limit(2**31 - 1)  # the default is less than a long document
    reader = csv.reader(lines, strict=True)
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


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    try:
        with pq.ParquetFile(path) as file:
            rows = (values for batch in file.iter_batches(batch_size=1024) for values in batch.to_pylist())
            for number, values in enumerate(rows, 1):
                yield f"row {number}", values
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file, or is damaged: {error}") from None


def _json(path: Path, file: IO[bytes]) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    try:
        content = json.loads(file.read().removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise ValueError(f"{path} is not a single JSON value ({error}): if each line is one, name it .jsonl") from None
    if isinstance(content, list):
        for number, values in enumerate(content, 1):
            yield (
                f"item {number}",
                values if isinstance(values, dict) else BadRow(f"is {values!r:.40}, expected an object"),
            )
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
            f"{path}: expected a list of objects, or SQuAD's format, data > paragraphs > context and qas ({error!r})"
        ) from None
    numbers: dict[str, int] = {}
    for number, question in enumerate(questions, 1):
        name = repr(question.get("id", f"number {number}"))
        same = numbers.setdefault(name, number)  # answers are identified by it
        yield f"question {number} (id {name})", BadRow(f"has the id of question {same}") if same < number else question

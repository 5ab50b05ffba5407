"""Reads the records of a task's files as a stream, each with its place in the file.

| name ends in | a record is                                                                                       |
|--------------|---------------------------------------------------------------------------------------------------|
| .jsonl       | a line with a JSON object                                                                         |
| .txt         | a line, as the column `text`                                                                      |
| .csv         | a record below a header, quoted as in RFC 4180; semicolons or tabs may be in place of commas      |
| .tsv         | a line below a header; quotes have no meaning, as in GLUE's files                                 |
| .parquet     | a row                                                                                             |
| .arrow       | a row of an Arrow file or stream, as `datasets` saves it                                          |
| .json        | an object of a list, or a question of SQuAD 1.1 or 2.0 (CMRC 2018 and DRCD have the same format)  |

The case of the ending does not matter. Text may be compressed as .gz. It is UTF-8, or UTF-16 with a byte order mark. Lines
end with \\n, \\r\\n, or \\r; blank lines are ignored. An unusable record is returned as a BadRow in its place, so that the
caller can stop, or count it and continue. No file makes a reader crash, or hold more than a record, a batch or MAX_BYTES.
"""

import csv
import gzip
import itertools
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any

from bertloom.counts import counted
from bertloom.json_files import loads
from model.tasks.tables import arrow_rows, parquet_rows
from model.tasks.values import BadRow, is_utf8

MAX_CHARACTERS = 1 << 26
"""Largest length of a line, or of a field of a .csv file."""
MAX_BYTES = 1 << 30
"""Largest size of a .json file, which is read whole: SQuAD has 42 MB."""
HEAD_BYTES = 1 << 16
"""Number of bytes that decide on the encoding and on the ends of lines."""
HEAD_LINES = 100
"""Number of lines that decide how the fields of a .csv file are separated."""
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte order marks, and the codecs that read them."""
Records = Iterator[tuple[str, dict[str, Any] | BadRow]]
"""The place of each record, and its values by column."""


def read_records(path: Path, needed: Collection[str]) -> Records:
    """Return the place of each record and its values by column, in the order of the file; see the top of this module.

    needed: columns whose values are read if the file is a table; those of others are None.

    Raises:
        ValueError: now, if there is no such file or its name has no known ending; later, if the file cannot be read.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a file of rows")
    name = path.name.lower()
    compressed = name.endswith(".gz")
    ending = Path(name.removesuffix(".gz")).suffix
    if ending in TABLES and not compressed:
        return TABLES[ending](path, needed)
    if ending not in TEXTS:
        raise ValueError(f"{path}: unknown format: expected a name that ends in {' '.join((*TEXTS, *TABLES))}")
    return _read_text(path, compressed, TEXTS[ending])


def names_columns(path: Path) -> bool:
    """Return whether the first line of a file names its columns."""
    return Path(path.name.lower().removesuffix(".gz")).suffix in (".csv", ".tsv")


def _read_text(path: Path, compressed: bool, read: Callable[[Path, Any], Records]) -> Records:
    with (
        open(path, "rb", buffering=0) as raw,
        BufferedReader(gzip.open(raw) if compressed else raw, HEAD_BYTES) as file,
    ):
        try:
            yield from read(path, file)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a gzip file, or is damaged or truncated: {error}") from None


def read_lines(path: Path, file: BufferedReader) -> Iterator[str]:
    """Yield the lines of a file, at most MAX_CHARACTERS long; bytes that are not of its encoding become surrogates.

    path: for errors.
    """
    head = file.peek(HEAD_BYTES)[:HEAD_BYTES]
    codec = next((codec for mark, codec in MARKS.items() if head.startswith(mark)), "utf-8")
    beginning = head.decode(codec, "replace")
    if 4 * beginning.count("\0") > len(beginning):
        raise ValueError(f"{path} is not text in UTF-8, or is UTF-16 without a byte order mark: save it as UTF-8")
    ends_with_cr = "\n" not in beginning and re.search("\r.", beginning)
    text = TextIOWrapper(
        file,
        codec,
        "surrogatepass" if codec == "utf-16" else "surrogateescape",
        newline="\r" if ends_with_cr else "\n",
    )
    try:
        for number in itertools.count(1):
            line = text.readline(MAX_CHARACTERS + 1)
            if len(line) > MAX_CHARACTERS:
                raise ValueError(
                    f"{path}: line {number} has more than {MAX_CHARACTERS:,} characters: is it a file of rows?"
                )
            if not line:
                return
            yield line
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged or truncated: {error}") from None
    finally:
        with suppress(ValueError):  # the file is closed
            text.detach()  # standard input stays open


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


def _text_lines(path: Path, file: BufferedReader) -> Records:
    for number, line in enumerate(read_lines(path, file), 1):
        if line.strip():
            yield f"line {number}", {"text": line.rstrip("\r\n")}


def _csv(path: Path, file: BufferedReader) -> Records:
    return _below_header(path, _csv_rows(read_lines(path, file)))


def _tsv(path: Path, file: BufferedReader) -> Records:
    return _below_header(path, _tsv_rows(read_lines(path, file)))


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
    csv.field_size_limit(MAX_CHARACTERS)  # the default is less than a long document
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


def _json(path: Path, file: BufferedReader) -> Records:
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(
            f"{path} has more than {MAX_BYTES:,} bytes in one JSON value: write a line for each row, as .jsonl"
        )
    try:
        values = loads(content.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise ValueError(f"{path} is not a single JSON value ({error}): if each line is one, name it .jsonl") from None
    return _questions(path, values) if isinstance(values, dict) else _items(path, values)


def _items(path: Path, values: Any) -> Records:
    if not isinstance(values, list):
        raise ValueError(f"{path} is {values!r:.40}, expected a list of objects, or SQuAD's format")
    for number, item in enumerate(values, 1):
        yield f"item {number}", item if isinstance(item, dict) else BadRow(f"is {item!r:.40}, expected an object")


def _questions(path: Path, content: dict[str, Any]) -> Records:
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


TEXTS = {".jsonl": json_lines, ".txt": _text_lines, ".csv": _csv, ".tsv": _tsv, ".json": _json}
"""The readers of text by the ending of a name, which `.gz` may follow."""
TABLES = {".parquet": parquet_rows, ".arrow": arrow_rows}
"""The readers of binary files, likewise."""

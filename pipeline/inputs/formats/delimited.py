"""CSV and TSV: a record has a field for each column. Its position is the byte where its first line begins.

A line ends at LF, CRLF or CR. In CSV a field may be quoted, as in RFC 4180 and for Python's `csv`: then it may hold
delimiters, line ends and doubled quotes. In TSV, quotes are text. All records have as many columns as the first one.

Where a quote is not closed within MAX_LINE_BYTES and MAX_RECORD_LINES, or before the file ends, the line in which the
record begins is a reject, and reading goes on with the next line.
"""

import csv
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import BinaryIO

from bertloom import storage
from bertloom.counts import counted
from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.streamed import (
    LINE_END,
    MAX_LINE_BYTES,
    Chunks,
    find_borders,
    line_too_long,
    read_stream,
    text_chunks,
)
from pipeline.inputs.sources import Source, Split
from pipeline.inputs.streams import HEAD, Damaged
from pipeline.text.records import (
    SHOWN_CHARACTERS,
    Item,
    PassedOver,
    Reject,
    Row,
    decode_row,
    first_characters,
    shown_id,
)

MAX_RECORD_LINES = 1_000_000
HEAD_RECORDS = 100
"""Number of records that decide what separates the columns of a CSV file."""
DELIMITERS = "\t;|,"
"""What may separate them, the one that text holds least often first."""
USUAL_NAMES = frozenset(
    "id doc_id sent_id text content sentence title body document article label url source date language "
    "内容 文本 正文 句子 标题 标签 编号".split()
)
"""Names of columns that show a header, in lower case."""


@dataclass(frozen=True)
class Table:
    """What the beginning of a file shows of its columns."""

    delimiter: str
    begin: int
    """Position of the first record."""
    num_columns: int
    has_header: bool
    text: int
    """Number of the column with the text, from 0."""
    id: int | None
    document: int | None


def read_delimited(chunks: Chunks, start: int, table: Table, quoted: bool) -> Iterator[Item]:
    """Yield the rows and rejects of a file whose columns are known."""
    for position, raw in _records(chunks, start, table.delimiter if quoted else None):
        if isinstance(raw, Reject):
            yield raw
        elif position == table.begin and table.has_header:
            yield PassedOver(position, "header")
        else:
            yield _row(raw, position, table, quoted)


def _row(raw: bytes, position: int, table: Table, quoted: bool) -> Row | Reject:
    if not raw.strip(b"\r\n"):
        return Reject(position, "blank-line")
    fields, num_replaced = _fields(raw, table.delimiter, quoted)
    if len(fields) != table.num_columns:
        detail = f"{counted(len(fields), 'column')}, the first record has {table.num_columns}"
        return Reject(position, "wrong-columns", detail, first_characters(raw))
    record_id = None if table.id is None else shown_id(fields[table.id])
    document = None if table.document is None else repr(fields[table.document])
    return Row(fields[table.text], position, raw[: 4 * SHOWN_CHARACTERS], num_replaced, record_id, document)


def _fields(raw: bytes, delimiter: str, quoted: bool) -> tuple[list[str], int]:
    """Return (the fields of a record, number of its bytes that were not valid UTF-8)."""
    text, num_replaced = decode_row(raw)
    if not (quoted and '"' in text):
        return text.rstrip("\r\n").split(delimiter), num_replaced
    csv.field_size_limit(MAX_LINE_BYTES)  # the default is less than a long document
    return next(csv.reader([text], delimiter=delimiter)), num_replaced


# ---- records


def _records(chunks: Chunks, start: int, delimiter: str | None) -> Iterator[tuple[int, bytes | Reject]]:
    """Yield (position, record or reject). delimiter: of fields that may be quoted; None: quotes are text.

    A line is looked at twice at most, however many quotes are not closed. What matters at its end is only whether it is
    inside of quotes, so a record that begins within one that was given up, and whose first line ends inside of quotes,
    goes on through the same lines.
    """
    lines, at = _lines(chunks), start
    held = deque[bytes]()  # lines that end inside of quotes if the first one does
    size = 0  # of these lines
    ahead: bytes | int | None = None  # the line after them, if it is read
    while True:
        if not held:
            line = next(lines, None) if ahead is None else ahead
            ahead = None
            if line is None:
                return
            if isinstance(line, int):
                yield at, line_too_long(at, line)
                at += line
                continue
            held.append(line)
            size = len(line)
            del line  # it may be long: only the caller holds it
        if not delimiter or b'"' not in held[0] or not _ends_in_quotes(held[0], delimiter, False):
            position, at, size = at, at + len(held[0]), size - len(held[0])
            yield position, held.popleft()
            continue
        is_closed = False
        while not is_closed:
            ahead = next(lines, None) if ahead is None else ahead
            if ahead is None or isinstance(ahead, int):
                break
            if len(held) >= MAX_RECORD_LINES or size + len(ahead) > MAX_LINE_BYTES:
                break
            held.append(ahead)
            size += len(ahead)
            is_closed = b'"' in ahead and not _ends_in_quotes(ahead, delimiter, True)
            ahead = None
        if is_closed:
            position, at, raw = at, at + size, b"".join(held)
            held.clear()
            yield position, raw
            continue
        yield at, Reject(at, "unclosed-quote", _UNCLOSED, first_characters(held[0]))
        if ahead is None and chunks.damage:
            return  # the lines that are held are part of one record
        at, size = at + len(held[0]), size - len(held[0])
        held.popleft()


_UNCLOSED = (
    f"its quote is not closed within {MAX_RECORD_LINES:,} lines or {MAX_LINE_BYTES // 1_000_000} MB, or before the file "
    f"ends"
)


def _ends_in_quotes(line: bytes, delimiter: str, begins_in_quotes: bool) -> bool:
    match = _line_patterns(delimiter)[begins_in_quotes].match(line)
    return match is None or match.end() < len(line)


@cache
def _line_patterns(delimiter: str) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return the patterns of a line's fields up to one that is not closed: of a line that begins outside, or in quotes.

    As for Python's `csv`, a quote only opens a field at its beginning, and what follows the closing quote is text.
    """
    between = re.escape(delimiter.encode())
    text = rb"[^" + between + rb"]*+"
    quoted = rb'[^"]*+(?:""[^"]*+)*+"' + text
    field = rb'(?:"' + quoted + rb'|(?!")' + text + rb")"
    more = rb"(?:" + between + field + rb")*+"
    return re.compile(field + more), re.compile(quoted + more)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes | int]:
    """Yield lines with their ends: LF, CRLF or CR. A line over MAX_LINE_BYTES is given as its length."""
    kept, num_dropped = b"", 0  # the beginning of a line, without the bytes of a long one that were dropped
    for chunk in chunks:
        lines = (kept + chunk).splitlines(keepends=True)
        kept = b"" if not lines or lines[-1].endswith(b"\n") else lines.pop()  # a LF may follow its CR
        for line in lines:
            length = num_dropped + len(line)
            yield length if length > MAX_LINE_BYTES else line
            num_dropped = 0
        if num_dropped + len(kept) > MAX_LINE_BYTES:
            num_dropped, kept = num_dropped + len(kept) - 1, kept[-1:]  # which may be a CR
    if kept:
        length = num_dropped + len(kept)
        yield length if length > MAX_LINE_BYTES else kept


# ---- columns


def _table(file: BinaryIO, source: Source, delimiter: str | None) -> Table | None:
    """Return what the beginning of an open file shows; None for an empty file. delimiter: None to find it.

    Raises ValueError where the columns do not fit the options.
    """
    try:
        chunks, start = text_chunks(file, Split(source, 0, None), 0)
        head = next(chunks, b"")
    except Damaged:
        return None  # the reader will report it
    quoted = delimiter is None
    if delimiter is None:
        delimiter = _find_delimiter(head[:HEAD], source.read.text_column)
    readable = Chunks(itertools.chain([head], chunks), ends_at_damage=True)
    for position, raw in _records(readable, start, delimiter if quoted else None):
        if isinstance(raw, Reject):
            raise ValueError(
                f"{source.path}: its first record cannot be read ({raw.reason}: {raw.detail}). Expected the names or values "
                f"of its columns: check the quotes at its beginning, or read it with --format tsv if they are text"
            )
        if raw.strip(b"\r\n"):
            first = _fields(raw, delimiter, quoted)[0]
            return _columns(source, delimiter, position, first)
    return None


def _find_delimiter(head: bytes, text_column: str) -> str:
    """Return what separates the columns: the delimiter with which the first record names the text column, else the one
    with which most of the first records have as many columns as the first one, and more than one column.
    """

    def fit(delimiter: str) -> tuple[bool, float]:
        records = _records(Chunks([head], ends_at_damage=True), 0, delimiter)
        whole = itertools.takewhile(lambda record: not isinstance(record[1], Reject), records)
        raws = [
            raw for _, raw in itertools.islice(whole, HEAD_RECORDS) if isinstance(raw, bytes) and raw.strip(b"\r\n")
        ]
        if len(head) == HEAD and 1 < len(raws) < HEAD_RECORDS:
            raws.pop()  # it may be cut
        rows = [_fields(raw, delimiter, quoted=True)[0] for raw in raws]
        if not rows or len(rows[0]) == 1:
            return False, 0.0
        is_named = text_column in map(str.strip, rows[0]) and not _is_number(text_column)
        return is_named, sum(len(row) == len(rows[0]) for row in rows) / len(rows)

    fits = {delimiter: fit(delimiter) for delimiter in DELIMITERS}
    best = max(DELIMITERS, key=fits.__getitem__)
    return best if fits[best][1] else ","


def _columns(source: Source, delimiter: str, begin: int, first: list[str]) -> Table:
    """Return the table whose first record has these fields."""
    config, names = source.read, [name.strip() for name in first]
    has_header = config.header == "yes"
    if config.header == "auto":
        has_header = _shows_header(names) if _is_number(config.text_column) else config.text_column in names
    numbers = []
    for flag, column in (
        ("--text-column", config.text_column),
        ("--document-column", config.document_column),
        ("--id-column", config.id_column),
    ):
        numbers.append(None if column is None else _number_of(column, names, has_header))
        if column is not None and numbers[-1] is None and flag != "--id-column":
            raise ValueError(f"{source.path}: {_no_column(flag, column, names, config.header)}")
        if has_header and not _is_number(column or "") and names.count(column or "") > 1:
            raise ValueError(
                f"{source.path}: has {names.count(column or '')} columns with the name {column!r}. Give the column's number "
                f"with {flag}, from 0 to {len(names) - 1}"
            )
    text, document, record_id = numbers
    assert text is not None
    return Table(delimiter, begin, len(first), has_header, text, record_id, document)


def _number_of(column: str, names: list[str], has_header: bool) -> int | None:
    """Return the number of a column that is given by its number or name; None if there is no such column."""
    if _is_number(column):
        return int(column) if int(column) < len(names) else None
    return names.index(column) if has_header and column in names else None


def _no_column(flag: str, column: str, names: list[str], header: str) -> str:
    shown = ", ".join(map(repr, names))[:SHOWN_CHARACTERS]
    numbers = f"by its number, from 0 to {len(names) - 1}"
    if _is_number(column):
        return f"has no column {column}: its first record is {shown}. Choose {flag} {numbers}"
    if header == "no":
        return f"has no names with --header no, so there is no {column!r}. Choose {flag} {numbers}"
    return f"has no column {column!r}. Its columns are {shown}: choose one with {flag}, or, if these are no names, {numbers}"


def _shows_header(first: list[str]) -> bool:
    """Return whether the first record is a header: it holds a usual name and no number."""
    return any(name.lower() in USUAL_NAMES for name in first) and not any(map(_is_number, first))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


# ---- formats


def _read(delimiter: str | None, file: BinaryIO, split: Split, start: int) -> Iterator[Item]:
    table = _table(file, split.source, delimiter)

    def read(chunks: Chunks, position: int) -> Iterator[Item]:
        return read_delimited(chunks, position, table, quoted=delimiter is None) if table else iter(())

    return read_stream(file, split, start, read, keeps_unfinished=True)


def _check(delimiter: str | None, source: Source) -> None:
    with storage.open_read(source.path) as file:
        _table(file, source, delimiter)


def _find_csv_cuts(source: Source, split_bytes: int) -> list[int]:
    """Return the beginnings of records. All of the file is read for this: a line may be part of a quoted field."""
    if not storage.is_local(source.path) or source.size <= split_bytes:
        return []
    cuts: list[int] = []
    with storage.open_read(source.path) as file:
        table = _table(file, source, None)
        chunks, start = text_chunks(file, Split(source, 0, None), 0)
        for position, _ in _records(Chunks(chunks, ends_at_damage=True), start, table.delimiter if table else None):
            if position - (cuts[-1] if cuts else 0) >= split_bytes:
                cuts.append(position)
    return cuts


def _find_tsv_cuts(source: Source, split_bytes: int) -> list[int]:
    return find_borders(LINE_END, source, split_bytes)


CSV = Format(
    name="csv",
    description="CSV",
    endings=(".csv",),
    check=partial(_check, None),
    read=partial(_read, None),
    needs_seek=True,  # the first record is read twice
    find_cuts=_find_csv_cuts,
    has_records=True,
    has_encodings=True,
)
TSV = Format(
    name="tsv",
    description="TSV",
    endings=(".tsv",),
    check=partial(_check, "\t"),
    read=partial(_read, "\t"),
    needs_seek=True,
    find_cuts=_find_tsv_cuts,
    has_records=True,
    has_encodings=True,
)

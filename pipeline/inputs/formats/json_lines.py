"""JSON Lines: an object in each line, its text in one field."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import orjson

from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.streamed import BOM, LINE_END, find_borders, read_each_line, read_stream
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.inputs.streams import HEAD
from pipeline.text.records import (
    SHOWN_CHARACTERS,
    Item,
    Reject,
    Row,
    decode_text,
    first_characters,
    shown_id,
)

_OBJECT = re.compile(rb"\{\s*[\"}]")


def read_json_lines(
    chunks: Iterable[bytes], start: int, text_column: str, id_column: str, document_column: str | None = None
) -> Iterator[Row | Reject]:
    """Yield the rows and rejects of these lines, in order."""

    def items_of(line: bytes, position: int) -> tuple[Row | Reject]:
        return (read_object(line, position, text_column, id_column, document_column),)

    return read_each_line(chunks, start, items_of)


def read_object(
    line: bytes, position: int, text_column: str, id_column: str, document_column: str | None
) -> Row | Reject:
    """Return the row or the reject of a line, or of an element of an array."""
    num_replaced = 0
    try:
        record = orjson.loads(line)  # the fast path, for nearly all lines
    except ValueError:
        line, num_replaced = decode_text(line.strip().removeprefix(BOM))
        if not line:
            return Reject(position, "blank-line")
        try:
            record = json.loads(line.decode())  # accepts NaN and lone surrogates; given bytes it would guess UTF-16
        except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
            return Reject(position, "not-json", str(error), first_characters(line))
    if not isinstance(record, dict):
        return Reject(position, "not-an-object", "", first_characters(line))
    record_id = record.get(id_column)
    record_id = None if record_id is None else shown_id(record_id)
    if text_column not in record:
        return Reject(position, "no-text-field", _fields(record), first_characters(line), record_id)
    text = record[text_column]
    if not isinstance(text, str):
        return Reject(position, "text-not-a-string", "", first_characters(line), record_id)
    document = None
    if document_column is not None:
        if document_column not in record:
            return Reject(position, "no-document-field", _fields(record), first_characters(line), record_id)
        if isinstance(record[document_column], (list, dict)):
            return Reject(position, "document-not-a-value", "", first_characters(line), record_id)
        document = repr(record[document_column])
    return Row(text, position, line[: 4 * SHOWN_CHARACTERS], num_replaced, record_id, document)


def _fields(record: dict[str, Any]) -> str:
    """Return the names of a record's fields, without lone surrogates, which UTF-8 cannot hold."""
    return f"fields: {', '.join(record)}"[:SHOWN_CHARACTERS].encode(errors="replace").decode()


def _read(file: BinaryIO, split: Split, start: int) -> Iterator[Item]:
    config = split.source.read

    def read(chunks: Iterable[bytes], position: int) -> Iterator[Item]:
        return read_json_lines(chunks, position, config.text_column, config.id_column, config.document_column)

    return read_stream(file, split, start, read, keeps_unfinished=True)


def _find_cuts(source: Source, split_bytes: int) -> list[int]:
    return find_borders(LINE_END, source, split_bytes)


def _begins(head: bytes, config: ReadConfig) -> bool:
    """Return whether the first line is one whole object. If there is no other line, it must have the text column: many
    programs write their settings as one object in one line.
    """
    line, _, rest = head.removeprefix(BOM).lstrip().partition(b"\n")
    if not _OBJECT.match(line):
        return False
    if not rest and len(head) >= HEAD:
        return True  # a line longer than what was read
    try:
        record = orjson.loads(line)
    except ValueError:
        return False
    return bool(rest.strip()) or config.text_column in record


JSON_LINES = Format(
    name="jsonl",
    description="JSON Lines",
    endings=(".jsonl", ".ndjson"),
    shared_endings=(".json",),
    begins=_begins,
    read=_read,
    find_cuts=_find_cuts,
    has_records=True,
    has_encodings=True,
)

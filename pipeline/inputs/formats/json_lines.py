"""JSON Lines: an object in each line, its text in one field.

In the text a single line break is a space and a blank line ends a paragraph.
"""

import json
from collections.abc import Iterable, Iterator

import orjson

from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.streamed import BOM, LINE_END, find_borders, line_too_long, read_lines, read_stream
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.text.records import (
    SHOWN_CHARACTERS,
    Document,
    Record,
    Reject,
    decode_text,
    first_characters,
    or_empty,
    paragraphs,
    shown_id,
    whole_or_pieces,
)


def read_json_lines(
    chunks: Iterable[bytes], start: int, text_column: str, id_column: str
) -> Iterator[Document | Reject]:
    """Yield the documents and rejects of these lines, in order."""
    at = start
    for line in read_lines(chunks):
        if isinstance(line, int):
            yield line_too_long(at, line)
            at += line
            continue
        position, at = at, at + len(line)
        found = _text_of_line(line, position, text_column, id_column)
        head = line[: 4 * SHOWN_CHARACTERS]
        del line  # the line and its text may be long: do not hold both
        if isinstance(found, Reject):
            yield found
            continue
        text, num_replaced, record_id = found
        del found
        data, num_surrogates = paragraphs(text)
        del text
        documents = whole_or_pieces(data, position, num_replaced + num_surrogates, record_id)
        yield from or_empty(documents, position, head, record_id)


def _text_of_line(line: bytes, position: int, text_column: str, id_column: str) -> tuple[str, int, str | None] | Reject:
    """Return (text, number of bytes replaced by U+FFFD, id of the record), or a reject."""
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
        detail = _plain(f"fields: {', '.join(record)}"[:SHOWN_CHARACTERS])
        return Reject(position, "no-text-field", detail, first_characters(line), record_id)
    text = record[text_column]
    if not isinstance(text, str):
        return Reject(position, "text-not-a-string", "", first_characters(line), record_id)
    return text, num_replaced, record_id


def _plain(text: str) -> str:
    """Return the text with lone surrogates replaced, which UTF-8 cannot hold."""
    return text.encode(errors="replace").decode()


def _read(split: Split, start: int, config: ReadConfig) -> Iterator[Record]:
    def read(chunks: Iterable[bytes], position: int) -> Iterator[Record]:
        return read_json_lines(chunks, position, config.text_column, config.id_column)

    return read_stream(split, start, read, keeps_unfinished=True)


def _find_cuts(source: Source, split_bytes: int, config: ReadConfig) -> list[int]:
    return find_borders(LINE_END, source, split_bytes)


JSON_LINES = Format(
    name="jsonl",
    description="JSON Lines",
    endings=(".jsonl", ".ndjson"),
    read=_read,
    find_cuts=_find_cuts,
    has_encodings=True,
)

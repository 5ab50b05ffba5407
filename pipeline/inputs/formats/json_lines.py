"""JSON Lines: one object a line, its text in one field. In a text a single line break is a space and a blank line ends
a paragraph, which a line feed says from then on."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from pipeline.text.records import (
    SHOWN_CHARACTERS,
    Document,
    Reject,
    decoded,
    first_characters,
    paragraphs,
    whole_or_pieces,
)

MAX_LINE_BYTES = 50_000_000  # a line has to be held whole: in six times its size, and where it is odd, in fifteen
BOM = b"\xef\xbb\xbf"


def read_json_lines(
    chunks: Iterable[bytes], start: int, text_column: str, id_column: str
) -> Iterator[Document | Reject]:
    """The documents and rejects of these lines, in order."""
    at = start
    for line in read_lines(chunks):
        if isinstance(line, int):
            yield line_too_long(at, line)
            at += line
            continue
        position, at = at, at + len(line)
        found = _text_of_line(line, position, text_column, id_column)
        head = line[: 4 * SHOWN_CHARACTERS]
        del line  # it and its text may be long: from here on there is the text alone
        if isinstance(found, Reject):
            yield found
            continue
        text, num_replaced, record_id = found
        del found
        data, num_surrogates = paragraphs(text)
        del text
        documents = whole_or_pieces(data, position, num_replaced + num_surrogates, record_id)
        first = next(documents, None)
        yield first or Reject(position, "empty-text", "", first_characters(head), record_id)
        yield from documents


def line_too_long(position: int, num_bytes: int) -> Reject:
    return Reject(position, "line-too-long", f"{num_bytes} bytes, over {MAX_LINE_BYTES}")


def read_lines(chunks: Iterable[bytes]) -> Iterator[bytes | int]:
    """Lines with their line feed; of one over MAX_LINE_BYTES only the length."""
    parts: list[bytes] = []
    length = 0  # of the line begun, whose bytes are in `parts` unless it is too long
    for chunk in chunks:
        lines = chunk.split(b"\n")
        for piece in lines[:-1]:
            length += len(piece) + 1
            yield length if length > MAX_LINE_BYTES else _join(parts, piece + b"\n")
            parts, length = [], 0
        length += len(lines[-1])
        parts.append(lines[-1])
        if length > MAX_LINE_BYTES:
            parts = []
    if length:
        yield length if length > MAX_LINE_BYTES else _join(parts, b"")


def _join(parts: list[bytes], last: bytes) -> bytes:
    """The parts and the last one in one piece. They are let go of: whoever asks for the line holds it once."""
    line = b"".join([*parts, last])
    parts.clear()
    return line


def _text_of_line(line: bytes, position: int, text_column: str, id_column: str) -> tuple[str, int, str | None] | Reject:
    """(text, bytes that became U+FFFD, id of the record), or why there is none."""
    num_replaced = 0
    try:
        record = orjson.loads(line)  # all but odd lines
    except ValueError:
        line, num_replaced = decoded(line.strip().removeprefix(BOM))
        if not line:
            return Reject(position, "blank-line")
        try:
            record = json.loads(line.decode())  # takes NaN and half a surrogate pair; of bytes it would guess UTF-16
        except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
            return Reject(position, "not-json", str(error), first_characters(line))
    text, reason, detail = _text_of(record, text_column)
    record_id = record.get(id_column) if isinstance(record, dict) else None
    record_id = None if record_id is None else _plain(str(record_id))
    if reason:
        return Reject(position, reason, detail, first_characters(line), record_id)
    return text, num_replaced, record_id


def _text_of(record: Any, text_column: str) -> tuple[str, str, str]:
    """(text, "", "") of a record, or ("", why there is none, what there is)."""
    if not isinstance(record, dict):
        return "", "not-an-object", ""
    if text_column not in record:
        return "", "no-text-field", _plain(f"fields: {', '.join(record)}"[:SHOWN_CHARACTERS])
    text = record[text_column]
    return (text, "", "") if isinstance(text, str) else ("", "text-not-a-string", "")


def _plain(text: str) -> str:
    """The text without halves of surrogate pairs, which no file can hold."""
    return text.encode(errors="replace").decode()

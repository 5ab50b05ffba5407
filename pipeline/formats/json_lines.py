"""JSON Lines: one object a line, its text in one field. In a text a single line break is a space and a blank line ends
a paragraph, which a line feed says from then on."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from pipeline.formats.records import (
    SHOWN_CHARACTERS,
    Document,
    Reject,
    decoded,
    first_characters,
    paragraphs,
    whole_or_pieces,
)

MAX_LINE_BYTES = 1_000_000_000  # a line has to be held whole
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
        else:
            yield from _json_document(line, at, text_column, id_column)
            at += len(line)


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
            yield length if length > MAX_LINE_BYTES else b"".join([*parts, piece, b"\n"])
            parts, length = [], 0
        length += len(lines[-1])
        parts.append(lines[-1])
        if length > MAX_LINE_BYTES:
            parts = []
    if length:
        yield length if length > MAX_LINE_BYTES else b"".join(parts)


def _json_document(line: bytes, position: int, text_column: str, id_column: str) -> Iterator[Document | Reject]:
    num_replaced = 0
    try:
        record = orjson.loads(line)  # all but odd lines
    except ValueError:
        line, num_replaced = decoded(line.strip().removeprefix(BOM))
        if not line:
            yield Reject(position, "blank-line")
            return
        try:
            record = json.loads(line.decode())  # takes NaN and half a surrogate pair; of bytes it would guess UTF-16
        except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
            yield Reject(position, "not-json", str(error), first_characters(line))
            return
    text, reason, detail = _text_of(record, text_column)
    record_id = _plain(str(record[id_column])) if isinstance(record, dict) and id_column in record else None
    documents: list[Document] = []
    if not reason:
        data, num_surrogates = paragraphs(text)
        documents = list(whole_or_pieces(data, position, num_replaced + num_surrogates, record_id))
    if not documents:
        yield Reject(position, reason or "empty-text", detail, first_characters(line), record_id)
    yield from documents


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

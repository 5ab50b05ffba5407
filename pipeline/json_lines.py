"""JSON Lines: one object a line, its text in one field. In a text a single line break is a space and a blank line ends
a paragraph, which a line feed says from then on."""

import json
import re
from collections.abc import Iterable, Iterator

import orjson

from pipeline.records import Document, Reject, decoded, whole_or_pieces

MAX_LINE_BYTES = 1_000_000_000  # a line has to be held whole
BOM = b"\xef\xbb\xbf"

_PARAGRAPHS = re.compile(r"\n\s*\n")
_SURROGATES = re.compile("[\ud800-\udfff]")


def read_json_lines(chunks: Iterable[bytes], start: int) -> Iterator[Document | Reject]:
    """The documents and rejects of these lines, in order."""
    at = start
    for line in read_lines(chunks):
        if isinstance(line, int):
            yield Reject(at, "line-too-long", f"{line} bytes, over {MAX_LINE_BYTES}")
            at += line
            continue
        yield from _json_document(line, at)
        at += len(line)


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


def _json_document(line: bytes, position: int) -> Iterator[Document | Reject]:
    num_replaced = 0
    try:
        record = orjson.loads(line)  # all but odd lines
    except ValueError:
        line, num_replaced = decoded(line.strip().removeprefix(BOM))
        if not line:
            yield Reject(position, "blank-line", "")
            return
        try:
            record = json.loads(line.decode())  # takes NaN and half a surrogate pair; of bytes it would guess UTF-16
        except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
            yield Reject(position, "not-json", f"{error}: {_start_of(line)}")
            return
    if not isinstance(record, dict):
        yield Reject(position, "not-an-object", _start_of(line))
        return
    if "text" not in record:
        yield Reject(position, "no-text-field", _SURROGATES.sub("\ufffd", f"fields: {', '.join(record)}"[:200]))
        return
    text = record["text"]
    if not isinstance(text, str):
        yield Reject(position, "text-not-a-string", _start_of(line))
        return
    data, num_surrogates = paragraphs(text)
    documents = list(whole_or_pieces(data, position, num_replaced + num_surrogates))
    if not documents:
        yield Reject(position, "empty-text", _start_of(line))
    yield from documents


def paragraphs(text: str) -> tuple[bytes, int]:
    """(A text of hard-wrapped lines as UTF-8 with a line feed behind each paragraph alone, halves of surrogate pairs
    that became U+FFFD)."""
    num_surrogates = 0
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\n" in text:
        text = _PARAGRAPHS.sub("\r", text.strip(" \t\n\v\f")).replace("\n", " ").replace("\r", "\n")
    try:
        return text.encode(), num_surrogates
    except UnicodeEncodeError:
        text, num_surrogates = _SURROGATES.subn("\ufffd", text)
        return text.encode(), num_surrogates


def _start_of(raw: bytes) -> str:
    return raw[:200].decode(errors="replace").rstrip("\n")

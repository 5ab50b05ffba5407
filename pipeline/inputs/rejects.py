"""The log of rejects: one JSON line each, compressed. Concatenated gzip members are one gzip file."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pipeline.text.records import DAMAGED, Reject, place_of

if TYPE_CHECKING:  # `inspect` needs no reader of texts
    from pipeline.inputs.sources import ReadConfig

GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03"  # deflate, no time, best compression, Unix


def advice(reason: str, config: ReadConfig | None) -> str:
    """Return what to do about rejects of a reason, or "" if the reason is enough.

    Args:
        config: how their files are read; None: the tables of --inputs may read them in several ways.
    """
    of_table = "field with the name that its table of --inputs gives"
    text = f"field {config.text_column!r}" if config else of_table
    document = f"field {config.document_column!r}" if config else of_table
    return {
        "no-text-field": f"there is no {text}; name the field that holds the text with --text-column",
        "no-document-field": f"there is no {document}; name the field that says which document a record is part of with "
        "--document-column",
        "text-not-a-string": f"the {text} is not a string; choose another with --text-column",
        "not-json": "expected one JSON object in each line; read an array of objects with --format json-array",
        "not-an-object": "expected one JSON object in each line",
        "wrong-columns": "expected as many columns as the first record has; read the file with --format tsv if its columns "
        "are separated by tabs and quotes are text",
        "unclosed-quote": "read the file with --format tsv if its columns are separated by tabs and quotes are text",
        DAMAGED: "copy the file again",
    }.get(reason, "")


def rejects_log(rejects: Iterable[tuple[str, Reject]]) -> bytes:
    """Return the lines of these (source, reject) as one gzip member, or nothing if there are none."""
    lines = "".join(_line(source, reject) for source, reject in rejects)
    return gzip_member(lines.encode()) if lines else b""


def gzip_member(data: bytes) -> bytes:
    """Compress bytes. The header is written here, because that of `gzip.compress` depends on the version of Python."""
    checksum, size = zlib.crc32(data), len(data) & 0xFFFFFFFF
    packed = zlib.compress(data, level=9, wbits=-zlib.MAX_WBITS)
    return b"".join([GZIP_HEADER, packed, checksum.to_bytes(4, "little"), size.to_bytes(4, "little")])


def _line(source: str, reject: Reject) -> str:
    file, position = place_of(source, reject)
    fields: dict[str, Any] = {"source": file, "position": position, "reason": reject.reason}
    fields |= {"detail": reject.detail, "text": reject.text}
    if reject.record_id is not None:
        fields["id"] = reject.record_id
    if reject.piece:
        fields["piece"] = reject.piece
    if reject.test_sets:
        fields["test_sets"] = reject.test_sets
    return json.dumps(fields, ensure_ascii=False) + "\n"

"""The log of rejects: a JSON line for each, compressed with gzip. Concatenated logs are one gzip file."""

import gzip
import json
from collections.abc import Iterable

from pipeline.text.records import Reject


def rejects_log(rejects: Iterable[tuple[str, Reject]]) -> bytes:
    """Return one gzip member with a line for each (source, reject), or no bytes where there are none."""
    lines = "".join(_line(source, reject) for source, reject in rejects)
    return gzip.compress(lines.encode(), mtime=0) if lines else b""


def _line(source: str, reject: Reject) -> str:
    fields = {
        "source": source,
        "position": reject.position,
        "reason": reject.reason,
        "detail": reject.detail,
        "text": reject.text,
    }
    if reject.record_id is not None:
        fields["id"] = reject.record_id
    if reject.piece:
        fields["piece"] = reject.piece
    return json.dumps(fields, ensure_ascii=False) + "\n"

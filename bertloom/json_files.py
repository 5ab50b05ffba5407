"""JSON objects in files, with errors that name the file."""

import json
from pathlib import Path
from typing import Any


class Damaged(ValueError):
    """What was read is not what was written. Another read may give the right content."""


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the JSON object in a local file; ValueError if there is none."""
    return parse_json(Path(path).read_bytes(), str(path))


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in the content of a file of this name; Damaged if there is none."""
    try:
        value = json.loads(content)
    except ValueError as error:
        raise Damaged(f"{name} is not JSON ({error}): it was damaged or written by another program") from None
    if not isinstance(value, dict):
        raise Damaged(f"{name} does not hold a JSON object, but {type(value).__name__}: another program wrote it")
    return value

"""JSON and TOML of unknown origin. Every fault is one ValueError that names the file.

Python's decoders raise RecursionError for deep nesting, and what they return may be nested more deeply than `repr` and
`json.dumps` can follow. Everything that reads JSON or TOML therefore calls a function of this file.
"""

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

MAX_DEPTH = 100
"""Levels of nesting that are read. No file of ours, or of transformers, has more than ten."""
MAX_BYTES = 1 << 26
"""Size of the largest file that is read whole: the largest tokenizer.json of transformers has 33 MB."""


class Damaged(ValueError):
    """What was read is not what was written. Another read may give the right content."""


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the JSON object in a local file; ValueError if there is none."""
    return parse_json(read_regular(path), str(path))


def parse_json(content: bytes | str, name: str) -> dict[str, Any]:
    """Return the JSON object in the content of a file of this name; Damaged if there is none."""
    value = decode_json(content, name)
    if not isinstance(value, dict):
        raise Damaged(f"{name} does not hold a JSON object, but {type(value).__name__}: another program wrote it")
    return value


def decode_json(content: bytes | str, name: str) -> Any:
    """Return the JSON value in the content of a file of this name, or in a line of it; Damaged if there is none."""
    try:
        return loads(content)
    except ValueError as error:
        raise Damaged(f"{name} is not JSON ({error}): it was damaged or written by another program") from None


def loads(content: bytes | str) -> Any:
    """Return the JSON value in a text. ValueError, whose message is the reason alone, if it is not JSON."""
    try:
        value = json.loads(content)
        check_depth(value)
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        raise ValueError(_why(error)) from None
    return value


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return the table in a local TOML file; ValueError if it is not TOML."""
    return parse_toml(read_regular(path, 1 << 20), str(path))


def parse_toml(content: bytes, name: str) -> dict[str, Any]:
    """Return the table in the content of a TOML file of this name; ValueError if it is not TOML."""
    try:
        table = tomllib.loads(content.decode("utf-8"))
        check_depth(table)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{name}: not valid TOML: {_why(error)}") from None
    return table


def check_depth(value: Any) -> None:
    """Raise RecursionError if lists and dictionaries are nested in more than MAX_DEPTH levels."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise RecursionError


def read_regular(path: str | Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a small regular file.

    Raises:
        ValueError: it is a device, a pipe or a folder, which may have no end, or it has more than `max_bytes`.
        FileNotFoundError: the file does not exist.
    """
    with open(check_regular(path), "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(
            f"{path} has more than {max_bytes:,} bytes: expected a small file, so another program wrote it"
        )
    return content


def check_regular(path: str | Path) -> Path:
    """Return the path of a regular file, or of a link to one; ValueError if it is something else."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is not a regular file: devices, pipes and folders are not read")
    return Path(path)


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"it is nested in more than {MAX_DEPTH} levels"
    return " ".join(str(error).split())

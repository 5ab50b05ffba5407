"""Shapes of JSON values: which parts an object must have, and which values are possible there.

A shape is a dict (an object with at least these keys), a list of one shape (a list of such values), a `MapOf` or a `Kind`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Kind:
    """A kind of values."""

    what: str
    """What is expected, for the message."""
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class MapOf:
    """An object with any number of keys of one kind, and values of one kind."""

    keys: Kind
    values: Kind


COUNT = Kind("a whole number from 0 to 2^53", lambda value: type(value) is int and 0 <= value <= 1 << 53)
SHARE = Kind("a number from 0 to 1", lambda value: type(value) in (int, float) and 0 <= value <= 1)
TEXT = Kind("text", lambda value: isinstance(value, str))
NULL_OR_TEXT = Kind("text or null", lambda value: value is None or isinstance(value, str))
SHA256 = Kind("64 hexadecimal digits", lambda value: isinstance(value, str) and _SHA256.fullmatch(value) is not None)


def check_shape(value: Any, shape: Any, name: str, where: str = "") -> None:
    """Raise ValueError unless a value of the file of this name has a shape. where: the value's place in the file."""
    if isinstance(shape, (dict, MapOf)) and not isinstance(value, dict):
        raise _wrong(value, "an object", name, where)
    if isinstance(shape, dict):
        for key, inner in shape.items():
            place = f"{where}.{key}".lstrip(".")
            if key not in value:
                raise ValueError(f"{name} has lost a part: it has no {place}; copy it again, or make it again")
            check_shape(value[key], inner, name, place)
    elif isinstance(shape, MapOf):
        for key, item in value.items():
            if not shape.keys.holds(key):
                raise _wrong(key, shape.keys.what, name, f"a name in {where}")
            check_shape(item, shape.values, name, f"{where}[{key!r:.80}]")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise _wrong(value, "a list", name, where)
        for number, item in enumerate(value):
            check_shape(item, shape[0], name, f"{where}[{number}]")
    elif not shape.holds(value):
        raise _wrong(value, shape.what, name, where)


def _wrong(value: Any, expected: str, name: str, where: str) -> ValueError:
    found = repr(value)
    found = found if len(found) <= 80 else f"{found[:80]}…"
    return ValueError(f"{name} has a value that is not possible: {where} is {found}, expected {expected}")

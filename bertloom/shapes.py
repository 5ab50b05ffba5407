"""Values of JSON: checked against a shape, and made into values of Python.

| a shape is                        | what has it                                              | what is made of it      |
|-----------------------------------|----------------------------------------------------------|-------------------------|
| a dataclass                       | an object with the names of its fields and no others     | one of the dataclass    |
| `list[X]`, `tuple[X, ...]`        | a list                                                   | a list or a tuple       |
| `dict[str, X]`                    | an object                                                | a dict                  |
| `X \\| None`                       | null, or what has the shape X                            | None, or the same as of X |
| `Literal["a", "b"]`               | one of these texts                                       | itself                  |
| `Annotated[X, …]`                 | what has the shape X, or is of a `Kind` among the others | the same as of these    |
| `int`, `float`, `str`, `bool`     | a value of this type; numbers are finite and below 2^63  | one of this type        |
| a dict `{"a": X}`                 | an object with at least these names                      | itself                  |
| a list `[X]`, or a `MapOf`        | a list or an object with any number of values            | itself                  |
| a `Kind`                          | a value for which its function returns true              | itself                  |

A field of a dataclass may be missing if its metadata is `MAY_LACK`.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

MAY_LACK = {"may_lack": True}
"""Metadata of a field of a dataclass whose value is left out where it is empty: `field(default=(), metadata=MAY_LACK)`."""
LARGEST = 2**63
"""Bound of whole numbers: numpy and torch hold no larger ones."""


@dataclass(frozen=True)
class Kind:
    """A kind of values."""

    what: str
    """What is expected, for the message."""
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class MapOf:
    """An object with any number of keys of one kind, and values of one shape."""

    keys: Kind
    values: Any


class LostPart(ValueError):
    """An object lacks a part."""


_HEX = re.compile(r"[0-9a-f]{64}")
COUNT = Kind("a whole number from 0 to 2^53", lambda value: type(value) is int and 0 <= value <= 1 << 53)
SHARE = Kind("a number from 0 to 1", lambda value: type(value) in (int, float) and 0 <= value <= 1)
SHA256 = Kind("64 hexadecimal digits", lambda value: isinstance(value, str) and _HEX.fullmatch(value) is not None)
TEXT = Kind("text", lambda value: isinstance(value, str))
_TYPES = {
    Any: Kind("any value", lambda value: True),
    bool: Kind("true or false", lambda value: isinstance(value, bool)),
    int: Kind("a whole number", lambda value: type(value) is int and abs(value) < LARGEST),
    float: Kind(
        "a number",
        lambda value: abs(value) < LARGEST if type(value) is int else type(value) is float and math.isfinite(value),
    ),
    str: TEXT,
}


def check_shape(value: Any, shape: Any, name: str) -> None:
    """Raise ValueError unless the value in the file of this name has a shape."""
    try:
        shaped(value, shape)
    except LostPart as error:
        raise ValueError(f"{name} has lost a part: it {error}; copy it again, or make it again") from None
    except ValueError as error:
        raise ValueError(f"{name} has a value that is not possible: {error}") from None


def shaped(value: Any, shape: Any, place: str = "") -> Any:
    """Return what is made of a value of JSON that has a shape; see the top of this module.

    Args:
        place: what the value is, for errors.

    Raises:
        ValueError: it has another shape.
    """
    if isinstance(shape, type) and (kind := _TYPES.get(shape)):
        _check_kind(value, kind, place)
        return float(value) if shape is float else value
    if isinstance(shape, Kind):
        _check_kind(value, shape, place)
        return value
    origin, arguments = get_origin(shape), get_args(shape)
    if origin is Literal:
        _check_kind(value, Kind(" or ".join(map(repr, arguments)), lambda found: found in arguments), place)
    elif origin in (UnionType, Union):
        [inner] = [option for option in arguments if option is not NoneType]
        return None if value is None else shaped(value, inner, place)
    elif origin is Annotated:
        kinds = [other for other in arguments if isinstance(other, Kind)]
        return shaped(value, (*kinds, arguments[0])[0], place)
    elif origin in (list, tuple):
        return origin(_items(value, arguments[0], place))
    elif isinstance(shape, list):
        for _ in _items(value, shape[0], place):
            pass
    elif not isinstance(value, dict):
        raise _wrong(value, "an object", place)
    elif origin is dict:
        return {name: shaped(item, arguments[1], f"{place}.{name}") for name, item in value.items()}
    elif isinstance(shape, MapOf):
        for name, item in value.items():
            _check_kind(name, shape.keys, f"a name in {place}")
            shaped(item, shape.values, f"{place}[{name!r:.80}]")
    elif isinstance(shape, dict):
        _parts(value, shape, place)
    else:
        hints = get_type_hints(shape)
        names = {field.name: field.metadata.get("may_lack", False) for field in fields(shape)}
        for name in sorted(value.keys() - names.keys()):
            raise ValueError(f"{place} has an unknown {shown(name)}")
        expected = {name: hints[name] for name, may_lack in names.items() if name in value or not may_lack}
        return shape(**_parts(value, expected, place))
    return value


def values_of(value: Any) -> Any:
    """Return what JSON makes a value again from which `shaped` made it, as `dataclasses.asdict`."""
    if is_dataclass(value):
        found = {field: getattr(value, field.name) for field in fields(value)}
        return {
            field.name: values_of(part) for field, part in found.items() if part or "may_lack" not in field.metadata
        }
    if isinstance(value, dict):
        return {name: values_of(part) for name, part in value.items()}
    return [values_of(part) for part in value] if isinstance(value, (list, tuple)) else value


def shown(value: Any) -> str:
    """Return a value as an error shows it: not longer than a line."""
    if isinstance(value, (dict, list)) and len(value) > 2:
        return f"a {type(value).__name__} of {len(value)} items"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _items(value: Any, shape: Any, place: str) -> Iterator[Any]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(value, "a list", place)
    return (shaped(item, shape, f"{place}[{number}]") for number, item in enumerate(value))


def _parts(value: dict[str, Any], shapes: dict[str, Any], place: str) -> dict[str, Any]:
    parts = {}
    for name, shape in shapes.items():
        part = f"{place}.{name}".lstrip(".")
        if name not in value:
            raise LostPart(f"has no {part}")
        parts[name] = shaped(value[name], shape, part)
    return parts


def _check_kind(value: Any, kind: Kind, place: str) -> None:
    if not kind.holds(value):
        raise _wrong(value, kind.what, place)


def _wrong(value: Any, expected: str, place: str) -> ValueError:
    return ValueError(f"{place} is {shown(value)}, expected {expected}")

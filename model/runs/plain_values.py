"""Dataclasses from what `dataclasses.asdict` and JSON made of them, with every type checked."""

import math
import types
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

LARGEST = 2**63
"""Bound of whole numbers: numpy and torch hold no larger ones."""


def from_plain(kind: Any, value: Any, key: str) -> Any:
    """Return a value of this type.

    Args:
        kind: a dataclass, or a type as in the annotations of its fields.
        value: from JSON.
        key: its name, for errors.

    Raises:
        ValueError: it is of another type, or a number is not finite or too large.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        if isinstance(value, dict):
            for name in sorted(value.keys() ^ set(names)):
                raise ValueError(f"{key} {'has an unknown' if name in value else 'has no'} {shown(name)}")
            return kind(**{name: from_plain(hints[name], value[name], f"{key}.{name}") for name in names})  # type: ignore[operator]
    elif origin in (types.UnionType, Union):
        [inner] = [option for option in arguments if option is not types.NoneType]
        return None if value is None else from_plain(inner, value, key)
    elif origin in (list, tuple):
        if isinstance(value, (list, tuple)):
            return origin(from_plain(arguments[0], item, f"{key}[{number}]") for number, item in enumerate(value))
    elif origin is dict:
        if isinstance(value, dict):
            return {name: from_plain(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
    elif kind is float and type(value) in (int, float):
        if abs(value) < LARGEST if type(value) is int else math.isfinite(value):
            return float(value)
    elif kind is Any or (type(value) is kind and (kind is not int or abs(value) < LARGEST)):
        return value
    raise ValueError(f"{key} is {shown(value)}, expected {getattr(kind, '__name__', kind)}")


def shown(value: Any) -> str:
    """Return a value as an error shows it: not longer than a line."""
    if isinstance(value, (dict, list)):
        return f"a {type(value).__name__} of {len(value)} items"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"

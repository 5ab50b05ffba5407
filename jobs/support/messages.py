"""Errors that name what they are about."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Put a name, such as the flag that gave the value, before the message of a ValueError from a block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None

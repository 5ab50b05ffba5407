"""Messages to the user while a command works."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def print_message(command: str, text: str) -> None:
    """Print a line to standard error, with the name of the command."""
    print(f"bertloom {command}: {text}", file=sys.stderr)


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Put a name, such as the flag that gave the value, before the message of a ValueError from a block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None

"""Messages to the user while a command works."""

import sys


def print_message(command: str, text: str) -> None:
    """Print a line to standard error, with the name of the command."""
    print(f"bertloom {command}: {text}", file=sys.stderr, flush=True)

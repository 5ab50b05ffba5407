"""Numbers with their nouns, for messages."""

from collections.abc import Sequence


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun, in the singular or the plural.

    >>> counted(1, "copy", "copies"), counted(1234, "file")
    ('1 copy', '1,234 files')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def first_files(names: Sequence[str]) -> str:
    """Return the first three names of files and the number of the others.

    >>> first_files(["a", "b"]), first_files(["a", "b", "c", "d"])
    ('a, b', 'a, b, c and 1 more file')
    """
    return ", ".join(names[:3]) + (f" and {counted(len(names) - 3, 'more file')}" if len(names) > 3 else "")

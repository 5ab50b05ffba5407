"""Numbers with their nouns, for messages."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun, in the singular or the plural.

    >>> counted(1, "copy", "copies"), counted(1234, "file")
    ('1 copy', '1,234 files')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"

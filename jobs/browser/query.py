"""Values in the addresses of pages."""

import re


def whole_number(name: str, text: str, least: int, most: int) -> int:
    """Return a number in an address; ValueError if it is not a number from `least` to `most`."""
    if not re.fullmatch(r"-?[0-9]{1,18}", text) or not least <= int(text) <= most:
        raise ValueError(f"{name}={text:.80}: expected a whole number from {least:,} to {most:,}")
    return int(text)


def document_id(name: str, text: str) -> int:
    """Return the id of a document in an address; ValueError if it is not one."""
    if not re.fullmatch(r"[0-9a-f]{16}", text):
        raise ValueError(f"{name}={text:.80}: expected the 16 hexadecimal digits of a document's id")
    return int(text, 16)

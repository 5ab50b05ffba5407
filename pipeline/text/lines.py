"""The lines of a text, and a text without some of them."""

import re
from collections.abc import Sequence


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, in which a line feed ends a paragraph and a carriage return is a line break within one."""
    return text.replace("\r", "\n").split("\n")


def with_lines(text: str, lines: Sequence[str | None]) -> str:
    """Replace the lines of a text and remove those that are None. The end of a paragraph between two lines is kept."""
    breaks = re.findall("[\r\n]", text)
    kept: list[str] = []
    between = ""  # the break between the line kept last and this one
    for line, before in zip(lines, ["", *breaks], strict=True):
        between = between if between == "\n" else before
        if line is not None:
            kept += [between, line] if kept else [line]
            between = ""
    return "".join(kept)

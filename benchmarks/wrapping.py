"""The same document with a line for each paragraph, and wrapped at a column."""

import re
import textwrap
import unicodedata

COLUMNS = (60, 72, 100)
_UNIT = re.compile(r"[!-~]+|.")  # where no line may end: a word, or one character
_NEVER_FIRST = "，。、；：？！）》」』”’】"


def shapes(paragraphs: list[str]) -> dict[str, tuple[str, str]]:
    """Return name -> (text, what its single line breaks are), for the shapes that have single line breaks."""
    found = {"a line for each paragraph": ("\n".join(paragraphs), "paragraph")}
    for columns in COLUMNS:
        wrapped = [wrap(paragraph, columns) for paragraph in paragraphs]
        if any("\n" in paragraph for paragraph in wrapped):
            found[f"wrapped at {columns}, blank lines between paragraphs"] = "\n\n".join(wrapped), "space"
            found[f"wrapped at {columns}, no blank lines"] = "\n".join(wrapped), "space"
    return found


def wrap(paragraph: str, columns: int) -> str:
    """Return the paragraph in lines of at most this number of columns.

    A line may end with a Chinese comma or full stop after its last column.
    """
    if not any(_width(character) == 2 for character in paragraph):
        return textwrap.fill(paragraph, columns, break_on_hyphens=False, break_long_words=False)
    lines, used = [""], 0
    for unit in _UNIT.findall(paragraph):
        width = sum(map(_width, unit))
        if used + width > columns and used and unit not in _NEVER_FIRST:
            lines.append("")
            used = 0
        if unit != " " or used:
            lines[-1] += unit
            used += width
    return "\n".join(filter(None, map(str.rstrip, lines)))


def _width(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1

"""CoNLL: a word and its columns in each line, and a blank line after each sentence. In Chinese files a word is a character.

Columns are separated by tabs or by spaces, as in the first word of the file. They are called 0, 1, 2, …; the first is also
`tokens`, and the last, if there are several, `tags`. A line that begins with -DOCSTART- separates sentences. A line that
begins with "# " before the first word of a sentence is a comment, unless it has the columns of a word.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bertloom.counts import counted
from bertloom.json_files import check_regular
from model.tasks.entities import has_entities
from model.tasks.formats.row_format import Answers, Records, RowFormat
from model.tasks.formats.sentences import MAX_CHARACTERS, Line, columns_of, read_sentences, write_sentences
from model.tasks.formats.text_files import opened, read_lines, rewrite
from model.tasks.values import BadRow

DOCUMENT = re.compile(r"-DOCSTART-(?:[ \t]|$)")
COMMENT = re.compile(r"#(?: |begin |end )")
CERTAIN = re.compile(r"# \S+ = |# new(?:doc|par)\b|#(?:begin|end) document\b")
"""A comment, even if it has the columns of a word."""
SEPARATORS = {"\t": "tabs", " ": "spaces"}
MAX_COLUMNS = 100
"""Largest number of columns of a word."""
HEAD_LINES = 1000
"""Number of lines that decide whether a .txt file has this form."""


@dataclass(frozen=True)
class Layout:
    """The columns of the words of a file."""

    line: int
    """Number of the line that shows them."""
    separator: str
    """A tab or a space."""
    num_columns: int

    @property
    def names(self) -> dict[str, int]:
        """The index of each column by name."""
        words = {"tokens": 0} | ({"tags": self.num_columns - 1} if self.num_columns > 1 else {})
        return words | {str(number): number for number in range(self.num_columns)}

    def columns(self, text: str) -> list[str] | BadRow:
        """Return the columns of a word, from its line without the end."""
        if len(text) > MAX_CHARACTERS:
            return BadRow(f"has more than {MAX_CHARACTERS:,} characters")
        found = columns_of(text)
        separator = "\t" if "\t" in text else " "
        if separator != self.separator and len(found) > 1 and self.num_columns > 1:
            names = SEPARATORS[separator], SEPARATORS[self.separator]
            return BadRow(f"has columns separated by {names[0]}, line {self.line} by {names[1]}: use one of them")
        if len(found) != self.num_columns:
            numbers = counted(len(found), "column"), self.num_columns
            return BadRow(f"has {numbers[0]}, line {self.line} has {numbers[1]}: expected as many, or a blank line")
        return found


def layout_of(path: Path) -> Layout | None:
    """Return the layout of a file, which its first word shows; None if it has no words.

    Raises:
        ValueError: it is not a regular file, which can be read several times; or a word has too many columns.
    """
    check_regular(path)
    with opened(path) as file:
        for number, line in enumerate(read_lines(path, file), 1):
            text = line.rstrip("\r\n")
            if is_border(text) or COMMENT.match(text):
                continue
            num_columns = len(columns_of(text[:MAX_CHARACTERS]))
            if num_columns > MAX_COLUMNS:
                raise ValueError(
                    f"{path}: line {number} has {num_columns:,} columns, expected at most {MAX_COLUMNS}: is it a file with "
                    f"a word in each line?"
                )
            return Layout(number, " " if num_columns > 1 and "\t" not in text else "\t", num_columns)
    return None


def is_border(text: str) -> bool:
    """Return whether a line without its end is between sentences."""
    return not text.strip(" \t") or (text.startswith("-") and DOCUMENT.match(text) is not None)


def _lines(lines: Iterable[str], layout: Layout) -> Iterator[Line]:
    """Return what each line of a file is."""
    is_inside = False
    for number, text in enumerate(lines, 1):
        content = text.rstrip("\r\n")
        if is_border(content):
            is_inside = False
            yield Line(number, text, is_border=True)
            continue
        columns = layout.columns(content)
        if not is_inside and content.startswith("#"):
            pattern = COMMENT if isinstance(columns, BadRow) else CERTAIN
            if pattern.match(content):
                yield Line(number, text)
                continue
        is_inside = True
        yield Line(number, text, columns)


def _read(path: Path, needed: Container[str]) -> Records:
    layout = layout_of(path)
    if layout is None:
        return
    is_certain = layout.num_columns < 3 or any(str(number) in needed for number in range(MAX_COLUMNS))
    with opened(path) as file:
        for place, values in read_sentences(_lines(read_lines(path, file), layout), layout.names, needed):
            if not is_certain and not isinstance(values, BadRow) and len(values["tokens"] or ()) > 1:
                is_certain = True
                if values["tokens"] == [str(number) for number in range(1, len(values["tokens"]) + 1)]:
                    raise ValueError(
                        f"{path}: {place}: column 0 numbers the words: name the columns of words and tags, such as "
                        f"--columns tokens=1 tags=2"
                    )
            yield place, values


def _write(path: Path, columns: Mapping[str, str], answers: Answers) -> Iterator[bytes]:
    layout = layout_of(path)
    if layout is None:  # the file has no words, which is an error of the answers
        layout, columns = Layout(1, "\t", 1), {}
    names = layout.names | {str(layout.num_columns): layout.num_columns}
    name = columns.get("tags", "tags" if "tags" in names else "1")
    if name not in names or names[name] == names.get(columns.get("tokens", "tokens")):
        raise ValueError(
            f"--columns tags={name}: expected the number of a column of {path} for the predicted tags, or "
            f"{layout.num_columns}, which adds a column"
        )
    return rewrite(
        path, lambda lines: write_sentences(path, _lines(lines, layout), names[name], layout.separator, answers)
    )


def _recognizes(path: Path, needed: Container[str]) -> bool:
    """Return whether words are needed, and a text is of no use, or numbers name columns, or words have tags of entities."""
    if "tokens" not in needed or ("text" in needed and "tags" in needed):  # the latter if any column may be a label
        return False
    if "text" not in needed or any(str(number) in needed for number in range(MAX_COLUMNS)):
        return True
    layout = layout_of(path)
    if layout is None or layout.num_columns < 2:
        return False
    tags = set()
    with opened(path) as file:
        for line in islice(_lines(read_lines(path, file), layout), HEAD_LINES):
            if isinstance(line.columns, BadRow):
                return False
            if line.columns:
                tags.add(line.columns[-1])
    return has_entities([*tags])


CONLL = RowFormat(
    endings=(".conll", ".bio", ".bmes", ".bioes", ".iob", ".iob2", ".txt"),
    read=_read,
    write=_write,
    recognizes=_recognizes,
)

"""CoNLL-U: words in ten columns separated by tabs, as in the treebanks of Universal Dependencies.

`tokens` are the column FORM, and `tags` the column UPOS. Comments, the lines of multiword tokens (1-2) and those of empty
nodes (1.1) are not words. In CoNLL-U Plus, the first line names the columns: `# global.columns = ID FORM UPOS NE`.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bertloom.counts import counted
from bertloom.json_files import check_regular
from model.tasks.formats.conll import MAX_COLUMNS
from model.tasks.formats.row_format import Answers, Records, RowFormat
from model.tasks.formats.sentences import MAX_CHARACTERS, Line, columns_of, read_sentences, write_sentences
from model.tasks.formats.text_files import opened, read_lines, rewrite
from model.tasks.values import BadRow

COLUMNS = "ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC"
NAMED = re.compile(r"# ?global\.columns ?= ?(.*)")
"""The first line of CoNLL-U Plus."""
MEANT = {"tokens": "FORM", "tags": "UPOS"}
"""The columns that are read and written if no others are named."""
WORD = re.compile("[0-9]+")
OTHER = re.compile(r"[0-9]+[-.][0-9]+")
"""The ID of a multiword token or of an empty node."""


def names_of(path: Path) -> dict[str, int]:
    """Return the index of each column by name.

    Raises:
        ValueError: it is not a regular file, which can be read twice; or it names a column twice, or too many.
    """
    check_regular(path)
    with opened(path) as file:
        match = NAMED.match(next(read_lines(path, file), ""))
    listed = (match.group(1) if match else COLUMNS).split()
    if not len({*listed}) == len(listed) <= MAX_COLUMNS:
        raise ValueError(
            f"{path}: line 1 names a column twice, or more than {MAX_COLUMNS}: expected a name for each column"
        )
    names = {name: number for number, name in enumerate(listed)}
    return {name: names[column] for name, column in MEANT.items() if column in names} | names


def _lines(lines: Iterable[str], names: Mapping[str, int]) -> Iterator[Line]:
    """Return what each line of a file is."""
    for number, text in enumerate(lines, 1):
        content = text.rstrip("\r\n")
        if not content.strip(" \t"):
            yield Line(number, text, is_border=True)
        elif content.startswith("#"):
            yield Line(number, text)
        else:
            yield Line(number, text, _columns(content, names))


def _columns(text: str, names: Mapping[str, int]) -> list[str] | BadRow | None:
    """Return the columns of a word; None for multiword tokens and empty nodes."""
    if len(text) > MAX_CHARACTERS:
        return BadRow(f"has more than {MAX_CHARACTERS:,} characters")
    found, has_tabs = columns_of(text), "\t" in text
    expected = max(names.values(), default=-1) + 1
    if len(found) != expected or (expected > 1 and not has_tabs):
        given = counted(len(found), "column") + ("" if has_tabs else " separated by spaces")
        return BadRow(f"has {given}, expected {expected} separated by tabs, a comment or a blank line")
    identity = found[names["ID"]] if "ID" in names else "1"
    if not WORD.fullmatch(identity):
        return None if OTHER.fullmatch(identity) else BadRow(f"has the ID {identity!r:.40}, expected 1, 1-2 or 1.1")
    return found


def _read(path: Path, needed: Container[str]) -> Records:
    names = names_of(path)
    with opened(path) as file:
        for place, values in read_sentences(_lines(read_lines(path, file), names), names, needed):
            yield place, values if isinstance(values, BadRow) else _known(values, names)


def _known(values: dict[str, Any], names: Mapping[str, int]) -> dict[str, Any]:
    """Return the values of a sentence, with reasons in the place of parts of speech that are not given."""
    lacking = BadRow('has "_", which means that the part of speech of a word is not given')
    return {
        name: lacking if names.get(name, -1) == names.get("UPOS") and "_" in (value or ()) else value
        for name, value in values.items()
    }


def _write(path: Path, columns: Mapping[str, str], answers: Answers) -> Iterator[bytes]:
    names = names_of(path)
    name = columns.get("tags", "tags")
    if name not in names or names[name] in (names.get("ID"), names.get(columns.get("tokens", "tokens"))):
        listed = ", ".join(name for name in names if name not in MEANT)
        raise ValueError(f"--columns tags={name}: expected a column of {path} for the predicted tags: {listed}")
    return rewrite(path, lambda lines: write_sentences(path, _lines(lines, names), names[name], "\t", answers))


CONLLU = RowFormat(endings=(".conllu", ".conllup", ".cupt"), read=_read, write=_write)

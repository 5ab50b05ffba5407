"""CoNLL-U: words in ten columns separated by tabs, as in the treebanks of Universal Dependencies.

`tokens` are the column FORM, and `tags` the column UPOS. Comments, the lines of multiword tokens (1-2) and those of empty
nodes (1.1) are not words.
"""

import re
from collections.abc import Container, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from bertloom.counts import counted
from bertloom.json_files import check_regular
from model.tasks.formats.conll import columns_of
from model.tasks.formats.row_format import Answers, Records, RowFormat
from model.tasks.formats.sentences import MAX_CHARACTERS, Line, read_sentences, write_sentences
from model.tasks.formats.text_files import encoding_of, opened, read_lines
from model.tasks.values import BadRow

COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
NAMES = {"tokens": 1, "tags": 3} | {name: number for number, name in enumerate(COLUMNS)}
"""The index of each column by name."""
WORD = re.compile("[0-9]+")
OTHER = re.compile(r"[0-9]+[-.][0-9]+")
"""The ID of a multiword token or of an empty node."""


def _lines(path: Path, file: BufferedReader) -> Iterator[Line]:
    for number, text in enumerate(read_lines(path, file), 1):
        content = text.rstrip("\r\n")
        if not content.strip(" \t"):
            yield Line(number, text, is_border=True)
        elif content.startswith("#"):
            yield Line(number, text)
        else:
            yield Line(number, text, _columns(content))


def _columns(text: str) -> list[tuple[int, int]] | BadRow | None:
    """Return begin and end of each column of a word; None for multiword tokens and empty nodes."""
    if len(text) > MAX_CHARACTERS:
        return BadRow(f"has more than {MAX_CHARACTERS:,} characters")
    separator, found = columns_of(text)
    if separator != "\t" or len(found) != len(COLUMNS):
        given = counted(len(found), "column") + ("" if separator == "\t" else " separated by spaces")
        return BadRow(f"has {given}, expected {len(COLUMNS)} separated by tabs, a comment or a blank line")
    identity = text[: found[0][1]]
    if not WORD.fullmatch(identity):
        return None if OTHER.fullmatch(identity) else BadRow(f"has the ID {identity!r:.40}, expected 1, 1-2 or 1.1")
    return found


def _read(path: Path, needed: Container[str]) -> Records:
    check_regular(path)
    with opened(path) as file:
        for place, values in read_sentences(_lines(path, file), NAMES, needed):
            yield place, values if isinstance(values, BadRow) else _known(values)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a sentence, with reasons in the place of parts of speech that are not given."""
    lacking = BadRow('has "_", which means that the part of speech of a word is not given')
    return {
        name: lacking if NAMES.get(name) == NAMES["UPOS"] and "_" in (value or ()) else value
        for name, value in values.items()
    }


def _write(path: Path, columns: Mapping[str, str], answers: Answers) -> Iterator[bytes]:
    name = columns.get("tags", "tags")
    if name not in NAMES or NAMES[name] in (NAMES["ID"], NAMES.get(columns.get("tokens", "tokens"))):
        raise ValueError(f"--columns tags={name}: expected a column of CoNLL-U for the predicted tags, such as UPOS")
    with opened(path) as file:
        encoding = encoding_of(file)
        yield encoding.mark
        for text in write_sentences(path, _lines(path, file), NAMES[name], "\t", answers):
            yield encoding.encode(text)


CONLLU = RowFormat(endings=(".conllu",), read=_read, write=_write)

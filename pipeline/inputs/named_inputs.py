"""The sources of a data set: the tables of --inputs, each with a name, its own cleaning and perhaps a budget of tokens."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.inputs.sources import Source, differences
from pipeline.options import check_types, option_names
from pipeline.text.cleaning import CleanConfig

OTHERS = "input"
"""Name of the source of the files that only --input names."""
RESERVED = "manifest.json"
"""A file that the folder of the sources never has."""
_NAME = re.compile(r"\w[\w.+-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class NamedInput:
    """A table of --inputs: the options that decide which of its documents are used."""

    name: str
    """Its name in the manifest, the report and the summary."""
    clean: CleanConfig
    """How its texts are cleaned."""
    tokens: int | None = None
    """Largest number of tokens of the documents that are used."""

    def options(self, flags: CleanConfig) -> dict[str, Any]:
        """Return the options that differ from the flags, as manifest.json records them."""
        given = differences(self.clean, flags) | ({} if self.tokens is None else {"tokens": self.tokens})
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    @classmethod
    def of_row(cls, row: Mapping[str, Any], flags: CleanConfig) -> "NamedInput":
        """Return the table of a row of `sources` in manifest.json."""
        options, name = row["options"], f"the source {row['name']} in manifest.json"
        if unknown := sorted(options.keys() - {*option_names(CleanConfig), "tokens"}):
            raise ValueError(
                f"{name} has the option {unknown[0]}: expected options for cleaning; preprocess the texts again"
            )
        tokens = options.get("tokens")
        if tokens is not None and (type(tokens) is not int or tokens < 1):
            raise ValueError(f"{name} has tokens = {tokens!r}: expected a number from 1; preprocess the texts again")
        cleaning = {key: value for key, value in options.items() if key != "tokens"}
        check_types(CleanConfig, cleaning, name)
        cleaning = {key: tuple(value) if isinstance(value, list) else value for key, value in cleaning.items()}
        return cls(name=row["name"], clean=replace(flags, **cleaning), tokens=tokens)


def clean_of(source: Source, flags: CleanConfig, of_inputs: Sequence[CleanConfig]) -> CleanConfig:
    """Return how a file is cleaned. of_inputs: of each table of --inputs."""
    return of_inputs[source.input] if source.input >= 0 else flags


def default_name(pattern: str, taken: Collection[str]) -> str:
    """Return a name for the files of a pattern that is not taken: their folder, or the file without its endings.

    >>> default_name("corpus/web/*.jsonl.gz", ()), default_name("books.txt", ("books",))
    ('web', 'books-2')
    """
    every = re.split(r"[/\\]", pattern.removeprefix("@"))
    parts = [part for part in every if part and not re.search(r"[*?\[]", part)]
    last = parts[-1] if parts else OTHERS
    if every[-1] == last:
        last = last.partition(".")[0] or last
    name = re.sub(r"[^\w.+-]+", "-", last).strip("-.+")[:90] or OTHERS
    known, number, found = {one.casefold() for one in taken}, 2, name
    while found.casefold() in known:
        found, number = f"{name}-{number}", number + 1
    return found


def check_name(name: str) -> None:
    """Raise ValueError unless a name can be the name of a folder."""
    if not _NAME.fullmatch(name) or name.casefold() == RESERVED:
        raise ValueError(
            f"name = {name!r}: expected up to 100 letters, digits and the characters _ . + -, beginning with a letter or "
            f"a digit, and not {RESERVED}, because a folder may get this name"
        )

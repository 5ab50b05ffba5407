"""The flags that say what a job reads: --input, --inputs and --like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import tyro

from bertloom.json_files import read_toml
from jobs.support.config import NamesPreset, checked_table
from pipeline.inputs.corpora import corpus_named
from pipeline.inputs.sources import Input, ReadConfig
from pipeline.options import option_names

Like = Annotated[str | None, NamesPreset(lambda name: corpus_named(name).options)]
"""The type of --like."""


@dataclass(frozen=True, kw_only=True)
class InputTable:
    """A table of the file that --inputs names."""

    path: str | tuple[str, ...]
    like: str | None = None
    read: Annotated[ReadConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadConfig)


def check_inputs(patterns: Sequence[str], inputs: str | None) -> None:
    """Raise ValueError without any input."""
    if not patterns and inputs is None:
        raise ValueError(
            "no input: expected --input with files, folders or globs, or --inputs with a TOML file of them"
        )


def read_inputs(path: str | None, default: ReadConfig) -> list[Input]:
    """Return the inputs that the TOML file of --inputs lists; none without a file.

    Each table `[[input]]` has a path, or a list of them, and options for reading. An option that a table does not set has
    its value from the corpus that the table's `like` names, otherwise from `default`, which holds the flags.
    """
    if path is None:
        return []
    try:
        content = read_toml(path)
    except FileNotFoundError:
        raise ValueError(f"--inputs {path}: there is no such file") from None
    tables = content.get("input")
    if content.keys() != {"input"} or not (isinstance(tables, list) and all(isinstance(one, dict) for one in tables)):
        raise ValueError(
            f"--inputs {path}: expected only tables [[input]], each with a path and options for reading; found the keys "
            f"{', '.join(content) or 'of an empty file'}"
        )
    return [_input(table, default, path, f"input[{i}]") for i, table in enumerate(tables)]


def _input(table: Mapping[str, Any], default: ReadConfig, file: str, name: str) -> Input:
    values = checked_table(InputTable, dict(table), file, f"{name}.")
    paths = values.get("path", ())
    paths = (paths,) if isinstance(paths, str) else paths
    if not paths:
        raise ValueError(f'{file}: {name} has no path. Expected path = "a file, a folder or a glob", or a list of them')
    try:
        like = corpus_named(values["like"]).options if values.get("like") else {}
        of_corpus = {key: value for key, value in like.items() if key in option_names(ReadConfig)}
        read = replace(default, **of_corpus | values.get("read", {}))
    except ValueError as error:
        raise ValueError(f"{file}: {name}: {error}") from error
    return Input(paths, read)

"""The flags that say what a job reads: --input, --inputs and --like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import tyro

from bertloom.json_files import read_toml
from jobs.support.config import NamesPreset, checked_table
from pipeline.checks.gates import SourceGates
from pipeline.inputs.corpora import corpus_named
from pipeline.inputs.documents import TextConfig
from pipeline.inputs.named_inputs import OTHERS, NamedInput, check_name, default_name
from pipeline.inputs.sources import Input
from pipeline.options import option_names
from pipeline.text.cleaning import CleanConfig

Like = Annotated[str | None, NamesPreset(lambda name: corpus_named(name).options)]
"""The type of --like."""


@dataclass(frozen=True, kw_only=True)
class InputTable:
    """A table of the file that --inputs names."""

    path: str | tuple[str, ...]
    name: str | None = None
    like: str | None = None
    tokens: int | None = None
    gates: SourceGates = field(default_factory=SourceGates)
    text: Annotated[TextConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=TextConfig)


@dataclass(frozen=True)
class InputList:
    """What the file of --inputs lists."""

    inputs: tuple[Input, ...] = ()
    """The files of each table, and how they are read."""
    named: tuple[NamedInput, ...] = ()
    """The name and the cleaning of each table. With --input, one more for the files that no table names."""
    gates: dict[str, dict[str, float]] = field(default_factory=dict)
    """Name of a source -> its own limits for the report, of sources that have some."""

    @property
    def cleaning(self) -> tuple[CleanConfig, ...]:
        """How the texts of each table are cleaned."""
        return tuple(one.clean for one in self.named)

    @property
    def ignored(self) -> list[str]:
        """Messages of commands that read all texts, about the budgets of tokens."""
        return [
            f"{one.name}: tokens = {one.tokens:,} is for `bertloom preprocess`. Here all of its texts are read"
            for one in self.named
            if one.tokens is not None
        ]


def check_inputs(patterns: Sequence[str], inputs: str | None) -> None:
    """Raise ValueError without any input."""
    if not patterns and inputs is None:
        raise ValueError(
            "no input: expected --input with files, folders or globs, or --inputs with a TOML file of them"
        )


def read_inputs(path: str | None, default: TextConfig, patterns: Sequence[str] = ()) -> InputList:
    """Return the inputs that the TOML file of --inputs lists; none without a file.

    Each table `[[input]]` has a path, or a list of them, and options for reading and cleaning. An option that a table does
    not set has its value from the corpus that the table's `like` names, otherwise from `default`, which holds the flags.

    Args:
        patterns: of --input.
    """
    if path is None:
        return InputList()
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
    found = [_input(table, default, path, f"input[{i}]") for i, table in enumerate(tables)]
    named = _with_names(found, path)
    if patterns:
        name = default_name(OTHERS, [one.name for one in named])
        named.append(NamedInput(name=name, clean=default.clean))
    gates = {one.name: _gates(table, path, i) for i, (one, table) in enumerate(zip(named, tables, strict=False))}
    return InputList(tuple(one for one, _ in found), tuple(named), {name: own for name, own in gates.items() if own})


def _gates(table: Mapping[str, Any], file: str, number: int) -> dict[str, float]:
    """Return the limits that a table has."""
    try:
        values = checked_table(InputTable, {"gates": table.get("gates", {})}, file, f"input[{number}].")["gates"]
        return SourceGates(**values).given
    except ValueError as error:
        raise ValueError(f"{file}: input[{number}]: {error}") from error


def _with_names(found: Sequence[tuple[Input, NamedInput]], file: str) -> list[NamedInput]:
    """Return the tables, each with a name. ValueError if two tables give the same one."""
    given: dict[str, int] = {}
    for i, (_, one) in enumerate(found):
        if one.name and (first := given.setdefault(one.name.casefold(), i)) != i:
            raise ValueError(
                f"{file}: input[{i}] has the name {one.name!r}, as input[{first}] has: give each table its own name"
            )
    taken, named = {one.name for _, one in found if one.name}, list[NamedInput]()
    for files, one in found:
        name = one.name or default_name(files.patterns[0], taken)
        taken.add(name)
        named.append(replace(one, name=name))
    return named


def _input(table: Mapping[str, Any], default: TextConfig, file: str, name: str) -> tuple[Input, NamedInput]:
    """Return (the files of a table, its name and cleaning). The name is empty if the table gives none."""
    table = dict(table)
    if isinstance(table.get("languages"), str):
        table["languages"] = [table["languages"]]
    values = checked_table(InputTable, table, file, f"{name}.")
    paths = values.get("path", ())
    paths = (paths,) if isinstance(paths, str) else paths
    if not paths:
        raise ValueError(f'{file}: {name} has no path. Expected path = "a file, a folder or a glob", or a list of them')
    try:
        like = corpus_named(values["like"]).options if values.get("like") else {}
        given = values.get("text", {})

        def with_own(config: Any, key: str) -> Any:
            options = {option: value for option, value in like.items() if option in option_names(type(config))}
            options |= given.get(key, {})
            return replace(config, **{name: tuple(v) if isinstance(v, list) else v for name, v in options.items()})

        if values.get("name") is not None:
            check_name(values["name"])
        _check_budget(values.get("tokens"), given.get("clean", {}))
        read, clean = with_own(default.read, "read"), with_own(default.clean, "clean")
    except ValueError as error:
        raise ValueError(f"{file}: {name}: {error}") from error
    return Input(paths, read), NamedInput(name=values.get("name") or "", clean=clean, tokens=values.get("tokens"))


def _check_budget(tokens: int | None, clean: Mapping[str, Any]) -> None:
    if tokens is not None and tokens < 1:
        raise ValueError(f"tokens = {tokens}: expected the largest number of tokens to use, from 1")
    if tokens is not None and "sample" in clean:
        raise ValueError(
            f"sample = {clean['sample']} and tokens = {tokens}: both limit how much of the source is used: give one of them"
        )

"""The list of well-known corpora: where each one is, its licence, and the flags that read it.

The list is data: pipeline/inputs/corpora.toml. To add a corpus, add a table to it and make docs/corpora.md again:
`bertloom corpora --markdown > docs/corpora.md`.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A well-known corpus."""

    name: str
    """What --like calls it."""
    title: str
    link: str
    languages: str
    size: str
    licence: str
    """As its authors state it."""
    shape: str
    """What its files look like."""
    note: str = ""
    """What its users should know."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `preprocess` that read it, other than the defaults."""

    @property
    def flags(self) -> str:
        """The options as flags for the command line."""
        return flags_of(self.options)


def flags_of(options: Mapping[str, Any]) -> str:
    """Return options as flags for the command line."""
    return " ".join(word for name, value in options.items() for word in _flag(name, value))


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    text = str(value)
    is_plain = text.replace("-", "").replace("_", "").replace(".", "").isalnum()
    return [f"--{flag}", text if is_plain else f"'{text}'"]


@cache
def corpora() -> dict[str, Corpus]:
    """Return name -> corpus, in the order of the list."""
    text = (files("pipeline") / "inputs" / "corpora.toml").read_text(encoding="utf-8")
    return {name: Corpus(name=name, **table) for name, table in tomllib.loads(text).items()}


def corpus_named(name: str) -> Corpus:
    """Return a corpus of the list. Raises ValueError for an unknown name."""
    known = corpora()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {near[0]}?" if near else "bertloom corpora lists them"
        raise ValueError(f"--like {name}: no corpus has this name; {advice}")
    return known[name]

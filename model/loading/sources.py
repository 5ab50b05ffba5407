"""The data sets that a run is given, and their shares: `web=PATH:0.7`, `PATH:0.3:epochs=2`.

Nothing here needs torch or opens a file.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from bertloom import storage

MAX_SOURCES = 32
"""Largest number of data sets of a run."""
MAX_NAME = 255
"""Longest name of a data set, in characters: most file systems allow folder names of up to 255 bytes."""
MAX_EPOCHS = 1_000_000
"""Largest limit of a data set."""
SHARE_DIGITS = 6
"""Digits to which a share that a temperature gives is rounded, so that it is the same on every machine."""
FORM = "[NAME=]PATH, [NAME=]PATH:SHARE or [NAME=]PATH:SHARE:epochs=N"

_NAMED = re.compile(r"([^=:/?\s]+)=(.*)", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?(nan|inf|infinity)", re.IGNORECASE)
_MISWRITTEN = re.compile(r"\d*[.,]?\d+ ?%|\d+,\d+")
_HOST = re.compile(r"[a-z][a-z0-9+]*://[^/]*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set as a run is given it."""

    name: str
    path: str
    """A folder or a URL."""
    share: float | None = None
    """Its share of the tokens, in proportion to the shares of the other sources; None if it is not given."""
    epochs: float | None = None
    """Largest number of epochs to read; None without a limit."""

    def described(self) -> str:
        """Return it as on the command line, without the path."""
        share = "" if self.share is None else f":{self.share:.12g}"
        return f"{self.name}{share}" + ("" if self.epochs is None else f":epochs={self.epochs:.12g}")


def data_words(settings: Mapping[str, Any]) -> list[str]:
    """Return the words of --data in a run's config.toml; none if it is damaged."""
    data = settings.get("data")
    words: list[Any] = data if isinstance(data, list) else [data]
    return words if all(isinstance(word, str) for word in words) else []


def sources_of_run(settings: Mapping[str, Any]) -> tuple[Source, ...]:
    """Return the data sets in a run's config.toml, each once, without what decides their shares; none if it is damaged."""
    table = settings.get("phase")
    phases = [phase for phase in table if isinstance(phase, dict)] if isinstance(table, list) else []
    sources: dict[tuple[str, str], Source] = {}
    for phase in phases or [{}]:
        words = data_words(phase) or data_words(settings)
        for source in parse_sources(words, has_shares=False) if words else ():
            sources.setdefault((source.name, source.path), source)
    return tuple(sources.values())


def parse_sources(
    words: Sequence[str], temperature: float | None = None, has_shares: bool = True
) -> tuple[Source, ...]:
    """Return the data sets that these words name.

    >>> [(source.name, source.path, source.share, source.epochs) for source in
    ...  parse_sources(["web=s3://bucket/c4:0.7", "data/books:0.3:epochs=2"])]
    [('web', 's3://bucket/c4', 0.7, None), ('books', 'data/books', 0.3, 2.0)]

    Args:
        temperature: gives the shares instead, from the sizes.
        has_shares: whether to check the shares. Otherwise only names and paths are wanted.

    Raises:
        ValueError: a word is not of this form, a name or a path appears twice, or the shares are not possible.
    """
    if not 1 <= len(words) <= MAX_SOURCES:
        raise ValueError(f"data: {len(words)} data sets are given, expected 1 to {MAX_SOURCES}")
    sources = tuple(map(_parse_source, words))
    for what, values in (
        ("the name", [source.name for source in sources]),
        ("the data set", [_place(source.path) for source in sources]),
    ):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            advice = (
                "give each a name, as in web=PATH" if what == "the name" else "give it once, with the sum of its shares"
            )
            raise ValueError(f"data: {what} {twice[0]!r} is given twice: {advice}")
    if has_shares:
        _check_shares(sources, temperature)
    return sources


def token_shares(sources: Sequence[Source], sizes: Sequence[int], temperature: float | None) -> list[Fraction]:
    """Return the share of the tokens of each source; their sum is 1, or nearly so with a temperature.

    Args:
        sizes: tokens of one copy of each source, for a temperature.
    """
    given = [Fraction(str(source.share if source.share is not None else 1)) for source in sources]
    if temperature is None:
        return [share / sum(given) for share in given]
    # Decimal rounds its powers correctly, so no machine's mathematical library decides.
    powers = [Decimal(size) ** Decimal(str(temperature)) for size in sizes]
    total = sum(powers)
    least = Decimal(10) ** -SHARE_DIGITS
    return [Fraction(max(least, (power / total).quantize(least))) for power in powers]


def _parse_source(word: str) -> Source:
    """Return the data set of a word, which is read from its end because a path may contain colons."""
    match = _NAMED.fullmatch(word)
    name, rest = match.groups() if match else ("", word)
    share = epochs = None
    head, colon, tail = rest.rpartition(":")
    if colon and tail.startswith("epochs="):
        epochs, rest = _number(word, "epochs", tail.removeprefix("epochs=")), head
        if not 0 < epochs <= MAX_EPOCHS:
            raise ValueError(
                f"data: {word!r} has epochs={epochs:g}, expected a number above 0 and at most {MAX_EPOCHS:,}"
            )
        head, colon, tail = rest.rpartition(":")
    if _MISWRITTEN.fullmatch(tail) and colon:
        raise ValueError(f"data: {word!r} has the share {tail}, expected a number with a point, such as 0.6")
    if colon and _NUMBER.fullmatch(tail) and not _HOST.fullmatch(rest):  # the end of http://host:8080 is a port
        share, rest = float(tail), head
        if not 0 <= share < math.inf:
            raise ValueError(f"data: {word!r} has the share {share:g}, expected a number of at least 0")
    if not rest:
        raise ValueError(f"data: {word!r} has no path: expected {FORM}")
    name = name or _name_of(rest)
    if len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(
            f"data: {name[:40]!r} cannot be the name of a data set: expected at most {MAX_NAME} characters that can be "
            f"printed; give one, as in web={rest[:40]}"
        )
    return Source(name=name, path=rest, share=share, epochs=epochs)


def _number(word: str, what: str, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"data: {word!r} has {what}={text}, expected a number, as in PATH:0.3:epochs=2")
    return float(text)


def _name_of(path: str) -> str:
    """Return the name of a data set's folder."""
    return os.path.basename(_place(path).rstrip("/")) or path


def _place(path: str) -> str:
    return os.path.abspath(path) if storage.is_local(path) else path.rstrip("/")


def _check_shares(sources: Sequence[Source], temperature: float | None) -> None:
    """Raise ValueError unless the sources have shares, or a temperature gives them."""
    given = [source for source in sources if source.share is not None]
    if len(sources) == 1:
        if temperature is not None or sources[0].epochs is not None:
            option = "temperature" if temperature is not None else "a limit of epochs"
            raise ValueError(f"data: {option} is for several data sets, and one is given: give more, or leave it out")
    elif temperature is not None:
        if not 0 <= temperature <= 1:
            raise ValueError(f"temperature={temperature:g} must be from 0 (equal shares) to 1 (shares as the sizes)")
        if given:
            raise ValueError(
                f"data: {given[0].name} has the share {given[0].share:g}, and temperature={temperature:g} gives shares, "
                f"too: give one of the two"
            )
    elif not given:
        raise ValueError(
            "data: several data sets without shares: give each a share of the tokens, as in web=PATH:0.7 books=PATH:0.3, "
            "or --temperature 1 for shares as their sizes"
        )
    elif len(given) < len(sources):
        missing = next(source for source in sources if source.share is None)
        raise ValueError(f"data: {given[0].name} has a share and {missing.name} has none: give each one, or none")
    if given and not any(source.share for source in given):
        raise ValueError("data: all shares are 0: give at least one data set a share above 0")

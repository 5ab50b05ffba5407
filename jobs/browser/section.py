"""The interface of a page."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

Endpoint = Callable[[Request], Response]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A page in the navigation, with the pages below it."""

    name: str
    """The path of the page, below its data set or run."""
    title: str
    """English title in the navigation; `chinese/` has the other."""
    of: Literal["d", "r", "rm"]
    """The keys that have it begin with these letters: d for data sets, r for runs, m for folders of models."""
    routes: Sequence[tuple[str, Endpoint]]
    """(path below the data set or run, function). The first has the path `name`."""
    slow: Collection[str] = ()
    """The paths of `routes` that read source files again. They wait for each other, and keep no other page waiting."""

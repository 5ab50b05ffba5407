"""The interface of a page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

Endpoint = Callable[[Request], Response]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A page, with those that belong to it."""

    name: str
    """The path of the page below that of its data set or run."""
    title: str
    """English title in the navigation; `chinese/` has the other."""
    of: Literal["d", "r", "rm"]
    """What it is about: data sets, runs, or runs and folders of models."""
    routes: Sequence[tuple[str, Endpoint]]
    """(path below the data set or run, function). The first has the path `name`."""

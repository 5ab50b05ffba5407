"""Lists that are shown a page at a time. The address has the number of the page; `paging.html.j2` draws the links."""

from __future__ import annotations

from typing import NamedTuple

from starlette.requests import Request

from jobs.browser.pages import number_of


class Paging(NamedTuple):
    """A page of a list."""

    field: str
    """The name of its number in the query of an address."""
    number: int
    """1 for the first page."""
    num_pages: int
    size: int
    """Rows on a page. The last one may have fewer."""
    first: int
    """Index of its first row."""
    past: int
    """Index after its last row."""

    @classmethod
    def of(cls, request: Request, num_rows: int, size: int, field: str = "page") -> Paging:
        """Return the page that an address names, by default the first; ValueError if there is no such page."""
        num_pages = max(1, -(-num_rows // size))
        number = number_of(request, field, 1, 1, num_pages)
        first = (number - 1) * size
        return cls(field, number, num_pages, size, first, min(num_rows, first + size))

    def number_of_row(self, index: int) -> int:
        """Return the number of the page that has a row."""
        return index // self.size + 1

"""The list of examples."""

from starlette.requests import Request
from starlette.responses import Response

from jobs.browser.data_set_pages.example import EXAMPLE_ROUTES
from jobs.browser.pages import data_set_of, number_of, render
from jobs.browser.section import Section

PAGE = 20
"""Examples on one page."""


def list_examples(request: Request) -> Response:
    data_set = data_set_of(request)
    first = number_of(request, "first", 0, 0, data_set.num_examples - 1)
    return render(request, "examples.html.j2", first=first)


EXAMPLES = Section(name="examples", title="Examples", of="d", routes=[("examples", list_examples), *EXAMPLE_ROUTES])

"""The curves of all runs, drawn in the browser while they train, and a table of their latest values."""

import re
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jobs.browser.curve_points import SPLITS
from jobs.browser.pages import cut, number_of, render, run_of
from jobs.browser.section import Section
from jobs.support.curves import EXACT, PANELS, SOURCE_PANELS, all_sources

SMOOTHING = 20
"""Lines in a running mean, as in `plot`, unless the page asks for another number."""
NUM_COLOURS = 8
MAX_NAME = 60
"""Characters of the name of a source that the table shows."""


class Row(NamedTuple):
    """A line of the table of latest values."""

    title: str
    """Title of the quantity."""
    source: str
    """Name of the source; empty if the quantity is not of one."""
    values: list[str]
    """In training and evaluation of each run."""


def show_curves(request: Request) -> Response:
    return render(
        request,
        "curves.html.j2",
        panels=PANELS,
        source_panels=SOURCE_PANELS,
        exact=EXACT,
        smoothing=SMOOTHING,
        num_colours=NUM_COLOURS,
        rows=latest_rows(request),
    )


def show_latest(request: Request) -> Response:
    """Return the table of latest values alone, which the page asks for again and again."""
    return render(request, "latest_values.html.j2", rows=latest_rows(request))


def send_points(request: Request) -> Response:
    """Return the points of one run that the page does not have."""
    points = run_of(request).points
    version = request.query_params.get("version", "")
    if not re.fullmatch(r"[0-9.]{0,80}", version):
        raise ValueError("version: expected the one of the last answer")
    firsts = {split: number_of(request, split, 0, 0, 1 << 31) for split in SPLITS}
    more = points.read_on()
    return JSONResponse({"more": more, **points.since(version, firsts)})


def latest_rows(request: Request) -> list[Row]:
    """Return the lines of the table."""
    latest = [run.points.latest() for run in request.app.state.targets.runs.values()]
    columns = [values[split] for values in latest for split in SPLITS]
    known = [key for column in columns for key in column]
    keys = [("step", "", "step"), *((title, "", key) for key, title in PANELS)]
    for table, title in SOURCE_PANELS:
        keys += [(title, source, f"{table}/{source}") for source in all_sources(known)]
    return [
        Row(title, cut(source, MAX_NAME), [shown(column.get(key)) for column in columns])
        for title, source, key in keys
        if key == "step" or key in known
    ]


def shown(value: float | None) -> str:
    """Return a number as the table shows it.

    >>> shown(12345.6), shown(0.123456), shown(1e-4), shown(7), shown(None)
    ('12,346', '0.1235', '0.0001', '7', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 or isinstance(value, int) else f"{value:.4g}"


CURVES = Section(
    name="curves",
    title="Curves",
    of="r",
    routes=[("curves", show_curves), ("curves/points", send_points), ("curves/latest", show_latest)],
)

"""What was left out of a data set: rejects by reason and records that were passed over. And what cleaning changed."""

from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.inputs import inputs_of, largest, unit_of
from jobs.browser.pages import data_set_of, render
from jobs.browser.paging import Paging
from jobs.browser.per_data_set import PerDataSet
from jobs.browser.reject_log import PAGE, RejectLog
from jobs.browser.section import Section
from jobs.browser.sliced_work import SLICE_SECONDS

_logs = PerDataSet(lambda data_set: RejectLog(data_set.location, data_set.manifest))


def show_rejects(request: Request) -> Response:
    """Show the numbers of all reasons or, with `reason`, a page of the rejects of one."""
    data_set = data_set_of(request)
    if "reason" in request.query_params:
        return render(request, "rejects_of_reason.html.j2", **_page(request, data_set))
    counters, inputs = data_set.manifest["counters"], data_set.manifest["inputs"]
    shown, others, of_others = largest(np.array([row["rejected"] for row in inputs], np.int64))
    return render(
        request,
        "rejects.html.j2",
        counters=counters,
        rejected=[(reason, number, _advice(data_set, reason)) for reason, number in _by_number(counters["rejected"])],
        passed_over=_by_number(counters["passed_over"]),
        cleaned=_by_number(counters["cleaned"]),
        files=[inputs[i] for i in shown],
        other_files=others,
        rejects_of_others=of_others,
        num_damaged=sum("damaged" in row for row in inputs),
    )


def show_page(request: Request) -> Response:
    """Show the part of a page that changes while the log is searched."""
    return render(request, "rejects_page.html.j2", **_page(request, data_set_of(request)))


def _page(request: Request, data_set: BrowsedDataSet) -> dict[str, Any]:
    reason = request.query_params.get("reason", "")
    count = data_set.manifest["counters"]["rejected"].get(reason, 0)
    if not count:
        raise ValueError(f"reason={reason[:100]}: this data set has no rejects with this reason")
    paging = Paging.of(request, count, PAGE)
    page = _logs(data_set).page(reason, paging.number - 1, SLICE_SECONDS)
    inputs = inputs_of(data_set)
    return {
        "page": page,
        "rejects": [reject | {"unit": unit_of(inputs, reject["source"])} for reject in page.rejects],
        "paging": paging,
        "count": count,
        "num_lines": data_set.manifest["counters"]["documents_rejected"],
        "advice": _advice(data_set, reason),
    }


def _by_number(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _advice(data_set: BrowsedDataSet, reason: str) -> str:
    from pipeline.inputs.rejects import advice

    has_other_ways = any("reading" in row for row in data_set.manifest["inputs"])
    return advice(reason, None if has_other_ways else data_set.job.tokenize.text.read)


REJECTS = Section(
    name="rejects", title="Rejects", of="d", routes=[("rejects", show_rejects), ("rejects/page", show_page)]
)

"""The duplicates of a data set: equal documents by input file, near duplicates, and the differences of their texts."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.equal_documents import EqualDocuments
from jobs.browser.inputs import inputs_of, largest, unit_of
from jobs.browser.near_duplicates import DuplicateTexts, NearDuplicates, near_of_others
from jobs.browser.pages import data_set_of, render
from jobs.browser.paging import Paging
from jobs.browser.per_data_set import PerDataSet
from jobs.browser.query import document_id
from jobs.browser.section import Section
from jobs.browser.sliced_work import SLICE_SECONDS
from jobs.browser.text_comparison import SHOWN_DIFFERENCES
from pipeline.text.minhash import SHINGLE_TOKENS

PAGE = 20
"""Near duplicates on a page. Their texts may have 4 MB each."""

texts_of = PerDataSet(DuplicateTexts)
of_others = PerDataSet(lambda data_set: NearDuplicates(data_set, of_others=True))
equal_of = PerDataSet(EqualDocuments)


def show_duplicates(request: Request) -> Response:
    """Show how many there are, and a page of the near ones."""
    data_set = data_set_of(request)
    counters = data_set.manifest["counters"]
    near = counters.get("documents_near_duplicate", 0)
    paging = Paging.of(request, near, PAGE)
    rows = texts_of(data_set).table.rows(paging.first, PAGE) if near else []
    resembles_others = near_of_others(counters)
    paging_of_others = Paging.of(request, resembles_others, PAGE, "others")
    rows_of_others = of_others(data_set).rows(paging_of_others.first, PAGE) if resembles_others else []
    beginnings: dict[int, str] = {}
    errors: list[str] = []
    shows_texts = request.query_params.get("texts") == "1"
    if shows_texts:
        beginnings, errors = texts_of(data_set).beginnings(rows)
    return render(
        request,
        "duplicates.html.j2",
        documents_in=counters["documents_in"],
        equal=counters["documents_duplicate"] - near - resembles_others,
        near=near,
        others=counters.get("duplicates_of", {}),
        rows_of_others=[_shown(data_set, row) | {"data_set": row["data_set"]} for row in rows_of_others],
        paging_of_others=paging_of_others,
        similarity=data_set.manifest["configuration"]["near_duplicates"],
        shingle_tokens=SHINGLE_TOKENS,
        rows=[_shown(data_set, row) | {"beginning": beginnings.get(row["id"])} for row in rows],
        paging=paging,
        shows_texts=shows_texts,
        errors=errors,
    )


def show_equal(request: Request) -> Response:
    """Show the part of the page with the equal documents of each input file, which are counted in slices."""
    data_set = data_set_of(request)
    counts = equal_of(data_set)
    counts.go_on(SLICE_SECONDS)
    shown, others, of_others = largest(counts.numbers) if counts.is_done else ([], 0, 0)
    files = [
        {"name": counts.inputs[i]["name"], "read": counts.inputs[i]["documents"], "equal": int(counts.numbers[i])}
        | {"near": int(counts.near[i]), "kept": int(counts.kept[i]), "over": int(counts.over[i])}
        for i in shown
    ]
    return render(request, "equal_documents.html.j2", counts=counts, files=files, others=others, of_others=of_others)


def show_pair(request: Request) -> Response:
    """Show a near duplicate and the document that it resembles; with `part`, also their texts."""
    return render(request, "duplicate.html.j2", **_pair(request, "part" in request.query_params))


def show_texts(request: Request) -> Response:
    """Show the part of the page with the texts, which may take long to read."""
    return render(request, "duplicate_texts.html.j2", **_pair(request, True))


def _pair(request: Request, with_texts: bool) -> dict[str, Any]:
    data_set = data_set_of(request)
    text = request.path_params["document"]
    texts = texts_of(data_set)
    row = texts.table.row(document_id("document", text))
    if row is None:
        raise HTTPException(404, f"document {text} was not left out as a near duplicate")
    other, is_left_out = texts.other(row)
    found = {"row": _shown(data_set, row), "other": _shown(data_set, other), "other_is_left_out": is_left_out}
    found |= {"comparison": None, "error": ""}
    if not with_texts:
        return found
    try:
        comparison = texts.comparison(row)
    except ValueError as error:
        return found | {"error": str(error)}
    paging = Paging.of(request, len(comparison.differences), SHOWN_DIFFERENCES, "part")
    return found | {"comparison": comparison, "paging": paging, "rows": list(comparison.rows(paging.first))}


def _shown(data_set: BrowsedDataSet, row: dict[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in ("source", "position", "piece")}
    shown |= {"id": f"{row['id']:016x}", "unit": unit_of(inputs_of(data_set), row["source"])}
    if "resembles" in row:
        shown |= {"resembles": f"{row['resembles']:016x}", "similarity": f"{row['similarity']:.1%}"}
    return shown


DUPLICATES = Section(
    name="duplicates",
    title="Duplicates",
    of="d",
    routes=[
        ("duplicates", show_duplicates),
        ("duplicates/equal", show_equal),
        ("duplicates/{document}", show_pair),
        ("duplicates/{document}/texts", show_texts),
    ],
    slow=["duplicates/{document}/texts"],
)

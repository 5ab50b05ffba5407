"""A document: where it is from, its examples, and its text, in which the tokens that are in no example are marked."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from bertloom import storage
from bertloom.arrays import I64, Bools
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.document_use import DocumentUse, use_of
from jobs.browser.inputs import inputs_of, unit_of
from jobs.browser.pages import data_set_of, render
from jobs.browser.paging import Paging
from jobs.browser.query import document_id
from jobs.browser.section import Section
from jobs.browser.sliced_work import SLICE_SECONDS

FILES = 100
"""Input files on one page."""
TEXT_TOKENS = 2000
"""Tokens of the text on one page."""
TEXT_CHARACTERS = 40_000
"""Characters of the text on one page: a single token may be a megabyte."""


class TextPart(NamedTuple):
    """A part of a document's text."""

    text: str
    is_unused: bool
    """Whether its tokens are in no example."""


def list_files(request: Request) -> Response:
    """List the input files; with `id`, go to a document."""
    data_set = data_set_of(request)
    wanted = request.query_params.get("id", "").strip().lower()
    if wanted:
        document = document_id("id", wanted)
        root, key = request.app.state.pages.root, request.path_params["key"]
        return RedirectResponse(f"{root}/{key}/documents/{document:016x}")
    files = data_set.manifest["inputs"]
    paging = Paging.of(request, len(files), FILES)
    return render(
        request, "documents.html.j2", files=files[paging.first : paging.past], paging=paging, total=len(files)
    )


def show_document(request: Request) -> Response:
    """Show a document. A data set in a store is searched for its examples only with `search`."""
    data_set, document, row = _document_of(request)
    use = use_of(data_set, document)
    is_wanted = storage.is_local(data_set.location) or "search" in request.query_params
    if is_wanted:
        use.go_on(SLICE_SECONDS)
    inputs = inputs_of(data_set)
    return render(
        request,
        "document.html.j2",
        id=f"{document:016x}",
        row=row,
        path=_path(row["source"], inputs),
        unit=unit_of(inputs, row["source"]),
        bucket=data_set.bucket_of(document),
        **_use_values(use, is_wanted),
    )


def show_use(request: Request) -> Response:
    """Go on with the search, and show the part of the page that changes."""
    data_set, document, _ = _document_of(request)
    use = use_of(data_set, document)
    use.go_on(SLICE_SECONDS)
    return render(request, "document_use.html.j2", id=f"{document:016x}", **_use_values(use, True))


def show_text(request: Request) -> Response:
    """Show the part of the page with a page of the text."""
    data_set, document, row = _document_of(request)
    paging = Paging.of(request, row["num_tokens"], TEXT_TOKENS)
    use = use_of(data_set, document)
    if storage.is_local(data_set.location):
        use.go_on(float("inf"))
    return render(
        request,
        "document_text.html.j2",
        id=f"{document:016x}",
        row=row,
        use=use,
        paging=paging,
        **_text_values(data_set, document, row, use, paging),
    )


def _document_of(request: Request) -> tuple[BrowsedDataSet, int, dict[str, Any]]:
    """Return (data set, id, row of documents/) of the document in the path; 404 if the data set does not have it."""
    data_set, document = data_set_of(request), document_id("document", request.path_params["id"])
    row = data_set.document(document)
    if row is None:
        raise HTTPException(404, f"the data set has no document {document:016x}: documents/ does not list it")
    return data_set, document, row


def _path(file: str, inputs: Mapping[str, dict[str, Any]]) -> str:
    """Return where a file was when it was read; its name if the manifest does not list it."""
    from pipeline.inputs.sources import source_of

    name = source_of(file, inputs)
    return file if name is None else str(inputs[name]["path"]) + file[len(name) :]


def _use_values(use: DocumentUse, is_wanted: bool) -> dict[str, Any]:
    groups = sorted((length, copy, group) for (length, copy), group in use.groups.items() if group.examples)
    return {"use": use, "groups": groups, "goes_on": is_wanted and not use.is_done}


def _text_values(
    data_set: BrowsedDataSet, document: int, row: dict[str, Any], use: DocumentUse, paging: Paging
) -> dict[str, Any]:
    """Return the parts of a page of the text, and the number of the next page that has an unused token."""
    bucket = data_set.bucket_of(document)
    assert bucket is not None
    try:
        with data_set.explainer() as explainer:
            of_bucket = explainer.bucket(*bucket)
            place = of_bucket.place(document)
            assert place is not None
            source = explainer.text_of(of_bucket, place)
        if len(source.offsets) != row["num_tokens"]:
            raise ValueError(
                f"its text has {len(source.offsets)} tokens now, but documents/ has {row['num_tokens']}: check whether "
                f"another version made the data set"
            )
    except ValueError as error:
        return {"not_read": str(error)}
    used = use.used if use.is_done else np.ones(row["num_tokens"], bool)
    unused = np.flatnonzero(~used[paging.past :]) + paging.past
    parts, num_left = text_parts(source.text, source.offsets, used, paging.first, paging.past)
    return {
        "not_read": None,
        "parts": parts,
        "num_left": num_left,
        "num_unused": int((~used[paging.first : paging.past]).sum()),
        "next_unused": paging.number_of_row(int(unused[0])) if len(unused) else None,
    }


def text_parts(text: str, offsets: I64, used: Bools, first: int, end: int) -> tuple[list[TextPart], int]:
    """Return (the text of some tokens in parts that are used or unused, number of characters left out at the end).

    offsets: (first character, end) of each token. used: (tokens,).
    """
    begins, ends = (np.maximum.accumulate(column) for column in (offsets[:, 0], offsets[:, 1]))
    at = int(begins[first]) if first else 0
    last = int(begins[end]) if end < len(offsets) else len(text)
    stop = min(last, at + TEXT_CHARACTERS)
    borders = np.flatnonzero(np.diff(used[first:end].astype(np.int8))) + first + 1
    parts: list[TextPart] = []
    for i, j in zip([first, *borders.tolist()], [*borders.tolist(), end]):
        if not used[i]:
            begin, after = min(max(at, int(begins[i])), stop), min(int(ends[j - 1]), stop)
            parts += [TextPart(text[at:begin], False), TextPart(text[begin:after], True)]
            at = max(begin, after)
    parts.append(TextPart(text[at:stop], False))
    return [part for part in parts if part.text], last - stop


DOCUMENTS = Section(
    name="documents",
    title="Documents",
    of="d",
    routes=[
        ("documents", list_files),
        ("documents/{id}", show_document),
        ("documents/{id}/use", show_use),
        ("documents/{id}/text", show_text),
    ],
    slow=["documents/{id}/text"],
)

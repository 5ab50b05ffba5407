"""One example: its text, its tokens, and where it comes from."""

import re
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.pages import cut, data_set_of, render
from jobs.browser.paging import Paging
from jobs.browser.section import Endpoint
from jobs.support.example_text import example_text
from jobs.support.explanation import records_text
from pipeline.examples.decoding import mask_kind, true_ids

TOKENS = 512
"""Tokens in the table of one page."""
AROUND = 1500
"""Characters shown before and after a segment."""
SEGMENT = 20_000
"""Characters shown of a segment: a single token may be a megabyte of text."""
VALUE = 300
"""Characters shown of a value that differs."""


class Token(NamedTuple):
    """A row of the table of tokens."""

    position: int
    segment: str
    """A, B, or "" for a special token."""
    there: tuple[str, int]
    """(Name, id) of what the model reads."""
    truth: tuple[str, int]
    """(Name, id) of what the text has."""
    kind: str
    """See `Span`."""


def show_example(request: Request) -> Response:
    """Show an example; with `token_ids`, also this page of the table of its tokens."""
    data_set, index = data_set_of(request), _index_of(request)
    row, place = data_set.example(index), data_set.locate(index)
    size, b = len(row["input_ids"]), row["segment_b_start"]
    paging = Paging.of(request, size, TOKENS, "token_ids") if "token_ids" in request.query_params else None
    masks = zip(row["masked_lm_positions"], row["masked_lm_ids"], strict=True)
    kinds = [mask_kind(row["input_ids"][at], true, data_set.vocabulary) for at, true in masks]
    return render(
        request,
        "example.html.j2",
        index=index,
        row=row,
        size=size,
        shard=data_set.rows[place.shard],
        place=place,
        label=data_set.label_of(row),
        text=example_text(row, data_set.vocabulary),
        segments=[
            ("A", f"{row['document_a']:016x}", 1, b - 2, row["token_a"]),
            *([("B", f"{row['document_b']:016x}", b, size - 2, row["token_b"])] if size > b else []),
        ],
        num_masks={kind: kinds.count(kind) for kind in ("mask", "random", "kept")},
        paging=paging,
        tokens=tokens_of(row, data_set, range(paging.first, paging.past)) if paging else [],
    )


def explain_example(request: Request) -> Response:
    """Show the part of the page with what `bertloom explain` finds."""
    data_set, index = data_set_of(request), _index_of(request)
    with data_set.explainer() as explainer:
        found = explainer.explain(index)
    segments = [(name.upper(), _shown(found[name])) for name in ("a", "b") if name in found]
    differ = {
        name: {key: cut(str(value), VALUE) for key, value in both.items()}
        for name, both in found.get("differ", {}).items()
    }
    return render(request, "explanation.html.j2", index=index, found=found, explained=segments, differ=differ)


def _index_of(request: Request) -> int:
    """Return the number of the example in the path; 404 if there is none."""
    text, last = request.path_params["index"], data_set_of(request).num_examples - 1
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) > last:
        raise HTTPException(404, f"the example {text:.40} does not exist: expected 0 to {last:,}")
    return int(text)


def tokens_of(row: dict[str, Any], data_set: BrowsedDataSet, positions: range) -> list[Token]:
    """Return rows of the table of tokens."""
    from pipeline.text.readable import BLANK

    vocabulary, ids, b = data_set.vocabulary, row["input_ids"], row["segment_b_start"]
    truth, masked = true_ids(row), {*row["masked_lm_positions"]}

    def named(number: int) -> tuple[str, int]:
        return re.sub(r"\s", BLANK, vocabulary.readable.names[number]), number

    found = []
    for at in positions:
        segment = "" if at in (0, b - 1, len(ids) - 1) else "A" if at < b else "B"
        kind = mask_kind(ids[at], truth[at], vocabulary) if at in masked else ""
        found.append(Token(at, segment, named(ids[at]), named(truth[at]), kind))
    return found


def _shown(segment: dict[str, Any]) -> dict[str, Any]:
    """Return what `explain` found of a segment, with long texts cut."""
    if "text" not in segment:
        return segment | ({"records": records_text(segment)} if "source" in segment else {})
    before, text, after = (segment[name] for name in ("before", "text", "after"))
    return segment | {
        "records": records_text(segment),
        "before": before[-AROUND:],
        "text": text[:SEGMENT],
        "after": after[:AROUND] if len(text) <= SEGMENT else "",
        "is_cut_before": len(before) > AROUND,
        "is_cut_after": len(text) > SEGMENT or len(after) > AROUND,
    }


EXAMPLE_ROUTES: list[tuple[str, Endpoint]] = [
    ("examples/{index}", show_example),
    ("examples/{index}/explain", explain_example),
]
"""Pages of the section of examples."""

"""The list of examples: a page at a time, by filters.

    d0/examples?FILTERS              the first page
    d0/examples?FILTERS&after=N      the page after example N
    d0/examples?FILTERS&before=N     the page before example N
    d0/examples/more?…               the next part of a search, for htmx

A request searches for SLICE_SECONDS at most, and has what was found. Where the page is not full, or the matches of a local
data set are not all counted, the answer asks for the next part. Counting the matches of a data set at a URL would fetch all
of it, so it waits for a click.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from bertloom import storage
from jobs.browser.data_set import BrowsedDataSet, DamagedFile
from jobs.browser.data_set_pages.example import EXAMPLE_ROUTES
from jobs.browser.filters import Filters
from jobs.browser.pages import data_set_of, number_of, render
from jobs.browser.search import Found, Search, search_of
from jobs.browser.section import Section
from jobs.browser.sliced_work import SLICE_SECONDS
from jobs.browser.words import Words
from jobs.support.example_text import ExampleText, example_text
from pipeline.examples.decoding import true_ids
from pipeline.vocabulary import Vocabulary

PAGE = 20
"""Examples on one page."""
SHOWN_TOKENS = 60
"""Tokens of a segment in the list."""
SHOWN_PLACES = 3
"""Places of the words of a search in one example."""
CONTEXT_TOKENS = 12
"""Tokens shown before and after such a place."""
SHOWN_SOURCES = 200
"""Names of inputs that the form suggests."""
SHOWN_FAULTS = 5
IN_FORM = ("split", "length", "copy", "label", "source", "document", "tokens", "word")
"""The filters with a field. The others come from links of charts; the page shows each with a link that removes it."""


class Shown(NamedTuple):
    """An example in the list."""

    number: int
    shard: dict[str, Any]
    """Row of shards.parquet."""
    label: str
    num_tokens: int
    text: ExampleText
    places: list[Snippet]


class Snippet(NamedTuple):
    """A place of the words of a search, with the text around it."""

    before: str
    words: str
    after: str


class Fault(NamedTuple):
    """Examples that cannot be shown."""

    first: int
    last: int
    message: str


def list_examples(request: Request) -> Response:
    """Show a page of the list."""
    data_set, filters = data_set_of(request), Filters.of(request.query_params)
    past = data_set.num_examples
    after, before = number_of(request, "after", -1, -1, past - 1), number_of(request, "before", past, 0, past)
    is_last = "before" in request.query_params
    if request.query_params.get("number"):
        after = number_of(request, "number", 0, 0, past - 1) - 1
    if any(not value or name == "number" for name, value in request.query_params.items()):
        query = filters.query(before=before) if is_last else filters.query(after=after if after >= 0 else None)
        return RedirectResponse(f"{request.url.path}?{query}")  # without the empty fields of the form
    search, until = search_of(data_set, filters), time.monotonic() + SLICE_SECONDS
    found = search.before(before, PAGE, until) if is_last else search.after(after + 1, PAGE, until)
    return _answer(request, "examples.html.j2", search, found, len(found.examples))


def more_examples(request: Request) -> Response:
    """Search on from where the last answer stopped."""
    data_set, filters = data_set_of(request), Filters.of(request.query_params)
    at, num_shown = number_of(request, "at", -1, 0, data_set.num_examples), number_of(request, "shown", 0, 0, PAGE)
    search, until = search_of(data_set, filters), time.monotonic() + SLICE_SECONDS
    found = Found([], at if at >= 0 else None)
    if at >= 0 and num_shown < PAGE:
        find = search.before if "before" in request.query_params else search.after
        found = find(at, PAGE - num_shown, until)
    else:
        search.count(until)
    return _answer(request, "examples_more.html.j2", search, found, num_shown + len(found.examples))


def _answer(request: Request, template: str, search: Search, found: Found, num_shown: int) -> Response:
    """Return a page, or the next part of it. num_shown: examples of the page so far."""
    data_set, words, filters = search.data_set, search.conditions.words, search.conditions.filters
    past = data_set.num_examples
    is_last, is_full = "before" in request.query_params, num_shown == PAGE
    begin, end = number_of(request, "after", -1, -1, past - 1) + 1, number_of(request, "before", past, 0, past)
    place = {"before": end} if is_last else {"after": begin - 1}
    if is_full:  # the search has found the other edge of the page
        assert found.at is not None
        begin, end = (found.at, end) if is_last else (begin, found.at)
    is_searching = found.at is not None and not is_full
    return render(
        request,
        template,
        data_set=data_set,
        search=search,
        filters=filters,
        texts=filters.texts(),
        others=[name for name in filters.texts() if name not in IN_FORM],
        choices=_choices(data_set),
        words=words,
        shown=_shown(data_set, found.examples, words),
        num_shown=num_shown,
        is_last=is_last,
        is_searching=is_searching,
        is_counting=not is_searching and not search.is_complete,
        counts_itself=storage.is_local(data_set.location) or "counting" in request.query_params,
        go_on=filters.query(**place, at=found.at, shown=num_shown),
        stopped=filters.query(**({"before": found.at} if is_last else {"after": (found.at or 0) - 1})),
        faults=[message for message in dict.fromkeys(search.damaged.values()) if message][:SHOWN_FAULTS],
        previous=begin if (is_full or not is_last) and search.may_match(0, begin) else None,
        next=end - 1 if (is_full or is_last) and search.may_match(end, past) else None,
    )


def _choices(data_set: BrowsedDataSet) -> dict[str, list[Any]]:
    """Return the values that the data set has for each filter of the form."""
    rows = data_set.rows
    return {
        "split": list(dict.fromkeys(row["split"] for row in rows)),
        "length": sorted({row["max_seq_length"] for row in rows}),
        "copy": sorted({row["copy"] for row in rows}),
        "label": sorted(data_set.labels),
        "source": [row["name"] for row in data_set.manifest["inputs"][:SHOWN_SOURCES]],
    }


def _shown(data_set: BrowsedDataSet, examples: Sequence[int], words: Words | None) -> list[Shown | Fault]:
    """Return examples as the list shows them. A member that cannot be read is shown once."""
    shown: list[Shown | Fault] = []
    for index in examples:
        place = data_set.locate(index)
        last = shown[-1] if shown else None
        if isinstance(last, Fault) and data_set.locate(last.first)[:2] == place[:2]:
            shown[-1] = last._replace(last=index)
            continue
        try:
            batch = data_set.member(place.shard, place.member)
        except DamagedFile as error:
            shown.append(Fault(index, index, str(error)))
            continue
        row = batch.slice(place.row, 1).to_pylist()[0]
        shown.append(
            Shown(
                number=index,
                shard=data_set.rows[place.shard],
                label=data_set.label_of(row),
                num_tokens=len(row["input_ids"]),
                text=example_text(row, data_set.vocabulary, SHOWN_TOKENS),
                places=snippets(row, words, data_set.vocabulary) if words else [],
            )
        )
    return shown


def snippets(row: dict[str, Any], words: Words, vocabulary: Vocabulary) -> list[Snippet]:
    """Return the first places of words in an example, with the true text around them."""
    ids, b, end = true_ids(row), row["segment_b_start"], len(row["input_ids"])
    places = sorted((int(at), size) for first, size in words.places(np.array(ids)) for at in first)
    found = []
    for at, size in places[:SHOWN_PLACES]:
        begin, past = (b, end - 1) if at >= b else (1, b - 1)
        start, stop = max(begin, at - CONTEXT_TOKENS), min(past, at + size + CONTEXT_TOKENS)
        while start < at and vocabulary.continuation[ids[start]]:  # not from the middle of a word
            start += 1
        pieces = vocabulary.readable.pieces(ids[start:stop], [False] * (stop - start))
        before, here, after = (
            "".join(map("".join, part))
            for part in (pieces[: at - start], pieces[at - start : at - start + size], pieces[at - start + size :])
        )
        bare = here.lstrip()
        found.append(Snippet(before + here[: len(here) - len(bare)], bare, after))
    return found


EXAMPLES = Section(
    name="examples",
    title="Examples",
    of="d",
    routes=[("examples", list_examples), ("examples/more", more_examples), *EXAMPLE_ROUTES],
    slow=["examples/{index}/explain"],
)

"""Charts of a data set: its examples and tokens by split, length, label and source, its masks, and its unknown words.

The numbers of the manifest and of shards.parquet are exact. The others are counted over the sample of the report.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from jobs.browser.bars import Bar, Columns, Rows
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.filters import Filters
from jobs.browser.inputs import largest
from jobs.browser.lru import LruCache
from jobs.browser.pages import data_set_of, number_of, render, translate
from jobs.browser.per_data_set import PerDataSet
from jobs.browser.sample_counts import SampleCounts
from jobs.browser.section import Section
from jobs.browser.sliced_work import SLICE_SECONDS
from jobs.support.figures import percent

MOST_TOKENS = 30
"""Masked tokens that are shown."""
KEPT_LENGTHS = 8
"""Lengths whose counts are kept."""

Say = Callable[..., str]
"""Returns a text in the language of the page."""


_counts = PerDataSet(lambda _: LruCache[SampleCounts](KEPT_LENGTHS))


def counts_of(data_set: BrowsedDataSet, length: int) -> SampleCounts:
    """Return the counts over the sample of a length, as far as earlier requests have come."""
    return _counts(data_set).get(length, lambda: SampleCounts(data_set, length))


def show_charts(request: Request) -> Response:
    """Show the exact charts. The page then asks for the charts of the sample."""
    data_set = data_set_of(request)
    length = _length(request, data_set)
    charts = [_examples(request, data_set), _labels(request, data_set), *_named_sources(request, data_set)]
    charts.append(_tokens_by_source(request, data_set))
    return render(request, "charts.html.j2", exact=charts, lengths=_all_lengths(data_set), length=length)


def show_sample(request: Request) -> Response:
    """Show the part of the page with the charts of the sample, or how far the counting is."""
    data_set = data_set_of(request)
    length = _length(request, data_set)
    counts = counts_of(data_set, length)
    counts.go_on(SLICE_SECONDS)
    say = partial(translate, request)
    columns = [*_lengths(request, counts, say), _positions(request, counts, say)] if counts.is_done else []
    rows = [_masked(request, counts, say), *_unknown(request, counts, say)] if counts.is_done else []
    total = sum(row["examples"] for row in data_set.rows if row["max_seq_length"] == length)
    return render(
        request, "charts_sample.html.j2", counts=counts, columns=columns, rows=rows, length=length, total=total
    )


def _all_lengths(data_set: BrowsedDataSet) -> list[int]:
    lengths: list[int] = data_set.manifest["configuration"]["max_seq_length"]
    return lengths


def _length(request: Request, data_set: BrowsedDataSet) -> int:
    lengths = _all_lengths(data_set)
    length = number_of(request, "length", lengths[0], 1, 1 << 16)
    if length not in lengths:
        raise ValueError(
            f"length={length}: expected one of the lengths of the data set, {', '.join(map(str, lengths))}"
        )
    return length


def _link(request: Request, **filters: Any) -> str:
    """Return the address of the examples for which these filters hold."""
    root = request.app.state.pages.root
    return f"{root}/{request.path_params['key']}/examples?{Filters().query(**filters)}"


# ---- exact


def _examples(request: Request, data_set: BrowsedDataSet) -> Rows:
    say = partial(translate, request)
    kinds: dict[tuple[int, str], list[int]] = {}
    for row in data_set.rows:
        found = kinds.setdefault((row["max_seq_length"], row["split"]), [0, 0])
        found[0] += row["examples"]
        found[1] += row["tokens"]
    bars = [
        Bar(
            say("length {length}, {split}", length=length, split=say(split)),
            examples,
            f"{examples:,}",
            _link(request, split=split, length=length),
            (f"{tokens:,}", percent(tokens / (examples * length))),
        )
        for (length, split), (examples, tokens) in sorted(kinds.items())
    ]
    heads = (say("Examples"), say("Number"), say("Tokens"), say("Filled"))
    return Rows("examples", say("Examples by length and split"), bars, heads)


def _labels(request: Request, data_set: BrowsedDataSet) -> Rows:
    say = partial(translate, request)
    pairs, bars = data_set.manifest["counters"]["pairs"], []
    for length in _all_lengths(data_set):
        examples, random = (pairs.get(f"{name}/{length}", 0) for name in ("pairs", "pairs-random"))
        for label, name in data_set.labels.items():
            number = random if label == 1 else examples - random
            text = say("length {length}, {label}", length=length, label=say(name))
            link = _link(request, length=length, label=label)
            bars.append(Bar(text, number, f"{number:,}", link, (percent(number / max(1, examples)),)))
    heads = (say("Examples"), say("Number"), say("Share"))
    return Rows("labels", say("Examples by length and label"), bars, heads)


def _named_sources(request: Request, data_set: BrowsedDataSet) -> list[Rows]:
    """Return the chart of the sources that --inputs lists, if there are some."""
    say = partial(translate, request)
    sources = [(source["name"], source["counters"]) for source in data_set.manifest.get("sources", [])]
    total = max(1, sum(counters["tokens"] for _, counters in sources))
    names = ("documents_used", "documents_rejected", "documents_duplicate")
    bars = [
        Bar(
            name,
            counters["tokens"],
            f"{counters['tokens']:,}",
            None,
            (percent(counters["tokens"] / total), *(f"{counters[each]:,}" for each in names)),
        )
        for name, counters in sources
    ]
    heads = (say("Source"), say("Tokens"), say("Share"), say("Documents used"), say("Rejected"), say("Duplicates"))
    title = say("Tokens by source of --inputs")
    return [Rows("named-sources", title, bars, heads, say("Without rejects and duplicates."))] if bars else []


def _tokens_by_source(request: Request, data_set: BrowsedDataSet) -> Rows:
    say = partial(translate, request)
    inputs = data_set.manifest["inputs"]
    tokens = np.array([row["tokens"] for row in inputs], np.int64)
    total = max(1, int(tokens.sum()))
    shown, others, of_others = largest(tokens)
    bars = [
        Bar(name, number, f"{number:,}", _link(request, source=name), (percent(number / total),))
        for name, number in ((inputs[i]["name"], int(tokens[i])) for i in shown)
    ]
    if others:
        text = say("{n} other files", n=f"{others:,}")
        bars.append(Bar(text, of_others, f"{of_others:,}", None, (percent(of_others / total),)))
    heads = (say("File"), say("Tokens"), say("Share"))
    note = say("Counted when the files were read, before duplicates were left out.")
    return Rows("sources", say("Tokens by source"), bars, heads, note)


# ---- of the sample


def _lengths(request: Request, counts: SampleCounts, say: Say) -> list[Columns]:
    top = max((int(numbers.max()) for numbers in counts.by_label.values()), default=0)
    charts = []
    for label, name in counts.data_set.labels.items():
        numbers = counts.by_label[label]
        bars = [
            Bar(str(each), n, say("{n} examples", n=f"{n:,}"), _sampled(request, counts, label=label, tokens=each))
            for each, n in zip(counts.lengths, numbers.tolist(), strict=True)
        ]
        title = say("Examples by number of tokens: {label}", label=say(name))
        charts.append(Columns(f"lengths{label}", title, bars, (say("Tokens"), say("Number")), top))
    return charts


def _positions(request: Request, counts: SampleCounts, say: Say) -> Columns:
    shares = counts.masked / np.maximum(1, counts.maskable)
    bars = [
        Bar(str(each), share, percent(share), _sampled(request, counts, masked_at=each), (f"{masked:,}", f"{number:,}"))
        for each, share, masked, number in zip(
            counts.positions, shares.tolist(), counts.masked.tolist(), counts.maskable.tolist(), strict=True
        )
    ]
    heads = (say("Position"), say("Masked share"), say("Masked tokens"), say("Tokens"))
    return Columns("positions", say("Masks by position"), bars, heads, float(shares.max()), is_share=True)


def _masked(request: Request, counts: SampleCounts, say: Say) -> Rows:
    names = counts.data_set.vocabulary.readable.names
    total = max(1, int(counts.masked_words.sum()))
    shown, others, of_others = largest(counts.masked_words, MOST_TOKENS)
    bars = [
        Bar(names[i], n, f"{n:,}", _sampled(request, counts, masked=i), (percent(n / total),))
        for i, n in ((i, int(counts.masked_words[i])) for i in shown)
    ]
    heads = (say("Token"), say("Number of masks"), say("Share"))
    note = say("{n} other tokens have {masks} masks.", n=f"{others:,}", masks=f"{of_others:,}") if others else ""
    return Rows("masked", say("Tokens that are masked most often"), bars, heads, note)


def _unknown(request: Request, counts: SampleCounts, say: Say) -> list[Rows]:
    inputs, names = counts.data_set.manifest["inputs"], counts.scripts.names
    shown, others, of_others = largest(counts.words_of_input)
    sources = []
    for i in shown:
        link = _sampled(request, counts, source=inputs[i]["name"], unknown=True)
        sources.append(_share(inputs[i]["name"], int(counts.unknown_of_input[i]), int(counts.words_of_input[i]), link))
    if others:
        unknown = int(counts.unknown_of_input.sum() - counts.unknown_of_input[shown].sum())
        sources.append(_share(say("{n} other files", n=f"{others:,}"), unknown, of_others, None))
    scripts = []
    for i in largest(counts.words_of_script, len(counts.words_of_script))[0]:
        name = names[i] if i < len(names) else ""
        link = _sampled(request, counts, script=name, unknown=True) if name else ""
        text = say(name) if name else say("no letters")
        scripts.append(_share(text, int(counts.unknown_of_script[i]), int(counts.words_of_script[i]), link or None))
    tail = (say("Share"), say("[UNK]"), say("Tokens"))
    note = say("An example has the script of most of its words.")
    return [
        Rows("unknown-source", say("Share of [UNK] by source"), sources, (say("File"), *tail)),
        Rows("unknown-script", say("Share of [UNK] by script"), scripts, (say("Script"), *tail), note),
    ]


def _share(name: str, unknown: int, words: int, href: str | None) -> Bar:
    return Bar(
        name, unknown / words, percent(unknown / words), href if unknown else None, (f"{unknown:,}", f"{words:,}")
    )


def _sampled(request: Request, counts: SampleCounts, **filters: Any) -> str:
    return _link(request, split="train", length=counts.length, **filters)


CHARTS = Section(
    name="charts", title="Charts", of="d", routes=[("charts", show_charts), ("charts/sample", show_sample)]
)

"""The text of an example as pages draw it: the macro in `browser/templates/example_text.html.j2`."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from pipeline.examples.decoding import Span, segments
from pipeline.vocabulary import Vocabulary


class SegmentText(NamedTuple):
    """The text of a segment."""

    runs: list[Span]
    """Its masked tokens, and the text between them."""
    more: int
    """Number of tokens that are left out at its end."""


class ExampleText(NamedTuple):
    """The text of an example."""

    a: SegmentText
    b: SegmentText | None
    """None where the example has no B."""


def example_text(row: dict[str, Any], vocabulary: Vocabulary, most: int | None = None) -> ExampleText:
    """Return the text of a row of a shard. most: the number of tokens that are shown of each segment; None for all."""
    a, b = (SegmentText(runs(spans[:most]), len(spans) - len(spans[:most])) for spans in segments(row, vocabulary))
    has_b = row["segment_b_start"] < len(row["input_ids"])
    return ExampleText(a, b if has_b else None)


def runs(spans: Sequence[Span]) -> list[Span]:
    """Return tokens, with each stretch of tokens without masks joined into one."""
    found: list[Span] = []
    for is_masked, group in groupby(spans, key=lambda span: span.kind != ""):
        if is_masked:
            found.extend(group)
        else:
            text = "".join(map(str, group))
            found.append(Span("", text, text, ""))
    return found

"""examples.html: examples of a data set on a page that needs no other file and has no scripts."""

from importlib.resources import files
from typing import Any

import jinja2
import pyarrow as pa
from markupsafe import Markup

from jobs.support.example_text import example_text
from pipeline.examples.configuration import ExamplesConfig
from pipeline.vocabulary import Vocabulary

MOST_EXAMPLES = 1000
"""Examples on the page: about 4 MB at 128 tokens."""
MOST_TOKENS = 1000
"""Tokens shown of each segment."""


def examples_page(report: dict[str, Any], examples: pa.Table, vocabulary: Vocabulary) -> str:
    """Return the page. report: the numbers of report.json. examples: rows of shards with their `number`."""
    page = jinja2.Environment(
        loader=jinja2.PackageLoader("jobs", "browser/templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page.filters["number"] = lambda value: f"{value:,}"
    page.globals["_"] = lambda text, **values: text.format(**values) if values else text  # the page is in English
    labels = ExamplesConfig.of(report["configuration"]).objective.labels
    rows = examples.to_pylist()
    template = page.from_string((files("jobs.support") / "examples_page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        r=report,
        style=Markup((files("jobs.browser") / "static/style.css").read_text(encoding="utf-8")),
        shown=[(row, example_text(row, vocabulary, MOST_TOKENS)) for row in rows],
        labels={row["next_sentence_label"]: str(row["next_sentence_label"]) for row in rows} | dict(labels),
    )

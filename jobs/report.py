"""Show what a data set looks like and check whether it is fit to train on: write report.html and report.json.

    bertloom report DATASET
    bertloom report DATASET --gates.max-unknown 0.05
    bertloom report DATASET --html-examples 100

`preprocess` writes both at its end. They come from the manifest's counters and from a sample of a few million tokens, so
the work does not grow with the data set. --html-examples also writes examples.html, a page with examples to read, which
can be sent to somebody else. Exit status 1 if a gate fails (docs/report.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.support.config import parse
from pipeline.checks.gates import Gates


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Show what a data set looks like and check whether it is fit to train on."""

    dataset: Annotated[str, tyro.conf.Positional]
    """A finished data set."""
    html_examples: int | None = None
    """Number of examples in examples.html, a page in the data set that needs no other file and has no scripts: up to
    1,000. They are the first of the report's sample, of the first length. 0 removes the page. By default the page stays as
    it is, or is not made."""
    detect_languages: bool = False
    """Also show the languages of the sample, and of each source of --inputs, by the detector of --languages (extra
    "langid")."""
    gates: Gates = field(default_factory=Gates)


def main(argv: Sequence[str]) -> int:
    config = parse(ReportConfig, argv, prog="bertloom report")
    from jobs.support.report import write_report

    return write_report(config.dataset, config.gates, config.html_examples, config.detect_languages)

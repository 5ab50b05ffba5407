"""Reading a split with options, as a job with these flags would."""

from dataclasses import replace
from typing import Any

from pipeline.inputs.documents import TextConfig, read_documents
from pipeline.inputs.sources import Source, Split
from pipeline.options import compose
from pipeline.text.records import Record


def with_options(source: Source, **options: Any) -> Source:
    """Return a file that is read with these options."""
    return replace(source, read=replace(source.read, **options))


def read_with(split: Split, start: int | None = None, **options: Any) -> list[Record]:
    """Return the records of a split that is read and cleaned with these options."""
    config = compose(TextConfig, **options)
    return list(read_documents(replace(split, source=replace(split.source, read=config.read)), start, config.clean))

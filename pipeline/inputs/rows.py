"""Rows to documents: what a record of a table or a line of JSON is part of."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import BinaryIO

from pipeline.inputs.formats.format import Format
from pipeline.inputs.groups import grouped_documents
from pipeline.inputs.sources import ReadConfig, Split
from pipeline.text.gutenberg import Licence
from pipeline.text.records import Item, Record, Row, or_empty, paragraphs, whole_or_pieces


def records_of(form: Format, file: BinaryIO, split: Split, start: int) -> Iterator[Record]:
    """Yield the documents, rejects and records passed over of a split of an open file, from position `start`."""
    config = split.source.read
    assert form.read
    if form.has_records and config.records != "documents":
        return grouped_documents(partial(form.read, file), split, start, form.counts_records(config))
    return documents_of(form.read(file, split, start), config)


def documents_of(items: Iterable[Item], config: ReadConfig) -> Iterator[Record]:
    """Yield a document, or a reject, for each row. Other items stay as they are."""
    for item in items:
        if not isinstance(item, Row):
            yield item
            continue
        position, shown, num_replaced, record_id = item.position, item.shown, item.num_replaced, item.record_id
        licence = Licence()
        text = licence.strip_text(item.text) if config.strip_gutenberg else item.text
        del item  # its text may be long
        data, num_surrogates = paragraphs(text)
        del text
        documents = whole_or_pieces(data, position, num_replaced + num_surrogates, record_id, config.line_breaks)
        del data
        records = or_empty(documents, position, shown, record_id)
        yield from licence.counted(records, position) if config.strip_gutenberg else records

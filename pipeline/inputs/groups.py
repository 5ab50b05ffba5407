"""Records that are sentences or lines of documents (`--records`): which of them are one document, and in which split.

Whether a document begins with a record depends on the records before it, and a split does not read those of the split before
it. So a split has the documents from the first that is certain to begin after the split's start, whatever is before it, to
the first that is certain to begin after the split's end. The documents are the same for any cuts, and each has one split.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from enum import Enum
from typing import Any

from pipeline.inputs.sources import ReadConfig, Split
from pipeline.text.line_breaks import LineBreaks
from pipeline.text.records import (
    MAX_DOCUMENT_BYTES,
    Document,
    Item,
    PassedOver,
    Pieces,
    Record,
    Row,
    paragraphs,
    whole_or_pieces,
)

SEARCHED_CHARACTERS = 10_000  # of a record, by the expressions of the user, which may be slow


class Place(Enum):
    """Where a reader is between two records."""

    OUTSIDE = 0
    """Not in a document."""
    INSIDE = 1
    """Perhaps in a document. A document with a known mark is in its place where marks decide."""


State = Any
"""A `Place`, or the mark of the document that the reader is in."""
Step = Callable[[State, Any, bool], tuple[bool, State]]
"""(state, mark of the next record, whether it is empty) -> (whether a document is certain to begin with it, next state)."""


def _by_empty_records(state: State, mark: Any, empty: bool) -> tuple[bool, State]:
    return (False, Place.OUTSIDE) if empty else (state is Place.OUTSIDE, Place.INSIDE)


def _by_first_records(state: State, mark: Any, empty: bool) -> tuple[bool, State]:
    begins = mark or (state is Place.OUTSIDE and not empty)
    return begins, Place.INSIDE if begins else state


def _by_marks(state: State, mark: Any, empty: bool) -> tuple[bool, State]:
    return (False, state) if empty else (state is not Place.INSIDE and state != mark, mark)


def _rule(config: ReadConfig) -> tuple[Callable[[Row, int], Any], Step]:
    """Return (function from a record and its number in the file to its mark, rule for where documents begin)."""
    if config.document_column is not None:
        return lambda row, number: row.document, _by_marks
    if size := config.records_per_document:
        return lambda row, number: number // size, _by_marks
    if config.document_start is not None:
        found = _search(config.document_start)
        return lambda row, number: found(row), _by_first_records
    return lambda row, number: None, _by_empty_records


def _search(expression: str) -> Callable[[Row], bool]:
    """Return a function that tells whether the expression is found in a record without its line end."""
    search = re.compile(expression).search
    return lambda row: search(row.text[:SEARCHED_CHARACTERS].rstrip("\r\n")) is not None


def grouped_documents(
    read: Callable[[Split, int], Iterable[Item]], split: Split, start: int, counts: bool
) -> Iterator[Record]:
    """Yield the documents of a split, and the rejects and numbers of records passed over, from position `start`.

    read: yields the records of a split from a position.
    counts: whether records are counted from the beginning of the file, because positions do not count them.
    """
    config = split.source.read
    mark_of, step = _rule(config)
    skips = None if config.skip_lines is None else _search(config.skip_lines)
    known = start == 0 or start != split.start  # other starts are at a cut: not certain to be outside of documents
    state: State = Place.OUTSIDE if known else Place.INSIDE
    state_at_end: State = Place.INSIDE  # of the reader of the next split
    group: _Group | None = None
    number = 0
    for item in read(replace(split, end=None), 0 if counts else start):
        begins, begins_next, position = True, True, item.position
        past_end = split.end is not None and position >= split.end
        if isinstance(item, Row):
            empty = not item.text or item.text.isspace()
            mark = mark_of(item, number if counts else position)
            begins, state = step(state, mark, empty)
            if past_end:
                begins_next, state_at_end = step(state_at_end, mark, empty)
        else:
            state = Place.OUTSIDE
        number += not isinstance(item, PassedOver)
        if past_end and begins_next:
            break
        known = known or begins
        if past_end and not known and state == state_at_end:
            break  # no document is certain to begin in this split
        if not known or position < start:
            continue
        if begins or not group:
            if group:
                yield from group.end()
            group = None
            if not isinstance(item, Row):
                yield item
                continue
            group = _Group(position, item.record_id, config.line_breaks)
        assert isinstance(item, Row)
        if empty or (skips and skips(item)):
            group.passed_over["empty-record" if empty else "skipped-line"] += 1
            continue
        text, num_replaced = paragraphs(item.text)
        num_replaced += item.num_replaced
        del item  # its text may be long
        yield from group.add(text, num_replaced, position)
    if group:
        yield from group.end()


class _Group:
    """A document while its records are read. The records passed over after it are counted with it."""

    def __init__(self, position: int, record_id: str | None, line_breaks: LineBreaks):
        self.position, self.record_id, self.line_breaks = position, record_id, line_breaks
        self.text = bytearray()  # not yet in pieces
        self.num_replaced = 0  # in this text
        self.last_record = position
        self.pieces: Pieces | None = None
        self.passed_over: Counter[str] = Counter()
        self.num_pieces = 0

    def add(self, text: bytes, num_replaced: int, position: int) -> Iterator[Document]:
        """Add a record. Yields pieces of a long text."""
        self.text += text
        self.text += b"\n"
        self.num_replaced += num_replaced
        self.last_record = position
        if len(self.text) > MAX_DOCUMENT_BYTES:
            yield from self._given_out(last=False)

    def end(self) -> Iterator[Document | PassedOver]:
        """Yield the rest of the text, and the records passed over."""
        yield from self._given_out(last=True)
        for piece, (reason, number) in enumerate(sorted(self.passed_over.items()), self.num_pieces):
            yield PassedOver(self.position, reason, piece, number)

    def _given_out(self, last: bool) -> Iterator[Document]:
        text, num_replaced = bytes(self.text), self.num_replaced
        self.text.clear()
        self.num_replaced = 0
        if last and not self.pieces:
            documents = whole_or_pieces(text, self.position, num_replaced, self.record_id, self.line_breaks)
        else:
            self.pieces = self.pieces or Pieces(self.position, self.record_id, self.line_breaks)
            documents = self.pieces.add(text, num_replaced, last)
        del text
        for document in documents:
            self.num_pieces = document.piece + 1
            yield replace(document, last_record=self.last_record)

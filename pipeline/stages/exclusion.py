"""Documents that share a run of words with a test set (--exclude): they become rejects before they are tokenized.

The records of a group of splits are searched in batches. The pieces of a text of several are one text: a run that reaches
over the end of a piece rejects each piece that it touches. So the last words of a piece are kept for the next batch, and the
pieces with these words wait for it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from bertloom.arrays import I64
from pipeline.text.records import Document, Record, Reject, first_characters
from pipeline.text.word_runs import RUN_WORDS, RunIndex
from pipeline.text.words import Words, find_words

IN_TEST_SET = "in-test-set"
"""The reason of these rejects."""
BATCH_BYTES = 1_000_000  # of text, searched in one call: larger arrays do not stay in the processor's cache
SHOWN_CHARACTERS = 120  # of a run

Item = tuple[int, Record]
"""The number of a split in its group, and a record of it."""


@dataclass(eq=False)
class _Held:
    """A record that waits for its batch, or for the next piece of its text."""

    split: int
    record: Record
    found: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Test set -> (its text, the run)."""

    def continues(self, before: "_Held") -> bool:
        """Return whether it is the next piece of the same text."""
        a, b = before.record, self.record
        return (
            isinstance(a, Document)
            and isinstance(b, Document)
            and (before.split, a.position, a.piece + 1) == (self.split, b.position, b.piece)
        )


def without_test_sets(items: Iterable[Item], index: RunIndex) -> Iterator[Item]:
    """Yield the records in order; a document that shares a run with a test set becomes a reject."""
    search, size = _Search(index), 0
    for split, record in items:
        search.waiting.append(_Held(split, record))
        if isinstance(record, Document):
            size += len(record.text)
            if size >= BATCH_BYTES:
                yield from search.finish(is_last=False)
                size = 0
    yield from search.finish(is_last=True)


def count_in_test_sets(documents: Iterable[Document], index: RunIndex) -> Counter[str]:
    """Return test set -> number of documents that share a run with it."""
    found = without_test_sets(((0, document) for document in documents), index)
    return Counter(name for _, record in found if isinstance(record, Reject) for name in record.test_sets)


class _Search:
    """The records of one group that are not searched yet, or are pieces of a text that may go on."""

    def __init__(self, index: RunIndex):
        self.index = index
        self.waiting: list[_Held] = []
        self.num_searched = 0  # of those that wait
        self.last: _Held | None = None  # the last document that was searched
        self.tail: list[tuple[_Held, bytes]] = []  # the last words of its text, if that may go on, and their pieces

    def finish(self, is_last: bool) -> Iterator[Item]:
        """Search what is not searched, and yield all records that no later piece can change."""
        new = [one for one in self.waiting[self.num_searched :] if isinstance(one.record, Document)]
        if new:
            self._search(new)
        last = self.waiting[-1].record if self.waiting else None
        if is_last or not isinstance(last, Document) or last.source_key is None:
            self.tail = []
        first = self.waiting.index(self.tail[0][0]) if self.tail else len(self.waiting)
        for one in self.waiting[:first]:
            yield one.split, self._record(one)
        self.waiting = self.waiting[first:]
        self.num_searched = len(self.waiting)

    def _search(self, new: list[_Held]) -> None:
        """Search documents, and what reaches into them from the pieces before."""
        owners = [*(owner for owner, _ in self.tail), *new]
        is_next = [one.continues(before) for before, one in zip([self.last, *new], new) if before]
        is_next = [True] * len(self.tail) + [False] * (len(new) - len(is_next)) + is_next
        chains = np.cumsum(~np.array(is_next))
        words = find_words([*(words for _, words in self.tail), *(_text(one) for one in new)])
        for found in self.index.search(words, chains):
            owners[found.text].found.setdefault(found.set, (found.at, _shown(words, found.word)))
        self.tail, self.last = _tail(words, chains, owners), new[-1]

    def _record(self, held: _Held) -> Record:
        """Return the record, or the reject that it becomes."""
        document = held.record
        if not held.found:
            return document
        assert isinstance(document, Document)
        sets = [(self.index.sets[number].name, *held.found[number]) for number in sorted(held.found)]
        detail = "; ".join(f"{name}, {self.index.places[text]}" for name, text, _ in sets) + f": {sets[0][2]}"
        return Reject(
            document.position,
            IN_TEST_SET,
            detail,
            first_characters(document.text),
            document.record_id,
            document.piece,
            document.entry,
            tuple(name for name, _, _ in sets),
        )


def _text(held: _Held) -> bytes:
    assert isinstance(held.record, Document)
    return held.record.text


def _tail(words: Words, chains: I64, owners: list[_Held]) -> list[tuple[_Held, bytes]]:
    """Return the last words, at most RUN_WORDS - 1, of the last text: its pieces and the words of each."""
    first = max(0, len(words.starts) - (RUN_WORDS - 1))
    tail: dict[int, list[str]] = {}
    for number in range(first, len(words.starts)):
        text = int(words.texts[number])
        if chains[text] == chains[-1]:
            tail.setdefault(text, []).append(words.word(number))
    return [(owners[text], " ".join(found).encode()) for text, found in tail.items()]


def _shown(words: Words, first: int) -> str:
    """Return a run as it is shown."""
    last = first + RUN_WORDS - 1
    run = words.content[int(words.starts[first]) : int(words.starts[last]) + int(words.lengths[last])]
    return " ".join(run.replace(b"\0", b" ").decode().split())[:SHOWN_CHARACTERS]

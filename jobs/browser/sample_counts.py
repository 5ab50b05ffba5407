"""Counts of examples for the charts, over the sample of the report (pipeline/checks/sample.py), for one length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertloom.arrays import I64
from jobs.browser.conditions import MainScripts
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.filters import Range
from jobs.browser.inputs import inputs_of
from jobs.browser.sliced_work import SlicedWork
from pipeline.checks.report import BINS, DocumentInputs, Examples, flatten
from pipeline.checks.sample import sample_buckets, sample_members


def ranges(number: int, least: int) -> list[Range]:
    """Return up to BINS ranges of about equal size that hold `number` whole numbers from `least` on.

    >>> [str(each) for each in ranges(64, 1)][:3], [str(each) for each in ranges(3, 0)]
    (['1-4', '5-8', '9-12'], ['0', '1', '2'])
    """
    bins = min(BINS, number)
    edges = [least + number * i // bins for i in range(bins + 1)]
    return [Range(first, end - 1) for first, end in zip(edges, edges[1:])]


class SampleCounts(SlicedWork):
    """Counts over the sampled examples of one length. All arrays have one value for each of what they count."""

    def __init__(self, data_set: BrowsedDataSet, length: int) -> None:
        self.data_set = data_set
        self.length = length
        self.scripts = MainScripts(data_set.vocabulary)
        self.lengths, self.positions = ranges(length, 1), ranges(length, 0)
        buckets = sample_buckets(data_set.rows)
        self.buckets = sorted(buckets)
        self.members = sample_members(data_set.rows, buckets, length)
        super().__init__()
        self._begin()

    def _begin(self) -> None:
        num_words, num_inputs = len(self.data_set.vocabulary.words), len(self.data_set.manifest["inputs"])
        self.num_read = 0
        """Members that were counted."""
        self.num_examples = 0
        self.by_label = {label: np.zeros(len(self.lengths), np.int64) for label in self.data_set.labels}
        """Examples by length, for each value of next_sentence_label."""
        self.masked, self.maskable = (np.zeros(len(self.positions), np.int64) for _ in range(2))
        """Masked tokens, and all tokens without [CLS] and [SEP], by position."""
        self.masked_words = np.zeros(num_words, np.int64)
        """Masked tokens, by their true id."""
        self.words_of_input, self.unknown_of_input = (np.zeros(num_inputs, np.int64) for _ in range(2))
        """Tokens without [CLS] and [SEP], and how many of them are [UNK], by input file."""
        self.words_of_script, self.unknown_of_script = (
            np.zeros(len(self.scripts.names) + 1, np.int64) for _ in range(2)
        )
        """The same by the script of most words of the example. The last is for examples without letters."""

    def steps(self) -> Iterator[None]:
        self._begin()
        places = {name: i for i, name in enumerate(inputs_of(self.data_set))}
        pages = []
        for number in self.buckets:
            pages.append(self.data_set.documents("train", number).select(["id", "source"]))
            yield
        inputs = DocumentInputs.of(pa.concat_tables(pages), places)
        del pages
        for shard, member, _ in self.members:
            self._add(flatten(pa.Table.from_batches([self.data_set.member(shard, member)])), inputs)
            self.num_read += 1
            yield

    def _add(self, e: Examples, inputs: DocumentInputs) -> None:
        self.num_examples += len(e.lengths)
        length_edges = [each.first for each in self.lengths] + [self.length + 1]
        for label, counts in self.by_label.items():
            counts += np.histogram(e.lengths[e.label == label], length_edges)[0]
        content = ~e.specials()
        position = np.arange(len(e.ids)) - np.repeat(e.starts, e.lengths)
        edges = [each.first for each in self.positions] + [self.length]
        self.maskable += np.histogram(position[content], edges)[0]
        self.masked += np.histogram(position[e.masks], edges)[0]
        _count(self.masked_words, e.truth[e.masks])

        unknown = self.data_set.vocabulary.unk
        is_unknown = content & (e.truth == unknown) if unknown is not None else np.zeros(len(content), bool)
        in_b = position >= np.repeat(e.segment_b, e.lengths)
        of_a, of_b = inputs.place(e.document_a), inputs.place(e.document_b)
        place = np.where(in_b, np.repeat(of_b, e.lengths), np.repeat(of_a, e.lengths))
        _count(self.words_of_input, place[content & (place >= 0)])
        _count(self.unknown_of_input, place[is_unknown & (place >= 0)])
        script = np.repeat(self.scripts.of(e), e.lengths)
        _count(self.words_of_script, script[content])
        _count(self.unknown_of_script, script[is_unknown])


def _count(counts: I64, indexes: NDArray[Any]) -> None:
    """Add to counts. An index of -1 is the last."""
    size = len(counts)
    counts += np.bincount(indexes % size, minlength=size)

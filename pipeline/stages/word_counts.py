"""The words of a corpus and how often each occurs, counted by several workers and added up by a combiner.

The counts are exact, so they do not depend on the number of workers or on how the text is split. Memory is bounded: counts
of more than MAX_HELD_WORDS words go to a sorted file, and the files are merged at the end.
"""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

from bertloom import storage
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats.registry import position_unit
from pipeline.inputs.named_inputs import clean_of
from pipeline.inputs.sources import Source, Split, SplitGroup
from pipeline.stages.counters import increment
from pipeline.stages.transform import transform
from pipeline.stages.word_cuts import WordCut
from pipeline.stages.work_log import log_begin, log_piece
from pipeline.text.cleaning import CleanConfig
from pipeline.text.records import Document, PassedOver, Record, place_of

MAX_HELD_WORDS = 1_000_000  # about 150 MB
MAX_DISTINCT_WORDS = 2_000_000  # given to the trainer, the most frequent ones: about 300 MB


@dataclass
class Tally:
    """What was read, and what was not used: nothing is lost in silence."""

    documents: int = 0
    bytes: int = 0
    not_used: Counter[str] = field(default_factory=Counter)
    """Number of rejects and skipped records by reason."""
    first: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    """Reason -> the first such reject: (path, position, message)."""

    def add(self, source: Source, item: Record) -> None:
        if isinstance(item, Document):
            self.documents += 1
            self.bytes += len(item.text)
            return
        if isinstance(item, PassedOver):
            self.not_used[item.reason] += item.number
        else:
            self.not_used[item.reason] += 1
            path, position = place_of(source.path, item)
            unit = position_unit(source.path, source.format, path)
            place = f"{path}, {unit} {position}"
            self._keep_first(item.reason, (source.path, item.position, f"{place}: {item.detail} {item.text[:100]}"))

    def _keep_first(self, reason: str, reject: tuple[str, int, str]) -> None:
        self.first[reason] = min(self.first.get(reason, reject), reject)

    def update(self, other: "Tally") -> None:
        self.documents += other.documents
        self.bytes += other.bytes
        self.not_used.update(other.not_used)
        for reason, reject in other.first.items():
            self._keep_first(reason, reject)


@dataclass
class WordCounts:
    """The counts of some documents."""

    words: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)
    files: list[str] = field(default_factory=list)
    """Paths of files with more counts, each sorted by word."""


class CountSplit(beam.DoFn):
    """SplitGroups -> a few WordCounts, each of at most about MAX_UNITS words."""

    def __init__(self, config: CleanConfig, cut: WordCut, work_log: str, of_inputs: Sequence[CleanConfig] = ()):
        self.config, self.cut, self.work_log, self.of_inputs = config, cut, work_log, of_inputs

    def start_bundle(self) -> None:
        self.counter, self.tally = self.cut.counter(), Tally()

    def process(self, group: SplitGroup) -> Iterator[WordCounts]:
        log_begin(self.work_log, "count words")
        documents, text_bytes = self.tally.documents, self.tally.bytes
        for split in group.splits:
            yield from self._count(split)
        log_piece(
            self.work_log,
            "count words",
            group.name,
            group.num_bytes,
            documents=self.tally.documents - documents,
            text_bytes=self.tally.bytes - text_bytes,
        )

    def _count(self, split: Split) -> Iterator[WordCounts]:
        for item in read_documents(split, config=clean_of(split.source, self.config, self.of_inputs)):
            self.tally.add(split.source, item)
            if isinstance(item, Document):
                self.counter.add(item.text)
                if self.counter.is_full:
                    yield WordCounts(self.counter.take())

    def finish_bundle(self) -> Iterator[Any]:
        not_used = self.tally.not_used.total()
        increment(
            "count words",
            documents_in=self.tally.documents + not_used,
            documents_not_used=not_used,
            text_bytes=self.tally.bytes,
        )
        yield GlobalWindows.windowed_value(WordCounts(self.counter.take(), self.tally))


class AddWordCounts(beam.CombineFn):
    """WordCounts -> their sum."""

    def __init__(self, folder: str):
        """folder: for counts of more than MAX_HELD_WORDS words."""
        self.folder = folder

    def create_accumulator(self) -> WordCounts:
        return WordCounts()

    def add_input(self, total: WordCounts, counts: WordCounts) -> WordCounts:
        total.words.update(counts.words)
        total.tally.update(counts.tally)
        total.files += counts.files
        if len(total.words) > MAX_HELD_WORDS:
            total.files.append(_write_sorted(self.folder, total.words))
            total.words = Counter()
        return total

    def merge_accumulators(self, totals: Iterable[WordCounts]) -> WordCounts:
        merged = WordCounts()
        for total in totals:
            merged = self.add_input(merged, total)
        return merged

    def extract_output(self, total: WordCounts) -> WordCounts:
        return total


def _write_sorted(folder: str, words: Counter[str]) -> str:
    data = "".join(f"{word}\t{words[word]}\n" for word in sorted(words)).encode()
    path = storage.join(folder, hashlib.sha256(data).hexdigest())  # a retried bundle writes the same file
    storage.write_whole(path, [data])
    return path


def _read_sorted(path: str) -> Iterator[tuple[str, int]]:
    with storage.open_read(path) as file:
        for line in file:
            word, _, count = line.decode().rpartition("\t")
            yield word, int(count)


def most_frequent(
    counts: WordCounts, limit: int = MAX_DISTINCT_WORDS, rank: Callable[[str], Any] = str
) -> dict[str, int]:
    """Return word -> count of the `limit` most frequent words; of equally frequent ones, those of the first ranks."""
    lists = [_read_sorted(path) for path in counts.files]
    merged = groupby(heapq.merge(*lists, sorted(counts.words.items())), key=itemgetter(0))
    totals = ((word, sum(count for _, count in group)) for word, group in merged)
    return dict(heapq.nsmallest(limit, totals, key=lambda total: (-total[1], rank(total[0]))))


@transform
class CountWords(beam.PTransform[Any, Any]):
    """SplitGroups -> a file of the most frequent words and the tally, for `read_counts`."""

    folder: str
    """For this file, and for other files while the job runs."""
    config: CleanConfig
    cut: WordCut
    work_log: str
    """Folder of the log of finished work."""
    of_inputs: Sequence[CleanConfig] = ()
    """How the texts of each table of --inputs are cleaned."""

    def expand(self, groups: Any) -> Any:
        return (
            groups
            | "count split" >> beam.ParDo(CountSplit(self.config, self.cut, self.work_log, self.of_inputs))
            | "add up" >> beam.CombineGlobally(AddWordCounts(self.folder)).without_defaults()
            | "write counts" >> beam.Map(write_counts, self.folder, self.cut)
        )


def write_counts(counts: WordCounts, folder: str, cut: WordCut) -> None:
    """Write the most frequent words and the tally."""
    words, tally = most_frequent(counts, rank=cut.rank), counts.tally
    fields = [tally.documents, tally.bytes, tally.not_used, tally.first, words]
    storage.write_whole(storage.join(folder, "counts.json"), [json.dumps(fields).encode()])
    increment("count words", words_out=len(words))


def read_counts(folder: str) -> tuple[dict[str, int], Tally]:
    """Return (word -> count, what was read)."""
    documents, num_bytes, not_used, first, words = json.loads(storage.read(storage.join(folder, "counts.json")))
    return words, Tally(documents, num_bytes, Counter(not_used), {k: tuple(v) for k, v in first.items()})

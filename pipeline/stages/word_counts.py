"""The words of a corpus and how often each occurs, counted by several workers and added up by a combiner.

The counts are exact, so they do not depend on the number of workers or on how the text is split. Memory is bounded: counts
of more than MAX_HELD_WORDS words go to a sorted file, and the files are merged at the end.
"""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindows
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from bertloom import storage
from bertloom.arrays import I64
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats.registry import position_unit
from pipeline.inputs.sources import Source, Split, SplitGroup
from pipeline.stages.counters import increment
from pipeline.stages.transform import transform
from pipeline.stages.work_log import log_begin, log_piece
from pipeline.text.cleaning import CleanConfig
from pipeline.text.records import Document, PassedOver, Record, place_of
from pipeline.text.units import MAX_UNITS, Interner
from pipeline.vocabulary import MAX_WORD_CHARACTERS, cut_as_bert

MAX_HELD_WORDS = 1_000_000  # about 150 MB
MAX_DISTINCT_WORDS = 2_000_000  # given to the trainer, the most frequent ones: about 300 MB
BLOCK_BYTES = 1 << 20


class WordCounter(Protocol):
    """Counts the words of texts. One per bundle."""

    def add(self, text: bytes) -> None:
        """Count the words of a text."""

    @property
    def is_full(self) -> bool:
        """Whether it should give its counts."""

    def take(self) -> Counter[str]:
        """Return the counts since the last call."""


class WordCut(Protocol):
    """How a text is cut into words; it goes to the workers."""

    def counter(self) -> WordCounter:
        """Return a new counter of such words."""


@dataclass(frozen=True)
class BertWords:
    """Words as BERT separates them: punctuation and Chinese characters are single words."""

    do_lower_case: bool
    strip_accents: bool | None

    def counter(self) -> WordCounter:
        return BertWordCounter(self.do_lower_case, self.strip_accents)


@dataclass(frozen=True)
class PreTokens:
    """Words as the pre-tokenizer of any tokenizer separates them."""

    tokenizer: str
    """The content of its tokenizer.json."""

    def counter(self) -> WordCounter:
        return PreTokenCounter(Tokenizer.from_str(self.tokenizer))


def cut_of(content: Mapping[str, Any]) -> WordCut:
    """Return how a tokenizer.json separates words."""
    normalizer, pre_tokenizer = content.get("normalizer") or {}, content.get("pre_tokenizer") or {}
    options = {name: value for name, value in normalizer.items() if name not in ("lowercase", "strip_accents")}
    is_bert = options == {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    if is_bert and pre_tokenizer == {"type": "BertPreTokenizer"}:
        return BertWords(normalizer["lowercase"], normalizer["strip_accents"])
    no_model = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    return PreTokens(json.dumps({**content, "model": no_model, "added_tokens": [], "post_processor": None}))


class PreTokenCounter:
    """Counts what a tokenizer's normalizer and pre-tokenizer make of texts, with line feeds as spaces."""

    def __init__(self, tokenizer: Tokenizer):
        normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
        self.normalize = normalizer.normalize_str if normalizer else str
        self.cut = pre_tokenizer.pre_tokenize_str if pre_tokenizer else lambda text: [(text, (0, len(text)))]
        self.counts: Counter[str] = Counter()

    def add(self, text: bytes) -> None:
        words = self.cut(self.normalize(text.decode().replace("\n", " ")))
        self.counts.update(word for word, _ in words)

    @property
    def is_full(self) -> bool:
        return len(self.counts) > MAX_UNITS

    def take(self) -> Counter[str]:
        counts, self.counts = self.counts, Counter()
        return counts


class BertWordCounter:
    """Counts words as BERT separates them, in blocks."""

    def __init__(self, do_lower_case: bool, strip_accents: bool | None):
        self.tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
        cut_as_bert(self.tokenizer, do_lower_case, strip_accents)
        self.interner = Interner(self.tokenizer, do_lower_case)
        self._clear()

    def _clear(self) -> None:
        self.interner.codes.clear()
        self.unit_counts = np.zeros(0, np.int64)
        self.pending: list[bytes] = []
        self.pending_bytes = 0

    def add(self, text: bytes) -> None:
        self.pending.append(text)
        self.pending_bytes += len(text)
        if self.pending_bytes >= BLOCK_BYTES:
            self._count()

    def _count(self) -> None:
        codes = self.interner.cut(b"\n".join(self.pending)).codes
        seen: I64 = np.bincount(codes, minlength=len(self.interner.codes))
        seen[: len(self.unit_counts)] += self.unit_counts
        self.unit_counts, self.pending, self.pending_bytes = seen, [], 0

    @property
    def is_full(self) -> bool:
        return len(self.interner.codes) > MAX_UNITS

    def take(self) -> Counter[str]:
        self._count()
        counts: Counter[str] = Counter()
        normalize, cut = self.tokenizer.normalizer.normalize_str, self.tokenizer.pre_tokenizer.pre_tokenize_str
        for unit, count in zip(self.interner.take_new(), self.unit_counts.tolist(), strict=True):
            for word, _ in cut(normalize(unit)):
                counts[word if len(word) <= MAX_WORD_CHARACTERS else _too_long(word)] += count
        self._clear()
        return counts


def _too_long(word: str) -> str:
    """Return a stand-in for a word that is too long: only the script of such words is reported, and most differ."""
    letter = next(filter(str.isalpha, word), None) or next(filter(str.isdigit, word), word[0])
    return letter * (MAX_WORD_CHARACTERS + 1)


def count_words(texts: Iterable[bytes], do_lower_case: bool, strip_accents: bool | None) -> Counter[str]:
    """Return how often each word occurs. Words of more than MAX_WORD_CHARACTERS count as one per first letter.

    >>> count_words([b"The cat, the hat."], do_lower_case=True, strip_accents=None)
    Counter({'the': 2, 'cat': 1, ',': 1, 'hat': 1, '.': 1})
    """
    counter = BertWordCounter(do_lower_case, strip_accents)
    counts: Counter[str] = Counter()
    for text in texts:
        counter.add(text)
        if counter.is_full:
            counts.update(counter.take())
    return counts + counter.take()


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

    def __init__(self, config: CleanConfig, cut: WordCut, work_log: str):
        self.config, self.cut, self.work_log = config, cut, work_log

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
        for item in read_documents(split, config=self.config):
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


def most_frequent(counts: WordCounts, limit: int = MAX_DISTINCT_WORDS) -> dict[str, int]:
    """Return word -> count of the `limit` most frequent words; of equally frequent ones, those that sort first."""
    lists = [_read_sorted(path) for path in counts.files]
    merged = groupby(heapq.merge(*lists, sorted(counts.words.items())), key=itemgetter(0))
    totals = ((word, sum(count for _, count in group)) for word, group in merged)
    return dict(heapq.nsmallest(limit, totals, key=lambda total: (-total[1], total[0])))


@transform
class CountWords(beam.PTransform[Any, Any]):
    """SplitGroups -> a file of the most frequent words and the tally, for `read_counts`."""

    folder: str
    """For this file, and for other files while the job runs."""
    config: CleanConfig
    cut: WordCut
    work_log: str
    """Folder of the log of finished work."""

    def expand(self, groups: Any) -> Any:
        return (
            groups
            | "count split" >> beam.ParDo(CountSplit(self.config, self.cut, self.work_log))
            | "add up" >> beam.CombineGlobally(AddWordCounts(self.folder)).without_defaults()
            | "write counts" >> beam.Map(write_counts, self.folder)
        )


def write_counts(counts: WordCounts, folder: str) -> None:
    """Write the most frequent words and the tally."""
    words, tally = most_frequent(counts), counts.tally
    fields = [tally.documents, tally.bytes, tally.not_used, tally.first, words]
    storage.write_whole(storage.join(folder, "counts.json"), [json.dumps(fields).encode()])
    increment("count words", words_out=len(words))


def read_counts(folder: str) -> tuple[dict[str, int], Tally]:
    """Return (word -> count, what was read)."""
    documents, num_bytes, not_used, first, words = json.loads(storage.read(storage.join(folder, "counts.json")))
    return words, Tally(documents, num_bytes, Counter(not_used), {k: tuple(v) for k, v in first.items()})

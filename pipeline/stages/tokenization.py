"""The tokenize stage: a split -> the token parts of its text. Parts that are there already are not made again."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from bertloom import storage
from bertloom.arrays import U64
from pipeline.dataset import read_repeated
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats.registry import format_by_name
from pipeline.inputs.sources import Split, SplitGroup
from pipeline.job import JobConfig
from pipeline.options import flat
from pipeline.places import Places
from pipeline.stages.counters import increment
from pipeline.stages.reading_notes import reading
from pipeline.stages.transform import transform
from pipeline.stages.work_log import log_begin, log_piece
from pipeline.text.records import Document, EntryPlace, PassedOver, Record, Reject, first_characters
from pipeline.tokenizer import DocumentTokenizer, make_document_tokenizer, token_versions
from pipeline.tokens import BLOCK_BYTES, VERSION, PartRecord, TokenBlock, read_finished, write_part
from pipeline.vocabulary import cached_vocabulary


def part_names(split: Split, job: JobConfig) -> Callable[[int], str]:
    """Return a function from the number of a part of a split to its file name, a digest of all that decides its content."""
    source = split.source
    versions = token_versions(job.tokenize, source.format)
    of_source = [source.fingerprint, source.encoding, split.start, split.end]
    key = [VERSION, of_source, flat(job.tokenize), job.vocabulary_sha256, versions]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return lambda number: f"{digest}-{number:05d}.part"


def finished_parts(folder: str, part_name: Callable[[int], str]) -> list[PartRecord]:
    """Return the footers of the parts of a split that are there already, in order, up to a damaged one."""
    found: list[PartRecord] = []
    while not (found and found[-1].last):
        footer = read_finished(storage.join(folder, part_name(len(found))), PartRecord)
        if footer is None:
            break
        found.append(footer)
    return found


def tokenize_split(
    split: Split,
    job: JobConfig,
    places: Places,
    tokenizer: DocumentTokenizer,
    part_bytes: int,
    repeated_lines: U64 | None = None,
    finished: Sequence[PartRecord] = (),
) -> Iterator[PartRecord]:
    """Write the parts of a split that are not finished, each of about `part_bytes` of text, and yield all of them.

    repeated_lines: hashes of the lines to leave out.
    """
    part_name = part_names(split, job)
    yield from finished
    start, piece, number = split.start, 0, len(finished)
    if finished:
        if finished[-1].last:
            return
        start, piece = finished[-1].end, finished[-1].end_piece
    part = _Part(start)
    for item in read_documents(split, start, job.tokenize.text.clean, repeated_lines):
        if item.position == start and item.piece < piece:
            continue  # an earlier part holds these pieces of a long text
        if part.size >= part_bytes:
            yield part.write(split, places.parts, part_name(number), tokenizer, item)
            part, number = _Part(item.position), number + 1
        part.add(item, tokenizer)
    yield part.write(split, places.parts, part_name(number), tokenizer, None)


class _Part:
    """A part while it grows. Text is tokenized block by block, so that only tokens are kept."""

    def __init__(self, start: int):
        self.start = start
        self.size = 0
        self.text_bytes = 0
        self.rejects: list[Reject] = []
        self.passed_over: Counter[str] = Counter()
        self.cleaned: Counter[str] = Counter()
        self.blocks: list[TokenBlock] = []
        self.pending: list[Document] = []
        self.pending_bytes = 0
        self.entries: dict[int, EntryPlace] = {}

    def add(self, item: Record, tokenizer: DocumentTokenizer) -> None:
        if isinstance(item, PassedOver):
            self.passed_over[item.reason] += item.number
            return
        if isinstance(item, Reject):
            self.rejects.append(item)
            self.size += len(item.detail) + len(item.text) + 100
            return
        self.cleaned.update(item.cleaned)
        if item.entry and item.entry.first not in self.entries:
            self.entries[item.entry.first] = item.entry
            self.size += len(item.entry.name) + 100
        self.pending.append(item)
        self.pending_bytes += len(item.text)
        self.text_bytes += len(item.text)
        self.size += len(item.text)
        if self.pending_bytes >= BLOCK_BYTES:
            self._tokenize(tokenizer)

    def _tokenize(self, tokenizer: DocumentTokenizer) -> None:
        if self.pending:
            block = tokenizer(self.pending)
            self.blocks.append(block)
            empty = np.flatnonzero(block.documents["num_tokens"] == 0)
            self.rejects += [_without_tokens(self.pending[i]) for i in empty]
        self.pending, self.pending_bytes = [], 0

    def write(
        self, split: Split, folder: str, name: str, tokenizer: DocumentTokenizer, following: Record | None
    ) -> PartRecord:
        """Write the part and return its footer. following: the first record of the next part."""
        self._tokenize(tokenizer)
        source = split.source
        record: dict[str, Any] = {
            "name": name,
            "source": source.name,
            "path": source.path,
            "start": self.start,
            "end": following.position if following else source.size if split.end is None else split.end,
            "end_piece": following.piece if following else 0,
            "last": following is None,
            "text_bytes": self.text_bytes,
            "read_bytes": 0 if following else split.num_bytes,
            "passed_over": dict(self.passed_over),
            "cleaned": dict(self.cleaned),
            "format": source.format,
            "held_out": source.held_out,
            "text_layout": source.read.text_layout if source.read.records == "documents" else "",
            "num_texts": sum(entry.first >= self.start and _is_text(entry) for entry in self.entries.values()),
        }
        dtype = tokenizer.wordpiece.dtype
        entries = list(self.entries.values())
        return write_part(storage.join(folder, name), record, self.blocks, self.rejects, dtype, entries)


def _is_text(entry: EntryPlace) -> bool:
    form, _ = format_by_name(entry.name)
    return form is not None and form.has_layouts


def _without_tokens(document: Document) -> Reject:
    text = first_characters(document.text)
    detail = "nothing but control characters"
    return Reject(document.position, "no-tokens", detail, text, document.record_id, document.piece, document.entry)


class TokenizeSplit(beam.DoFn):
    """SplitGroup -> PartRecords."""

    def __init__(self, job: JobConfig, places: Places, part_bytes: int):
        self.job, self.places, self.part_bytes = job, places, part_bytes

    def setup(self) -> None:
        vocabulary = cached_vocabulary(self.places.vocabulary(self.job.vocabulary_sha256))
        self.tokenizer = make_document_tokenizer(self.job.tokenize, vocabulary)
        has_repeats = self.job.tokenize.max_line_repeats is not None
        self.repeated_lines = read_repeated(self.places.parts) if has_repeats else None

    def process(self, group: SplitGroup) -> Iterator[PartRecord]:
        for split in group.splits:
            yield from self._tokenize(split)

    def _tokenize(self, split: Split) -> Iterator[PartRecord]:
        log_begin(self.places.work_log, "tokenize")
        finished = finished_parts(self.places.parts, part_names(split, self.job))
        increment("tokenize", splits_in=1, parts_reused=len(finished))
        parts = tokenize_split(
            split, self.job, self.places, self.tokenizer, self.part_bytes, self.repeated_lines, finished
        )
        with reading(split, self.places.reading_notes) as note:
            given = 0
            for number, part in enumerate(parts, 1):
                note(number)
                _count(part)
                amount = split.num_bytes - given
                if not part.last:  # then the bytes that it took are not known
                    amount = min(amount, part.text_bytes * split.num_bytes // max(1, split.text_bytes))
                given += amount
                log_piece(
                    self.places.work_log,
                    "tokenize",
                    part.name,
                    amount,
                    documents=part.num_documents,
                    text_bytes=part.text_bytes,
                    is_new=number > len(finished),
                )
                yield part


def _count(part: PartRecord) -> None:
    num_rejected = sum(part.rejected.values())
    increment(
        "tokenize",
        documents_in=part.num_documents + num_rejected,
        documents_rejected=num_rejected,
        documents_out=part.num_documents,
        records_passed_over=sum(part.passed_over.values()),
        text_bytes=part.text_bytes,
        parts_out=1,
    )


@transform
class Tokenize(beam.PTransform[Any, Any]):
    """SplitGroups -> PartRecords."""

    job: JobConfig
    places: Places
    part_bytes: int
    """Text of a part, about."""

    def expand(self, groups: Any) -> Any:
        return groups | "tokenize split" >> beam.ParDo(TokenizeSplit(self.job, self.places, self.part_bytes))

"""The tokenize stage: a group of splits -> the token parts of its text. Parts that are there already are not made again."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import apache_beam as beam

from bertloom import storage
from bertloom.arrays import U64
from bertloom.sealed_files import read_sealed
from pipeline.dataset import read_repeated
from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import SplitGroup
from pipeline.job import JobConfig
from pipeline.options import flat
from pipeline.places import Places
from pipeline.stages.counters import increment
from pipeline.stages.exclusion import IN_TEST_SET, Item, without_test_sets
from pipeline.stages.parts import Part
from pipeline.stages.reading_notes import Note, no_note, reading
from pipeline.stages.transform import transform
from pipeline.stages.work_log import log_begin, log_piece
from pipeline.text.versions import unicode_version
from pipeline.text.word_runs import VERSION as RUNS_VERSION
from pipeline.text.word_runs import RunIndex
from pipeline.tokenizer import DocumentTokenizer, make_document_tokenizer, token_versions
from pipeline.tokens import VERSION, PartRecord, read_finished
from pipeline.vocabulary_files import read_copy


def part_names(group: SplitGroup, job: JobConfig, part_bytes: int) -> Callable[[int], str]:
    """Return a function from the number of a part of a group to its file name, a digest of all that decides its content.

    part_bytes: text of a part, about. It decides where the next part begins.
    """
    versions = group.versions(partial(token_versions, job.tokenize))
    key = [VERSION, part_bytes, group.ranges, flat(job.tokenize), job.vocabulary_sha256, versions]
    if job.excluded_sha256 and not group.held_out:
        key += [job.excluded_sha256, RUNS_VERSION, unicode_version()]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return lambda number: f"{digest}-{number:05d}.part"


def finished_parts(folder: str, part_name: Callable[[int], str]) -> list[PartRecord]:
    """Return the footers of the parts of a group that are there already, in order, up to a damaged one."""
    found: list[PartRecord] = []
    while not (found and found[-1].last):
        footer = read_finished(storage.join(folder, part_name(len(found))))
        if footer is None:
            break
        found.append(footer)
    return found


def tokenize_group(
    group: SplitGroup,
    job: JobConfig,
    places: Places,
    tokenizer: DocumentTokenizer,
    part_bytes: int,
    repeated_lines: U64 | None = None,
    finished: Sequence[PartRecord] = (),
    note: Note = no_note,
    excluded: RunIndex | None = None,
) -> Iterator[PartRecord]:
    """Write the parts of a group that are not finished, each of about `part_bytes` of text, and yield all of them.

    Args:
        repeated_lines: hashes of the lines to leave out.
        note: is told which split is read next.
        excluded: test sets; documents that share a run of words with them are left out, unless they are held out.
    """
    part_name = part_names(group, job, part_bytes)
    yield from finished
    first, start, piece, number = 0, group.splits[0].start, 0, len(finished)
    if finished:
        if finished[-1].last:
            return
        first, start, piece = finished[-1].next_file, finished[-1].end, finished[-1].end_piece
    reading = group.splits[first]

    def read() -> Iterator[Item]:
        nonlocal reading
        for i in range(first, len(group.splits)):
            reading, begin = group.splits[i], start if i == first else group.splits[i].start
            note(reading, number)
            for item in read_documents(reading, begin, job.tokenize.text.clean, repeated_lines):
                yield i, item

    part, opened = Part(group, job, first, start, piece), first
    part.open(group.splits[first])
    for i, item in read() if excluded is None or group.held_out else without_test_sets(read(), excluded):
        for split in group.splits[opened + 1 : i + 1]:
            part.open(split)
        opened = i
        if i == first and item.position == start and item.piece < piece:
            continue  # an earlier part holds these pieces of a long text
        if part.size >= part_bytes:
            yield part.write(places.parts, part_name(number), tokenizer, (i, item))
            part, number = Part(group, job, i, item.position, item.piece), number + 1
            part.open(group.splits[i])
            note(reading, number)
        part.add(item, tokenizer)
    for split in group.splits[opened + 1 :]:
        part.open(split)
    yield part.write(places.parts, part_name(number), tokenizer)


class TokenizeGroup(beam.DoFn):
    """SplitGroup -> PartRecords."""

    def __init__(self, job: JobConfig, places: Places, part_bytes: int):
        self.job, self.places, self.part_bytes = job, places, part_bytes

    def setup(self) -> None:
        vocabulary = read_copy(self.places.vocabulary(self.job.vocabulary_digest))
        self.tokenizer = make_document_tokenizer(self.job.tokenize, vocabulary)
        has_repeats = self.job.tokenize.max_line_repeats is not None
        self.repeated_lines = read_repeated(self.places.parts) if has_repeats else None
        sha256 = self.job.excluded_sha256
        self.excluded = RunIndex.from_bytes(read_sealed(self.places.excluded(sha256))) if sha256 else None

    def process(self, group: SplitGroup) -> Iterator[PartRecord]:
        log_begin(self.places.work_log, "tokenize")
        job = self.job.of_input(group.input)
        finished = finished_parts(self.places.parts, part_names(group, job, self.part_bytes))
        increment("tokenize", splits_in=len(group.splits), parts_reused=len(finished))
        with reading(self.places.reading_notes) as note:
            parts = tokenize_group(
                group,
                job,
                self.places,
                self.tokenizer,
                self.part_bytes,
                self.repeated_lines,
                finished,
                note,
                self.excluded,
            )
            given = 0
            for number, part in enumerate(parts, 1):
                _count(part)
                amount = group.num_bytes - given
                if not part.last:  # then the bytes that it took are not known
                    amount = min(amount, part.text_bytes * group.num_bytes // max(1, group.text_bytes))
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
                yield replace(part, input=group.input)


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
    if num_in_test_sets := part.rejected.get(IN_TEST_SET, 0):
        increment("tokenize", documents_in_test_set=num_in_test_sets)


@transform
class Tokenize(beam.PTransform[Any, Any]):
    """SplitGroups -> PartRecords."""

    job: JobConfig
    places: Places
    part_bytes: int
    """Text of a part, about."""

    def expand(self, groups: Any) -> Any:
        return groups | "tokenize group" >> beam.ParDo(TokenizeGroup(self.job, self.places, self.part_bytes))

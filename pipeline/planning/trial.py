"""The stages of a job over the cells of a sample, in a temporary folder: what they make, and how long they take."""

import os
import resource
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64
from bertloom.shards import ShardName
from pipeline.examples.shards import write_shard
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats.registry import format_named
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.planning.sample import Cell, Sample
from pipeline.stages.bucket_content import documents_of_split, read_bucket
from pipeline.stages.exclusion import without_test_sets
from pipeline.stages.parts import Part
from pipeline.stages.plan import Bucket, Plan, make_plan, write_held_out
from pipeline.text.records import Document, Record
from pipeline.text.word_runs import RunIndex
from pipeline.tokenizer import DocumentTokenizer, make_document_tokenizer
from pipeline.tokens import DOCUMENT, PartRecord, read_documents_table
from pipeline.vocabulary import Vocabulary
from pipeline.vocabulary_files import write_copy

MAX_COPIES = 5
"""Copies of a sample for which pairs are made: in one copy more documents are without an example than in several."""
Counts = dict[str, NDArray[np.float64]]
"""Name of a quantity -> its value in each cell."""


@dataclass
class Trial:
    """What the stages made of the cells."""

    extents: NDArray[np.float64]
    """Bytes on disk that were read of each cell."""
    counts: Counts = field(default_factory=dict)
    rejected: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Reason -> rejects of each cell."""
    shards: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Length -> (tokens, bytes) of the shards written."""
    copies: int = 1
    """Copies for which pairs were made."""
    written_copies: int = 1
    """Number of copies whose shards were written."""
    tokenize_seconds: list[tuple[int, float]] = field(default_factory=list)
    """(bytes of text, CPU time) of each part, in the order in which they were tokenized."""
    start_seconds: float = 0.0
    """CPU time of this process before the first cell."""
    read_seconds: float = 0.0
    """CPU time to read all buckets and cut their sentences."""
    pair_seconds: float = 0.0
    """CPU time to make all pairs."""
    shard_seconds: float = 0.0
    """CPU time to mask and write all shards."""
    memory: "Memory | None" = None
    repeats: "Repeats | None" = None


@dataclass(frozen=True)
class Repeats:
    """How often the sample has the same documents."""

    documents: int
    distinct: int
    once: int
    """Documents that the sample has once ..."""
    twice: int
    """... and those that it has twice."""
    tokens: int
    """Tokens of the distinct documents ..."""
    tokens_once: int
    """... and of those that the sample has once."""


@dataclass(frozen=True)
class Memory:
    """Resident memory of this process, in bytes."""

    before: int
    """Before the first cell."""
    tokenize: int
    """Peak until all cells were tokenized."""
    weave: int
    """Peak until the end."""
    bucket_tokens: int
    """Tokens of the largest bucket."""


def run_trial(
    sample: Sample, job: JobConfig, vocabulary: Vocabulary, folder: Path, excluded: RunIndex | None = None
) -> Trial:
    """Clean, tokenize, pair, mask and write the documents of the sample.

    The shards of one copy of each length are written; of all copies, if the sample is the whole input.

    Args:
        folder: for the files of the trial.
        excluded: the test sets of --exclude.

    Raises:
        ValueError: the sample has too few documents for pairs, or a file cannot be read.
    """
    places = Places(str(folder / "dataset"), str(folder / "work"))
    for path in (places.parts, places.scratch):
        storage.make_folder(path)
    write_copy(places.vocabulary(job.vocabulary_digest), vocabulary, job.tokenize.casing)
    if not sample.is_whole:
        copies = min(job.examples.dupe_factor, MAX_COPIES)
        job = replace(job, examples=replace(job.examples, dupe_factor=copies, validation_fraction=0.0, min_shards=1))
    before, start_seconds = _peak(), time.process_time()
    parts, trial = _tokenize(sample, job, vocabulary, places, excluded)
    peak_tokenize, trial.start_seconds = _peak(), start_seconds
    records = [part.record for part in parts]
    held_out_ids = write_held_out(records, places) if sample.is_whole else None
    plan = make_plan(
        records,
        places.parts,
        job.examples.validation_fraction,
        job.examples.min_sources,
        None,
        held_out_ids,
        job.examples.min_shards,
    )
    *cell_of, trial.repeats = _cells_of_documents(parts, places.parts)
    trial.written_copies, largest = job.examples.dupe_factor if sample.is_whole else 1, 0
    for bucket in plan.buckets:
        largest = max(largest, _weave(bucket, plan, job, places, vocabulary, cell_of, held_out_ids, trial))
    trial.memory = Memory(before, peak_tokenize, _peak(), largest)
    return trial


@dataclass(frozen=True)
class CellPart:
    """A part with the documents of several cells."""

    record: PartRecord
    cells: I64
    """The cell of each of its files."""
    rejected: tuple[Counter[str], ...]
    """Rejects of each file, by reason."""
    text_bytes: tuple[int, ...]
    """Of each file."""


def _tokenize(
    sample: Sample, job: JobConfig, vocabulary: Vocabulary, places: Places, excluded: RunIndex | None
) -> tuple[list[CellPart], Trial]:
    """Write the documents of all cells to parts. Return these, and a trial with their counts and times.

    A part has several cells, so that texts are tokenized in blocks of the size that a real job has.
    """
    tokenizer = make_document_tokenizer(job.tokenize, vocabulary)
    extents, parts, seconds = np.zeros(len(sample.cells)), list[CellPart](), list[float]()
    part, numbers, start = None, list[int](), time.process_time()
    for number, cell in enumerate(sample.cells):
        part = part or Part(cell.group, job, 0, cell.group.splits[0].start, 0)
        extents[number] = read_cell(cell, job, tokenizer, part, excluded)
        numbers += [number] * (len(part.files) - len(numbers))
        if sample.is_whole or part.size >= sample.part_bytes or number == len(sample.cells) - 1:
            record = part.write(places.parts, f"{number:06d}.part", tokenizer)
            if (
                sample.is_whole
            ):  # a part is then of one source, and equal documents belong to the first source, as in a job
                record = replace(record, input=cell.group.input)
            rejected, text_bytes = (
                tuple(getattr(file, name) for file in part.files) for name in ("rejected", "text_bytes")
            )
            parts.append(CellPart(record, np.array(numbers, np.int64), rejected, text_bytes))
            seconds.append(time.process_time() - start)
            part, numbers, start = None, [], time.process_time()
    trial = Trial(extents, copies=job.examples.dupe_factor)
    trial.tokenize_seconds = list(zip([sum(part.text_bytes) for part in parts], seconds, strict=True))
    _count_parts(parts, places.parts, trial)
    return parts, trial


def read_cell(cell: Cell, job: JobConfig, tokenizer: DocumentTokenizer, part: Part, excluded: RunIndex | None) -> float:
    """Add the documents of a cell to a part. Return the bytes on disk that were read."""
    extent = 0.0
    for split, file in zip(cell.group.splits, cell.files, strict=True):
        part.open(split)
        text_bytes, per_byte = 0, format_named(file.source.format).text_per_byte
        clean = job.of_input(split.source.input).tokenize.text.clean
        items: Iterable[Record] = read_documents(split, config=clean, is_whole=cell.limit is None)
        if excluded and not cell.group.held_out:
            items = (item for _, item in without_test_sets(((0, item) for item in items), excluded))
        for item in items:
            if split.end is not None and item.position >= split.end:
                break  # formats with rows read all of a row group
            if cell.limit is not None and item.piece == 0:
                worth = (item.position - split.start) * file.bytes_per_position or text_bytes / per_byte
                if worth >= cell.limit:
                    return extent + worth
            text_bytes += len(item.text) if isinstance(item, Document) else 0
            part.add(item, tokenizer)
        extent += split.num_bytes
    return extent


def _count_parts(parts: Sequence[CellPart], folder: str, trial: Trial) -> None:
    """Add what the parts hold of each cell to a trial."""
    names = ("documents_in", "text_bytes", "part_documents", "part_bytes")
    trial.counts = {name: np.zeros(len(trial.extents)) for name in names}
    for part in parts:
        rows = _rows(part, folder)
        cells = part.cells[rows["file"]]
        np.add.at(trial.counts["part_documents"], cells, 1)
        np.add.at(trial.counts["documents_in"], cells, 1)
        np.add.at(trial.counts["text_bytes"], part.cells, np.array(part.text_bytes))
        for cell, rejected in zip(part.cells, part.rejected, strict=True):
            trial.counts["documents_in"][cell] += rejected.total()
            for reason, number in rejected.items():
                trial.rejected.setdefault(reason, np.zeros(len(trial.extents)))[cell] += number
        size = sum(size for name, (_, size) in part.record.sections.items() if name != "index")
        weights = rows["num_tokens"] * 2.0 + rows["num_sentences"] * 4.0 + DOCUMENT.itemsize
        np.add.at(trial.counts["part_bytes"], cells, weights * (size / max(1.0, float(weights.sum()))))


def _rows(part: CellPart, folder: str) -> NDArray[np.void]:
    return read_documents_table(storage.join(folder, part.record.name), part.record)


def _cells_of_documents(parts: Sequence[CellPart], folder: str) -> tuple[NDArray[np.uint64], I64, Repeats]:
    """Return (ids, sorted; the cell of each; how many are equal). The first of equal documents counts, in part order."""
    ordered = sorted(parts, key=lambda part: part.record.sort_key)
    tables = [_rows(part, folder) for part in ordered]
    ids = np.concatenate([np.zeros(0, np.uint64), *(rows["id"] for rows in tables)])
    cells = [part.cells[rows["file"]] for part, rows in zip(ordered, tables, strict=True)]
    found, first, number = np.unique(ids, return_index=True, return_counts=True)
    tokens = np.concatenate([np.zeros(0, np.int64), *(rows["num_tokens"] for rows in tables)])[first]
    once, twice = number == 1, number == 2
    counts = len(ids), len(found), int(once.sum()), int(twice.sum()), int(tokens.sum()), int(tokens[once].sum())
    return found, np.concatenate([np.zeros(0, np.int64), *cells])[first], Repeats(*counts)


def _weave(
    bucket: Bucket,
    plan: Plan,
    job: JobConfig,
    places: Places,
    vocabulary: Vocabulary,
    cell_of: list[NDArray[Any]],
    held_out_ids: NDArray[np.uint64] | None,
    trial: Trial,
) -> int:
    """Write the shards of a bucket, as the weave stage does, and add what they hold to the trial. Return its tokens."""
    config, num_cells = job.examples, len(trial.extents)
    start = time.process_time()
    tokens = read_bucket(bucket, plan, places.parts, None, documents_of_split(bucket, plan, held_out_ids)).tokens
    rows = tokens.documents
    cells = cell_of[1][np.searchsorted(cell_of[0], rows["id"])]

    def add(name: str, weights: NDArray[np.generic] | None, of: I64 = cells) -> None:
        counted = np.bincount(of, weights, minlength=num_cells)
        trial.counts[name] = trial.counts.get(name, np.zeros(num_cells)) + counted

    used = np.zeros(len(rows), bool)
    for length in config.max_seq_length:
        sentences, masking = config.sentences(tokens, vocabulary.kinds, length), config.masking(length, vocabulary)
        trial.read_seconds += time.process_time() - start
        for copy in range(config.dupe_factor):
            start = time.process_time()
            pairs, _ = config.make_pairs(sentences, length, copy)
            trial.pair_seconds += time.process_time() - start
            used[pairs.document_a] = True
            used[pairs.document_b] = True
            add(f"examples/{bucket.split}/{length}", None, cells[pairs.document_a])
            in_shard = (pairs.a_length + pairs.b_length + 2 + (pairs.b_length > 0)).astype(np.float64)
            add(f"example_tokens/{length}", in_shard, cells[pairs.document_a])
            if len(pairs) and copy < trial.written_copies:
                start = time.process_time()
                shard = ShardName(split=bucket.split, max_seq_length=length, copy=copy, number=bucket.number)
                row = write_shard(places.dataset, shard, sentences, pairs, config.seed, masking)
                num_tokens, num_bytes = trial.shards.get(length, (0, 0))
                trial.shards[length] = num_tokens + row["tokens"], num_bytes + row["bytes"]
                os.remove(storage.join(places.dataset, *row["path"].split("/")))
                trial.shard_seconds += time.process_time() - start
        start = time.process_time()
    add("documents_used", used.astype(np.float64))
    add("documents_without_example", (~used).astype(np.float64))
    add("distinct_documents", None)
    add("sentences", rows["num_sentences"].astype(np.float64))
    add("tokens", rows["num_tokens"].astype(np.float64))
    return len(tokens.ids)


def _peak() -> int:
    """Return the peak of this process's resident memory, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB

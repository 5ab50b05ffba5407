"""The plan stage: all part records -> the plan: the list of parts, and the buckets of documents.

A bucket is a range of document ids with about 2^23 tokens. An id depends on the text alone, so the same texts fall into the
same buckets. Train and validation documents have separate buckets. A range with fewer than two sources is merged with its
neighbour, because no random pair can be drawn from it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import product
from operator import itemgetter
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import U64
from bertloom.counts import counted, first_files
from bertloom.draws import VALIDATION, mix
from bertloom.limits import MAX_SHARDS
from bertloom.sealed_files import read_sealed, write_sealed
from bertloom.shards import SPLITS
from pipeline.dataset import HeldOut
from pipeline.examples.configuration import SHARES
from pipeline.job import JobConfig
from pipeline.part_sources import damaged_files
from pipeline.places import Places
from pipeline.stages.counters import increment
from pipeline.stages.known_documents import KnownDocuments, read_known
from pipeline.stages.known_near_duplicates import near_duplicate_ids
from pipeline.stages.layouts import layout_advice
from pipeline.stages.rejected import explain_rejects
from pipeline.stages.selection import Selection, check_not_empty, select_documents
from pipeline.stages.transform import transform
from pipeline.stages.work_log import log_begin
from pipeline.tokens import PartRecord, read_documents_table

BUCKET_TOKENS = 1 << 23
MAX_BUCKETS = MAX_SHARDS
MIN_VALIDATION_DOCUMENTS = 8
MAX_TRIED = 4096  # documents of a file, in the order in which they would be held out


@dataclass(frozen=True)
class Bucket:
    """The documents of one split with low <= id < high."""

    split: str
    number: int
    low: int
    high: int
    input: int = -1
    """Number of the source of its data set, in jobs that make one for each."""


@dataclass(frozen=True)
class Plan:
    """The input of the weave stage. Written once, then read by every worker."""

    parts: tuple[PartRecord, ...]
    """Sorted by (source, start)."""
    buckets: tuple[Bucket, ...]
    validation_fraction: float
    """0 if there are too few validation documents for pairs."""
    num_documents: int
    notes: tuple[str, ...]
    """Messages for the user."""
    near_duplicates_sha256: str = ""
    """Digest of the ids of near duplicates; empty if these are not left out."""
    held_out_sha256: str = ""
    """Digest of the ids of the documents of --validation-input; empty without that flag."""
    known_sha256: str = ""
    """Digest of the documents that the data sets of --extend have; empty without that flag."""
    selection: Selection | None = None
    """Which documents of the sources are used; None: all."""
    first_part: int = 0
    """Number of its first part among the parts of all sources."""

    @cached_property
    def digest(self) -> str:
        names = [part.name for part in self.parts]
        key = [
            names,
            list(map(vars, self.buckets)),
            self.validation_fraction,
            self.near_duplicates_sha256,
            self.held_out_sha256,
            self.known_sha256,
        ]
        if any(part.input >= 0 for part in self.parts):
            key.append([part.input for part in self.parts])
        if self.selection is not None:
            key.append(self.selection.key)
        return hashlib.sha256(json.dumps(key).encode()).hexdigest()


def shards_of_bucket(job: JobConfig) -> list[tuple[int, int]]:
    """Return (length, copy) of the shards of a bucket."""
    return list(product(job.examples.max_seq_length, range(job.examples.dupe_factor)))


def make_plan(
    parts: Iterable[PartRecord],
    folder: str,
    validation_fraction: float,
    min_sources: int = 2,
    near_duplicate_ids: U64 | None = None,
    held_out_ids: U64 | None = None,
    min_shards: int = 1,
    known: KnownDocuments | None = None,
    selection: Selection | None = None,
) -> Plan:
    """Return the plan for all parts, which may come in any order.

    Reads the table of documents of every part twice; memory holds that of one part.

    Args:
        min_sources: sources that every bucket needs: 2 for random next segments, else 1.
        near_duplicate_ids: documents to leave out.
        held_out_ids: documents of --validation-input, sorted, if there is that flag.
        min_shards: fewest train buckets, as far as the documents allow.
        known: documents of the data sets that the job extends, which are left out, too.
        selection: which documents of the sources are used.
    """
    ordered = tuple(sorted(parts, key=lambda part: part.sort_key))
    num_documents = sum(part.num_documents for part in ordered)
    if num_documents == 0:
        rejected = sum(sum(part.rejected.values()) for part in ordered)
        passed_over = Counter[str]()
        for part in ordered:
            passed_over.update(part.passed_over)
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in passed_over.most_common())
        raise ValueError(
            f"no documents: the input has no text that can be read ({counted(rejected, 'record')} rejected"
            + (f"; passed over: {reasons})" if reasons else ")")
        )

    def tables() -> Iterator[NDArray[np.void]]:
        return _tables(ordered, folder, near_duplicate_ids, known, selection)

    notes: list[str] = []
    is_held_out = HeldOut(validation_fraction, held_out_ids)
    held_out: set[int] = set()
    num_single = 0
    tokens = dict.fromkeys(SPLITS, 0)
    for rows in tables():
        validation = is_held_out(rows["id"])
        tokens["validation"] += int(rows["num_tokens"][validation].sum())
        tokens["train"] += int(rows["num_tokens"][~validation].sum())
        num_single += int((rows["num_sentences"] == 1).sum())
        if len(held_out) < MIN_VALIDATION_DOCUMENTS:
            held_out.update(rows["source_key"][validation].tolist())
    if 2 * num_single > num_documents:
        notes.append(f"{num_single:,} of {num_documents:,} documents have a single sentence. {_why_single(ordered)}")
    if validation_fraction and len(held_out) < MIN_VALIDATION_DOCUMENTS:
        notes.append(
            f"no validation split: --validation-fraction {validation_fraction} selects only "
            f"{counted(len(held_out), 'text')}, and pairs need at least {MIN_VALIDATION_DOCUMENTS}; all documents are used "
            f"for training. {_enough(tables())}"
        )
        validation_fraction = 0.0
        is_held_out = HeldOut(0.0)
        tokens = {"train": sum(tokens.values()), "validation": 0}
    if known is not None and not sum(tokens.values()):
        raise ValueError(
            f"the data sets of --extend have all {counted(num_documents, 'document')} already, so nothing is new: train on "
            f"these data sets, or give other files with --input"
        )
    if known is not None and not tokens["validation"]:
        held_out_ids = None  # the data sets have all of these documents
    if held_out_ids is not None and not tokens["validation"]:
        raise ValueError("--validation-input: its files have no document that can be used: give files with text")
    if not tokens["train"]:
        raise ValueError(
            "no document is left for training, because "
            + (
                f"--validation-fraction {validation_fraction} selects all: give a smaller fraction, or more text"
                if held_out_ids is None
                else "--validation-input has all texts of --input: give other texts with --input"
            )
        )

    if damaged := sorted(damaged_files(ordered, folder)):
        notes.append(
            f"{first_files(damaged)}: damaged. The undamaged parts were used; rejects.jsonl.gz lists what was not"
        )

    counts = {split: count_buckets(tokens[split]) for split in SPLITS if tokens[split]}
    counts["train"] = max(counts["train"], min_shards)
    buckets = _make_buckets(tables, is_held_out, counts, min_sources, min_shards)
    if (found := sum(bucket.split == "train" for bucket in buckets)) < min_shards:
        notes.append(
            f"--min-shards {min_shards}: the documents are only enough for {counted(found, 'shard')} of each copy, because "
            f"a shard needs at least {counted(min_sources, 'text')}"
        )
    near, held = _digest(near_duplicate_ids), _digest(held_out_ids)
    digests = near, held, known.digest if known else ""
    return Plan(ordered, tuple(buckets), validation_fraction, num_documents, tuple(notes), *digests, selection)


def count_buckets(tokens: int) -> int:
    """Return the number of buckets for this many tokens of a split, before any are merged."""
    return min(max(1, -(-tokens // BUCKET_TOKENS)), MAX_BUCKETS)


def _make_buckets(
    tables: Callable[[], Iterable[NDArray[np.void]]],
    is_held_out: HeldOut,
    counts: dict[str, int],
    min_sources: int,
    min_shards: int,
) -> list[Bucket]:
    """Return the buckets of all splits.

    counts: number of ranges of ids to begin with, per split. Ranges with too few sources are merged. If fewer than
    `min_shards` train buckets are left, twice as many ranges are tried.
    """
    while True:
        lowest, highest = _source_keys(tables(), counts, is_held_out)
        ranges = {split: _merge(lowest[split].tolist(), highest[split].tolist(), min_sources) for split in counts}
        if len(ranges["train"]) >= min_shards or counts["train"] >= MAX_BUCKETS:
            break
        counts = {**counts, "train": min(2 * counts["train"], MAX_BUCKETS)}
    for split, found in ranges.items():
        if not found:
            raise ValueError(
                f"the {split} documents are all pieces of one text, but the random segments of next sentence prediction "
                f"come from another text: give at least two documents, or use --pairs none"
            )
    return [
        Bucket(split, number, first_id(first, counts[split]), first_id(last + 1, counts[split]))
        for split, found in ranges.items()
        for number, (first, last) in enumerate(found)
    ]


def _enough(tables: Iterable[NDArray[np.void]]) -> str:
    """Return which --validation-fraction selects enough texts."""
    lowest: dict[int, int] = {}  # source key -> the smallest draw of its documents
    for rows in tables:
        draws = mix(rows["id"] ^ np.uint64(VALIDATION))
        for i in np.argsort(draws, kind="stable")[:MAX_TRIED].tolist():
            key, draw = int(rows["source_key"][i]), int(draws[i])
            lowest[key] = min(draw, lowest.get(key, draw))
        lowest = dict(sorted(lowest.items(), key=itemgetter(1))[:MIN_VALIDATION_DOCUMENTS])
    last = max(lowest.values(), default=0)
    fraction = (last * 100 // 2**64 + 1) / 100
    if len(lowest) < MIN_VALIDATION_DOCUMENTS or fraction > SHARES["validation_fraction"]:
        return "The input is too small for a validation split; --validation-input can take it from other files"
    return f"--validation-fraction {fraction} is enough for a validation split"


def _digest(ids: U64 | None) -> str:
    return "" if ids is None else hashlib.sha256(ids.tobytes()).hexdigest()


def write_held_out(parts: Iterable[PartRecord], places: Places) -> U64 | None:
    """Write the ids of the documents of --validation-input, and return them, sorted; None without that flag."""
    held_out = [part for part in parts if part.held_out]
    if not held_out:
        return None
    ids = [read_documents_table(storage.join(places.parts, part.name), part)["id"] for part in held_out]
    found: U64 = np.unique(np.concatenate(ids))
    write_sealed(places.held_out, [found.tobytes()])
    return found


def read_held_out(path: str) -> U64:
    """Return the ids that `write_held_out` wrote."""
    return np.frombuffer(read_sealed(path), np.uint64)


def _tables(
    parts: Sequence[PartRecord],
    folder: str,
    near_duplicate_ids: U64 | None,
    known: KnownDocuments | None,
    selection: Selection | None,
) -> Iterator[NDArray[np.void]]:
    """Yield the DOCUMENT rows of each part without known documents, near duplicates and what is not selected."""
    for number, part in enumerate(parts):
        rows = read_documents_table(storage.join(folder, part.name), part)
        if known is not None:
            rows = rows[~np.isin(rows["id"], known.of_part(number)["id"])]
        if selection is not None:
            rows = rows[selection.chosen(rows["id"], part.input, None)]
        yield rows if near_duplicate_ids is None else rows[~np.isin(rows["id"], near_duplicate_ids)]


def _source_keys(
    tables: Iterable[NDArray[np.void]], counts: dict[str, int], is_held_out: HeldOut
) -> tuple[dict[str, U64], dict[str, U64]]:
    """Return the lowest and the highest source key of each range, per split.

    Both are equal in a range with one source. In an empty range they are 2^64 - 1 and 0.
    """
    lowest = {split: np.full(n, 2**64 - 1, np.uint64) for split, n in counts.items()}
    highest = {split: np.zeros(n, np.uint64) for split, n in counts.items()}
    for rows in tables:
        validation = is_held_out(rows["id"])
        for split, chosen in (("train", ~validation), ("validation", validation)):
            if split in counts:
                edges = np.array([first_id(i, counts[split]) for i in range(counts[split])], np.uint64)
                bucket = np.searchsorted(edges, rows["id"][chosen], side="right") - 1
                np.minimum.at(lowest[split], bucket, rows["source_key"][chosen])
                np.maximum.at(highest[split], bucket, rows["source_key"][chosen])
    return lowest, highest


def first_id(bucket: int, count: int) -> int:
    """Return the smallest id with floor(id * count / 2^64) == bucket."""
    return -(-(bucket << 64) // count)


def _why_single(parts: Iterable[PartRecord]) -> str:
    """Return what to check if most documents have a single sentence."""
    if any(part.num_text_documents for part in parts):
        return "A blank line ends a document: check that the input has no blank line after every sentence"
    return "If a record is a sentence or a line of a longer text, give --records"


def _merge(lowest: Sequence[int], highest: Sequence[int], min_sources: int = 2) -> list[tuple[int, int]]:
    """Return (first, last) of merged ranges with `min_sources` sources each, or [] if there are too few sources in all.

    A range with too few is merged with the next one; the last range with the one before it.
    """
    merged: list[tuple[int, int]] = []
    start, low, high = 0, 2**64 - 1, 0
    for i in range(len(lowest)):
        low, high = min(low, lowest[i]), max(high, highest[i])
        if low < high or (low == high and min_sources == 1):
            merged.append((start, i))
            start, low, high = i + 1, 2**64 - 1, 0
    if merged:
        merged[-1] = (merged[-1][0], len(lowest) - 1)
    return merged


def write_plan(path: str, plan: Plan) -> None:
    """Write a plan as JSON, with a checksum."""
    content = {field.name: getattr(plan, field.name) for field in fields(plan)}
    content["selection"] = plan.selection and asdict(plan.selection)
    write_sealed(path, [json.dumps(content, default=vars).encode()])  # `asdict` takes ten times as long


def read_plan(path: str) -> Plan:
    """Return the plan in a file."""
    content = json.loads(read_sealed(path))
    content["parts"] = tuple(map(PartRecord.from_json, content["parts"]))
    content["buckets"] = tuple(Bucket(**bucket) for bucket in content["buckets"])
    content["notes"] = tuple(content["notes"])
    content["selection"] = content["selection"] and Selection(**content["selection"])
    return Plan(**content)


@transform
class PlanBuckets(beam.PTransform[Any, Any]):
    """PartRecords -> Buckets, when the plan is written."""

    job: JobConfig
    places: Places

    def expand(self, parts: Any) -> Any:
        return (
            parts
            | "all parts" >> beam.GroupBy(lambda _: None)
            | "make plan" >> beam.FlatMapTuple(self.make_plan)
            | "spread buckets" >> beam.Reshuffle()
        )

    def make_plan(self, _: None, parts: Iterable[PartRecord]) -> tuple[Bucket, ...]:
        log_begin(self.places.work_log, "plan")
        ordered = sorted(parts, key=lambda part: part.sort_key)
        try:
            plans = self.plans(ordered)
        except ValueError as error:
            read = self.job.tokenize.text.read
            of_all = None if self.job.inputs else read
            more = (layout_advice(ordered, read), explain_rejects(ordered, self.places, of_all))
            raise ValueError(". ".join(filter(None, [str(error), *more]))) from error
        buckets: list[Bucket] = []
        for number, plan in plans.items():
            if advice := layout_advice(plan.parts, self.job.tokenize.text.read):
                plan = replace(plan, notes=(*plan.notes, advice))
            plan = replace(plan, buckets=tuple(replace(bucket, input=number) for bucket in plan.buckets))
            write_plan(self.job.places_of(self.places, number).plan, plan)
            buckets += plan.buckets
        increment("plan", parts_in=len(ordered), buckets_out=len(buckets))
        log_begin(self.places.work_log, "weave", len(buckets) * len(shards_of_bucket(self.job)))
        return tuple(buckets)

    def plans(self, parts: Sequence[PartRecord]) -> dict[int, Plan]:
        """Return the plan of each data set by the number of its source; -1: the data set of all sources."""
        examples, places, inputs = self.job.examples, self.places, self.job.inputs
        ids = near_duplicate_ids(places, self.job)
        held_out, selection = write_held_out(parts, places), None
        if not self.job.extends:  # else a source may have nothing new
            check_not_empty(parts, inputs)
        if self.job.per_source or any(one.tokens is not None for one in inputs):
            selection = select_documents(parts, inputs, places, ids)
        options: dict[str, Any] = {
            "validation_fraction": examples.validation_fraction,
            "min_sources": examples.min_sources,
            "near_duplicate_ids": ids,
            "held_out_ids": held_out,
            "min_shards": examples.min_shards,
            "selection": selection,
            "known": read_known(places, self.job),
        }
        if not self.job.per_source:
            return {-1: make_plan(parts, places.parts, **options)}
        plans = {}
        for number, one in enumerate(inputs):
            try:
                plan = make_plan([part for part in parts if part.input == number], places.parts, **options)
            except ValueError as error:
                raise ValueError(f"the source {one.name}: {error}") from error
            plans[number] = replace(plan, first_part=sum(part.input < number for part in parts))
        return plans

"""The plan stage: all part records -> the list of parts, and the buckets of ids that the weave stage works on.

A bucket is a range of document ids, about 2^23 tokens of text; which documents fall in it is decided by their text alone.
Train and validation documents have buckets of their own. A range with fewer than two sources, from which no random pair
can be drawn, is joined to its neighbour.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from bertloom.draws import VALIDATION, mix, threshold
from bertloom.shards import SPLITS
from pipeline.stages.near_duplicates import read_near_duplicates
from pipeline.stages.packs import Pack, pack_parts, token_files
from pipeline.tokens import PartRecord, TokenFile, read_documents_table

BUCKET_TOKENS = 1 << 23
MAX_BUCKETS = 4096
MIN_VALIDATION_DOCUMENTS = 8


@dataclass(frozen=True)
class Bucket:
    """The documents of one split with low <= id < high."""

    split: str
    number: int
    low: int
    high: int


@dataclass(frozen=True)
class Plan:
    """What the weave stage works from; written once, then read by every worker."""

    parts: tuple[PartRecord, ...]
    """Sorted by (source, start)."""
    buckets: tuple[Bucket, ...]
    validation_fraction: float
    """0 where there are too few validation documents to pair."""
    num_documents: int
    notes: tuple[str, ...]
    """Said aloud to the person who runs the job."""
    left_out: str = ""
    """SHA-256 of the ids of near duplicates, where they are left out."""
    packs: tuple[Pack, ...] = ()
    """Files with many small parts in each; they are read in place of these."""

    @property
    def files(self) -> Iterator[tuple[int, TokenFile]]:
        """(number of its first part, file) of all files to read, in the order of the parts."""
        return token_files(self.parts, self.packs)

    @property
    def digest(self) -> str:
        names = [part.name for part in self.parts]
        buckets = [asdict(bucket) for bucket in self.buckets]
        key = [names, buckets, self.validation_fraction, *filter(None, [self.left_out])]
        return hashlib.sha256(json.dumps(key).encode()).hexdigest()


def is_validation(ids: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Which documents are held out: decided by their text, so a larger corpus holds out the same ones and more."""
    return mix(ids ^ np.uint64(VALIDATION)) < np.uint64(threshold(fraction, 64))


def make_plan(
    parts: Iterable[PartRecord],
    folder: str,
    validation_fraction: float,
    min_sources: int = 2,
    left_out: NDArray[np.uint64] | None = None,
) -> Plan:
    """The plan for these parts, in whatever order they come. Two passes over their documents; memory for one file.

    Small parts are packed first, which writes files.

    min_sources: that every bucket needs; 2 for random next segments, else 1. left_out: ids of near duplicates.
    """
    ordered = tuple(sorted(parts, key=lambda part: part.sort_key))
    packs = pack_parts(ordered, folder)
    files = [file for _, file in token_files(ordered, packs)]
    num_documents = sum(part.num_documents for part in ordered)
    if num_documents == 0:
        rejected = sum(sum(part.rejected.values()) for part in ordered)
        raise ValueError(f"no documents: the input holds no text that can be read ({rejected} records rejected)")

    notes: list[str] = []
    held_out: set[int] = set()
    num_single = 0
    tokens = dict.fromkeys(SPLITS, 0)
    for rows in _tables(files, folder, left_out):
        validation = is_validation(rows["id"], validation_fraction)
        tokens["validation"] += int(rows["num_tokens"][validation].sum())
        tokens["train"] += int(rows["num_tokens"][~validation].sum())
        num_single += int((rows["num_sentences"] == 1).sum())
        if len(held_out) < MIN_VALIDATION_DOCUMENTS:
            held_out.update(rows["source_key"][validation].tolist())
    if 2 * num_single > num_documents:
        notes.append(
            f"{num_single:,} of {num_documents:,} documents have a single sentence: is there a blank line behind every "
            f"sentence of the input? A blank line ends a document"
        )
    if validation_fraction and len(held_out) < MIN_VALIDATION_DOCUMENTS:
        notes.append(
            f"no validation split: only {len(held_out)} texts fell to --validation-fraction {validation_fraction}, "
            f"and {MIN_VALIDATION_DOCUMENTS} are needed to pair; all documents are used for training"
        )
        validation_fraction = 0.0
        tokens = {"train": sum(tokens.values()), "validation": 0}

    counts = {split: min(max(1, -(-tokens[split] // BUCKET_TOKENS)), MAX_BUCKETS) for split in SPLITS if tokens[split]}
    lowest, highest = _source_keys(_tables(files, folder, left_out), counts, validation_fraction)
    buckets = []
    for split, count in counts.items():
        ranges = _merge(lowest[split].tolist(), highest[split].tolist(), min_sources)
        if not ranges:
            raise ValueError(
                f"the {split} documents are all pieces of one text: next sentence prediction takes its random segments "
                f"from another text; give at least two documents, or make single segments with --pairs none"
            )
        for number, (first, last) in enumerate(ranges):
            buckets.append(Bucket(split, number, _edge(first, count), _edge(last + 1, count)))
    digest = "" if left_out is None else hashlib.sha256(left_out.tobytes()).hexdigest()
    return Plan(ordered, tuple(buckets), validation_fraction, num_documents, tuple(notes), digest, packs)


def _tables(files: Sequence[TokenFile], folder: str, left_out: NDArray[np.uint64] | None) -> Iterator[NDArray[np.void]]:
    for file in files:
        rows = read_documents_table(storage.join(folder, file.name), file)
        yield rows if left_out is None else rows[~np.isin(rows["id"], left_out)]


def _source_keys(tables: Iterable[NDArray[np.void]], counts: dict[str, int], fraction: float):
    """The lowest and the highest source key in each range: equal where there is one source; 2^64 - 1 and 0 for none."""
    lowest = {split: np.full(n, 2**64 - 1, np.uint64) for split, n in counts.items()}
    highest = {split: np.zeros(n, np.uint64) for split, n in counts.items()}
    for rows in tables:
        validation = is_validation(rows["id"], fraction)
        for split, chosen in (("train", ~validation), ("validation", validation)):
            if split in counts:
                some = rows[chosen]
                edges = np.array([_edge(i, counts[split]) for i in range(counts[split])], np.uint64)
                bucket = np.searchsorted(edges, some["id"], side="right") - 1
                np.minimum.at(lowest[split], bucket, some["source_key"])
                np.maximum.at(highest[split], bucket, some["source_key"])
    return lowest, highest


def _edge(bucket: int, count: int) -> int:
    """The least id with floor(id * count / 2^64) == bucket."""
    return -(-(bucket << 64) // count)


def _merge(lowest: Sequence[int], highest: Sequence[int], min_sources: int = 2) -> list[tuple[int, int]]:
    """(first, last) ranges, each with two sources: a poor one joins the next, the last one before it. [] for one source."""
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
    storage.write_whole(path, [json.dumps(asdict(plan)).encode()])


def read_plan(path: str) -> Plan:
    fields = json.loads(storage.read(path))
    fields["parts"] = tuple(map(PartRecord.of, fields["parts"]))
    fields["buckets"] = tuple(Bucket(**bucket) for bucket in fields["buckets"])
    fields["packs"] = tuple(map(Pack.of, fields["packs"]))
    fields["notes"] = tuple(fields["notes"])
    return Plan(**fields)


class MakePlan(beam.DoFn):
    """(None, all PartRecords) -> Buckets."""

    def __init__(self, folder: str, path: str, validation_fraction: float, min_sources: int, near: str | None = None):
        self.folder, self.path, self.near = folder, path, near
        self.validation_fraction, self.min_sources = validation_fraction, min_sources

    def process(self, group: tuple[None, Iterable[PartRecord]]) -> Iterator[Bucket]:
        left_out = read_near_duplicates(self.near)["id"] if self.near else None
        plan = make_plan(group[1], self.folder, self.validation_fraction, self.min_sources, left_out)
        write_plan(self.path, plan)
        yield from plan.buckets


class PlanBuckets(beam.PTransform):
    """PartRecords -> Buckets."""

    def __init__(self, folder: str, path: str, validation_fraction: float, min_sources: int, near: str | None = None):
        """near: the file of near duplicates."""
        super().__init__()
        self.do = MakePlan(folder, path, validation_fraction, min_sources, near)

    def expand(self, parts):
        return (
            parts
            | "all parts" >> beam.GroupBy(lambda _: None)
            | "make plan" >> beam.ParDo(self.do)
            | "spread buckets" >> beam.Reshuffle()
        )

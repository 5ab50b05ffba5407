"""The weave stage: a bucket of documents -> its shards, one per length and copy.

A finished bucket leaves a record with the digests of its shards. A restart uses the record and does not weave again. A
retried bundle writes the same bytes under the same names.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64, U64, Bools
from bertloom.sealed_files import is_sealed, read_sealed, write_sealed
from bertloom.shards import ShardName
from pipeline.dataset import DOCUMENTS_SCHEMA
from pipeline.examples.shards import write_shard
from pipeline.inputs.rejects import rejects_log
from pipeline.job import JobConfig
from pipeline.options import flat
from pipeline.places import Places
from pipeline.stages.bucket_content import BucketContent, documents_of_split, read_bucket
from pipeline.stages.counters import increment
from pipeline.stages.document_sketches import page_name, sketches_page
from pipeline.stages.known_documents import KnownDocuments, KnownInBucket, read_known
from pipeline.stages.known_near_duplicates import near_duplicate_ids
from pipeline.stages.parquet import parquet_bytes
from pipeline.stages.plan import Bucket, Plan, read_held_out, read_plan, shards_of_bucket
from pipeline.stages.transform import transform
from pipeline.stages.work_log import log_piece
from pipeline.text.records import SHOWN_CHARACTERS, Reject
from pipeline.tokens import PartRecord, TokenBlock
from pipeline.vocabulary import Vocabulary
from pipeline.vocabulary_files import read_copy


@dataclass(frozen=True, kw_only=True)
class BucketRecord:
    """All that the manifest stage needs to know of a finished bucket."""

    split: str
    number: int
    shards: tuple[dict[str, Any], ...]
    """Rows of shards.parquet."""
    documents_sha256: str
    num_used: int
    num_duplicates: int
    """Near duplicates included."""
    num_near_duplicates: int
    """Duplicates in the data sets of --extend are included."""
    num_without_example: int
    num_sentences: int
    num_tokens: int
    rejects: str
    """Name, in the folder of records, of the log of documents that are in no example; empty if there are none."""
    counters: dict[str, int]
    """Pairs made and dropped, by "name/max_seq_length"."""
    rejects_sha256: str = ""
    """sha256 of this log."""
    num_known: tuple[int, ...] = ()
    """Duplicates that each data set of --extend has; they are among `num_duplicates`."""
    sketches_sha256: str = ""
    """sha256 of the page of sketches, which a job with --near-duplicates writes."""
    input: int = -1
    """Number of the source of its data set, in jobs that make one for each."""
    by_input: dict[str, dict[str, int]] = field(default_factory=dict)
    """Number of a source, as a string -> its counters (pipeline/stages/source_counts.py)."""


def record_path(bucket: Bucket, plan: Plan, job: JobConfig, places: Places) -> str:
    """Return the path of a bucket's record: a digest of all that decides the bucket's shards."""
    key = json.dumps([plan.digest, flat(job.examples), job.vocabulary_digest, bucket.split, bucket.number])
    return storage.join(places.records, f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json")


def weave_bucket(
    bucket: Bucket,
    plan: Plan,
    job: JobConfig,
    places: Places,
    near_duplicate_ids: U64 | None = None,
    held_out_ids: U64 | None = None,
    known: KnownDocuments | None = None,
) -> BucketRecord:
    """Write the shards of a bucket and its page of documents, and return the bucket's record."""
    config, vocabulary = job.examples, read_copy(places.vocabulary(job.vocabulary_digest))
    choose = documents_of_split(bucket, plan, held_out_ids, near_duplicate_ids)
    left_out = KnownInBucket(known, bucket.low, bucket.high, choose) if known else None
    content = read_bucket(bucket, plan, places.parts, near_duplicate_ids, left_out or choose)
    if left_out:
        content.num_read[:] += left_out.by_part(len(plan.parts))
    num_known = left_out.totals() if left_out else ()
    tokens, num_duplicates = content.tokens, content.num_duplicates
    input_of = inputs_of(plan.parts)
    path = record_path(bucket, plan, job, places)
    used = np.zeros(len(tokens.documents), bool)
    shards: list[dict[str, Any]] = []
    counters: Counter[str] = Counter()
    examples: dict[int, I64] = {}  # of each length, by the number of the source of A, from -1
    for length in config.max_seq_length:
        sentences = config.sentences(tokens, vocabulary.kinds, length)
        masking = config.masking(length, vocabulary)
        for copy in range(config.dupe_factor):
            pairs, counted = config.make_pairs(sentences, length, copy)
            counted |= {"pairs": len(pairs), "pairs-random": int((pairs.label == 1).sum())}
            counters.update({f"{name}/{length}": number for name, number in counted.items()})
            used[pairs.document_a] = True
            used[pairs.document_b] = True
            number = np.bincount(input_of[content.part_of[pairs.document_a]] + 1, minlength=len(job.inputs) + 1)
            examples[length] = examples.get(length, 0) + number
            if len(pairs):
                shard = ShardName(split=bucket.split, max_seq_length=length, copy=copy, number=bucket.number)
                shards.append(write_shard(places.dataset, shard, sentences, pairs, config.seed, masking))
            log_shard(path, (length, copy), len(used) + num_duplicates, job, places)

    page = storage.join(places.dataset, "documents", bucket.split, f"{bucket.number:05d}.parquet")
    storage.make_folder(page.rpartition("/")[0])
    _, documents_sha256 = storage.write_whole(page, [_documents_page(tokens.documents, content.sources)])
    sketches_sha256 = ""
    if config.near_duplicates is not None:
        sketches_sha256 = write_sketches(tokens, bucket, config.near_duplicates, places)
    log = rejects_sha256 = ""
    if not used.all():
        log = f"{path.rpartition('/')[2].removesuffix('.json')}.rejects.jsonl.gz"
        rejects = _without_example(tokens, content.sources, ~used, vocabulary)
        _, rejects_sha256 = storage.write_whole(storage.join(places.records, log), [rejects_log(rejects)])
    record = BucketRecord(
        split=bucket.split,
        number=bucket.number,
        shards=tuple(shards),
        documents_sha256=documents_sha256,
        num_used=int(used.sum()),
        num_duplicates=num_duplicates,
        num_near_duplicates=int(content.num_near.sum()),
        num_without_example=int((~used).sum()),
        num_sentences=len(tokens.sentence_lengths),
        num_tokens=len(tokens.ids),
        rejects=log,
        rejects_sha256=rejects_sha256,
        counters=dict(counters),
        num_known=num_known,
        sketches_sha256=sketches_sha256,
        input=bucket.input,
        by_input=counts_of_bucket(content, used, examples, input_of) if job.inputs else {},
    )
    write_sealed(path, [json.dumps(asdict(record)).encode()])
    return record


def write_sketches(tokens: TokenBlock, bucket: Bucket, min_similarity: float, places: Places) -> str:
    """Write the page of sketches of a bucket, for jobs that extend the data set. Return its sha256."""
    path = storage.join(places.dataset, *page_name(bucket.split, bucket.number).split("/"))
    storage.make_folder(path.rpartition("/")[0])
    return storage.write_whole(path, [sketches_page(tokens, min_similarity)])[1]


def log_shard(
    record: str, shard: tuple[int, int], num_documents: int, job: JobConfig, places: Places, is_new: bool = True
) -> None:
    """Log that a shard of a bucket is finished, with its share of the bucket's documents.

    Args:
        record: path of the bucket's record.
        shard: (length, copy).
        num_documents: of the bucket.
    """
    shards = shards_of_bucket(job)
    i, number = shards.index(shard), len(shards)
    documents = num_documents * (i + 1) // number - num_documents * i // number
    log_piece(places.work_log, "weave", f"{record} {shard}", documents=documents, is_new=is_new)


def finished_bucket(path: str, places: Places) -> BucketRecord | None:
    """Return a bucket's record; None if there is none, or if it or a file that it lists is damaged."""
    if not is_sealed(path):
        return None
    fields = json.loads(read_sealed(path))
    record = BucketRecord(**fields | {name: tuple(fields[name]) for name in ("shards", "num_known")})
    files = {row["path"]: row["sha256"] for row in record.shards}
    files[f"documents/{record.split}/{record.number:05d}.parquet"] = record.documents_sha256
    if record.sketches_sha256:
        files[page_name(record.split, record.number)] = record.sketches_sha256
    paths = {storage.join(places.dataset, *name.split("/")): sha256 for name, sha256 in files.items()}
    if record.rejects:
        paths[storage.join(places.records, record.rejects)] = record.rejects_sha256
    sizes = {storage.join(places.dataset, *row["path"].split("/")): row["bytes"] for row in record.shards}
    is_whole = all(storage.size(shard) == size for shard, size in sizes.items())
    return record if is_whole and all(_has_digest(*item) for item in paths.items()) else None


def _has_digest(path: str, sha256: str) -> bool:
    """Return whether there is a file with this sha256. In a store, which keeps checksums itself, any file will do."""
    if not storage.is_local(path):
        return storage.exists(path)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except (FileNotFoundError, IsADirectoryError):
        return False


def _documents_page(rows: NDArray[np.void], sources: list[str]) -> bytes:
    columns = [
        pa.array(sources) if name == "source" else pa.array(rows[name].copy()) for name in DOCUMENTS_SCHEMA.names
    ]
    return parquet_bytes(pa.Table.from_arrays(columns, schema=DOCUMENTS_SCHEMA))


def inputs_of(parts: Sequence[PartRecord]) -> I64:
    """Return the number of the source of each part, -1 where it has none: int64 (parts,)."""
    return np.array([part.input for part in parts], np.int64)


def counts_of_bucket(
    content: BucketContent, used: Bools, examples: dict[int, I64], input_of: I64
) -> dict[str, dict[str, int]]:
    """Return number of a source, as a string -> its counters in a bucket.

    Args:
        used: whether each document is in an example.
        examples: of each length, by the number of the source of A, from -1.
        input_of: number of the source of each part.
    """
    rows, of_document = content.tokens.documents, input_of[content.part_of]
    found = {}
    for number in np.unique(input_of).tolist():
        here, parts = of_document == number, input_of == number
        num_read = int(content.num_read[parts].sum())
        found[str(number)] = {
            "documents_used": int((here & used).sum()),
            "documents_duplicate": num_read - int(here.sum()),
            "documents_near_duplicate": int(content.num_near[parts].sum()),
            "no-example": int((here & ~used).sum()),
            "sentences": int(rows["num_sentences"][here].sum()),
            "tokens": int(rows["num_tokens"][here].sum()),
            **{f"examples/{length}": int(of[number + 1]) for length, of in examples.items()},
        }
    return found


def _without_example(
    tokens: TokenBlock, sources: list[str], which: Bools, vocabulary: Vocabulary
) -> Iterator[tuple[str, Reject]]:
    """Yield (source, reject) of documents that are in no example. Their text is gone, so the rejects show their tokens."""
    rows = tokens.documents
    starts = np.cumsum(rows["num_tokens"], dtype=np.int64) - rows["num_tokens"]
    for i in np.flatnonzero(which):
        position, piece, num_sentences, num_tokens = (
            int(rows[name][i]) for name in ("position", "piece", "num_sentences", "num_tokens")
        )
        ids = tokens.ids[starts[i] : starts[i] + min(num_tokens, 4 * SHOWN_CHARACTERS)]  # a token is a byte or more
        text = vocabulary.readable.text(ids)[:SHOWN_CHARACTERS]
        detail = f"{num_sentences} sentences, {num_tokens} tokens"
        yield sources[i], Reject(position, "no-example", detail, text, piece=piece)


class WeaveBucket(beam.DoFn):
    """Bucket -> BucketRecord."""

    def __init__(self, job: JobConfig, places: Places):
        self.job, self.places = job, places
        self.plans: dict[int, Plan] = {}
        self.near_duplicate_ids: U64 | None = None
        self.held_out_ids: U64 | None = None
        self.known: KnownDocuments | None = None

    def process(self, bucket: Bucket) -> Iterator[BucketRecord]:
        places = self.job.places_of(self.places, bucket.input)
        if bucket.input not in self.plans:  # not in setup: the plan is written while the job runs
            self.plans[bucket.input] = read_plan(places.plan)
            self.near_duplicate_ids = near_duplicate_ids(places, self.job)
            if self.plans[bucket.input].held_out_sha256:
                self.held_out_ids = read_held_out(places.held_out)
            self.known = read_known(places, self.job)
        plan = self.plans[bucket.input]
        path = record_path(bucket, plan, self.job, places)
        record = finished_bucket(path, places)
        increment("weave", buckets_in=1, buckets_reused=int(record is not None))
        if record:
            num_documents = record.num_used + record.num_duplicates + record.num_without_example
            for shard in shards_of_bucket(self.job):
                log_shard(path, shard, num_documents, self.job, self.places, is_new=False)
        else:
            left_out = self.near_duplicate_ids, self.held_out_ids, self.known
            record = weave_bucket(bucket, plan, self.job, places, *left_out)
        count_bucket(record)
        yield record


def count_bucket(record: BucketRecord) -> None:
    """Add a bucket to the Beam counters."""
    made, dropped = (
        sum(number for key, number in record.counters.items() if key.partition("/")[0] == name)
        for name in ("pairs", "pairs-dropped")
    )
    increment(
        "weave",
        documents_in=record.num_used + record.num_duplicates + record.num_without_example,
        documents_used=record.num_used,
        documents_duplicate=record.num_duplicates,
        documents_near_duplicate=record.num_near_duplicates,
        documents_known=sum(record.num_known),
        documents_rejected=record.num_without_example,
        pairs_out=made,
        pairs_dropped=dropped,
        examples_out=sum(shard["examples"] for shard in record.shards),
        shards_out=len(record.shards),
        shard_bytes=sum(shard["bytes"] for shard in record.shards),
    )


@transform
class Weave(beam.PTransform[Any, Any]):
    """Buckets -> BucketRecords, when the shards are written."""

    job: JobConfig
    places: Places

    def expand(self, buckets: Any) -> Any:
        return buckets | "weave bucket" >> beam.ParDo(WeaveBucket(self.job, self.places))

"""The weave stage: a bucket of documents -> its shards, one for each length and copy.

A finished bucket leaves a record with the digests of its shards; a started-again job takes it over instead of weaving
again. A retried bundle writes the same bytes over the same names.
"""

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import storage
from pipeline.masking import default_max_predictions, mask_counts
from pipeline.pairs import make_pairs, split_sentences
from pipeline.planning import Bucket, Plan, is_validation, read_plan
from pipeline.shards import ShardName, write_shard
from pipeline.tokens import TokenBlock, read_range, take_ranges
from pipeline.vocabulary import Vocabulary

MIN_SEQ_LENGTH, MAX_SEQ_LENGTH = 8, 65_535


@dataclass(frozen=True, kw_only=True)
class WeaveConfig:
    """What decides the examples made of tokens. All of it may change without tokenizing again."""

    max_seq_length: tuple[int, ...] = (128,)
    """Tokens of the longest example, specials counted. Several make a set of shards each: BERT's two phases, 128 512."""
    dupe_factor: int = 5
    """Copies: passes over the corpus with pairs and masks of their own. Training epoch e reads copy e mod this."""
    masked_lm_prob: float = 0.15
    """Share of an example's tokens to predict."""
    max_predictions_per_seq: tuple[int, ...] | None = None
    """Most predictions of an example, one number for each length; None: floor(length * masked_lm_prob + 0.5) + 1."""
    short_seq_prob: float = 0.1
    """Share of examples with a target length drawn from 2 up to the full one, instead of the full one."""
    validation_fraction: float = 0.01
    """Share of documents held out, chosen by a hash of their text."""
    seed: int = 1
    """Decides every draw. The same texts, configuration and seed give the same shards, byte for byte."""

    def __post_init__(self):
        lengths = self.max_seq_length
        for length in lengths:
            if not MIN_SEQ_LENGTH <= length <= MAX_SEQ_LENGTH:
                raise ValueError(
                    f"--max-seq-length {length}: expected {MIN_SEQ_LENGTH} to {MAX_SEQ_LENGTH}; BERT's are 128 512"
                )
        if len(set(lengths)) != len(lengths) or not lengths:
            raise ValueError(f"--max-seq-length {' '.join(map(str, lengths))}: expected one or more different lengths")
        if self.dupe_factor < 1:
            raise ValueError(f"--dupe-factor {self.dupe_factor}: expected 1 or more copies")
        for name, low, high in (
            ("masked_lm_prob", 0.0, 1.0),
            ("short_seq_prob", 0.0, 1.0),
            ("validation_fraction", 0.0, 0.5),
        ):
            value = getattr(self, name)
            if not low <= value <= high or (name == "masked_lm_prob" and value == 0):
                raise ValueError(f"--{name.replace('_', '-')} {value}: expected a share from {low} to {high}")
        most = self.max_predictions_per_seq
        if most is not None and (len(most) != len(lengths) or min(most) < 1):
            raise ValueError(
                f"--max-predictions-per-seq {' '.join(map(str, most))}: expected one number above 0 for each of the "
                f"{len(lengths)} lengths {' '.join(map(str, lengths))}"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed {self.seed}: expected 0 to 2^63 - 1")

    def max_predictions(self, max_seq_length: int) -> int:
        if self.max_predictions_per_seq is None:
            return default_max_predictions(max_seq_length, self.masked_lm_prob)
        return self.max_predictions_per_seq[self.max_seq_length.index(max_seq_length)]


@dataclass(frozen=True, kw_only=True)
class BucketRecord:
    """What the manifest stage needs of a finished bucket."""

    split: str
    number: int
    shards: tuple[dict[str, Any], ...]
    """Rows of shards.parquet."""
    documents_sha256: str
    num_used: int
    num_duplicates: int
    num_without_example: int
    num_sentences: int
    num_tokens: int
    rejects: str
    """Name, in the folder of records, of the log of documents that reached no example; empty where there are none."""
    counters: dict[str, int] = field(default_factory=dict)
    """Pairs made and dropped, by "name/max_seq_length"."""


DOCUMENTS_SCHEMA = pa.schema([
    pa.field("id", pa.uint64(), nullable=False),
    pa.field("source_key", pa.uint64(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
    pa.field("length", pa.int64(), nullable=False),
    pa.field("piece", pa.int32(), nullable=False),
    pa.field("num_sentences", pa.int32(), nullable=False),
    pa.field("num_tokens", pa.int32(), nullable=False),
])  # fmt: skip


def read_bucket(bucket: Bucket, plan: Plan, folder: str) -> tuple[TokenBlock, list[str], int]:
    """A bucket's documents in id order without exact duplicates: (tokens, source of each, duplicates dropped).

    Of equal documents the one whose source sorts first is kept.
    """
    blocks, sources = [], []
    for i, part in enumerate(plan.parts):
        block = read_range(storage.join(folder, part.name), part, bucket.low, bucket.high)
        if len(block.documents):
            blocks.append(block)
            sources.append(np.full(len(block.documents), i))
    rows = np.concatenate([block.documents for block in blocks])
    source = np.concatenate(sources)
    wanted = is_validation(rows["id"], plan.validation_fraction) == (bucket.split == "validation")
    order = np.argsort(rows["id"], kind="stable")
    order = order[wanted[order]]
    ids, low = rows["id"][order], rows["id_low"][order]
    again = np.zeros(len(order), bool)
    again[1:] = ids[1:] == ids[:-1]
    clash = np.flatnonzero(again[1:] & (low[1:] != low[:-1]))
    if len(clash):
        raise ValueError(
            f"two different documents have the same id {ids[clash[0]]:016x}: one of them has to go "
            f"({plan.parts[source[order[clash[0]]]].source} and {plan.parts[source[order[clash[0] + 1]]].source})"
        )
    order = order[~again]

    def gather(name: str, column: str) -> NDArray:
        values = np.concatenate([getattr(block, name) for block in blocks])
        counts = rows[column].astype(np.int64)
        return take_ranges(values, (np.cumsum(counts) - counts)[order], counts[order])

    tokens = TokenBlock(gather("ids", "num_tokens"), gather("sentence_lengths", "num_sentences"), rows[order])
    return tokens, [plan.parts[i].source for i in source[order]], int(again.sum())


def weave_bucket(
    bucket: Bucket, plan: Plan, folder: str, dataset: str, records: str, config: WeaveConfig, vocabulary: Vocabulary
) -> BucketRecord:
    """Writes all shards of a bucket and its page of documents/; a finished one is only read."""
    key = json.dumps([plan.digest, asdict(config), vocabulary.sha256, bucket.split, bucket.number])
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    path = storage.join(records, f"{name}.json")
    if storage.exists(path):
        return read_record(path)

    tokens, sources, num_duplicates = read_bucket(bucket, plan, folder)
    used = np.zeros(len(tokens.documents), bool)
    shards, counters = [], {}
    for length in config.max_seq_length:
        sentences = split_sentences(tokens, vocabulary.continuation, length)
        max_predictions = config.max_predictions(length)
        counts = mask_counts(length, config.masked_lm_prob, max_predictions)
        for copy in range(config.dupe_factor):
            pairs, counted = make_pairs(sentences, length, copy, config.seed, config.short_seq_prob)
            for counter, value in {**counted, "pairs": len(pairs), "pairs-random": int(pairs.label.sum())}.items():
                counters[f"{counter}/{length}"] = counters.get(f"{counter}/{length}", 0) + value
            used[pairs.document_a] = True
            used[pairs.document_b] = True
            if len(pairs):
                shard = ShardName(split=bucket.split, max_seq_length=length, copy=copy, number=bucket.number)
                shards.append(
                    write_shard(dataset, shard, sentences, pairs, config.seed, counts, max_predictions, vocabulary)
                )

    page = storage.join(dataset, "documents", bucket.split, f"{bucket.number:05d}.parquet")
    storage.make_folder(page.rpartition("/")[0])
    _, documents_sha256 = storage.write_whole(page, [_documents_page(tokens.documents, sources)])
    log = f"{name}.rejects.jsonl.gz" if not used.all() else ""
    if log:
        storage.write_whole(storage.join(records, log), [_without_example(tokens.documents, sources, ~used)])
    record = BucketRecord(
        split=bucket.split,
        number=bucket.number,
        shards=tuple(shards),
        documents_sha256=documents_sha256,
        num_used=int(used.sum()),
        num_duplicates=num_duplicates,
        num_without_example=int((~used).sum()),
        num_sentences=len(tokens.sentence_lengths),
        num_tokens=len(tokens.ids),
        rejects=log,
        counters=counters,
    )
    storage.write_whole(path, [json.dumps(asdict(record)).encode()])
    return record


def read_record(path: str) -> BucketRecord:
    fields = json.loads(storage.read(path))
    fields["shards"] = tuple(fields["shards"])
    return BucketRecord(**fields)


def _documents_page(rows: NDArray[np.void], sources: list[str]) -> bytes:
    columns = [
        pa.array(sources) if name == "source" else pa.array(rows[name].copy()) for name in DOCUMENTS_SCHEMA.names
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=DOCUMENTS_SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def _without_example(rows: NDArray[np.void], sources: list[str], which: NDArray[np.bool_]) -> bytes:
    lines = []
    for i in np.flatnonzero(which):
        detail = f"{rows['num_sentences'][i]} sentences, {rows['num_tokens'][i]} tokens"
        lines.append(
            {"source": sources[i], "position": int(rows["position"][i]), "reason": "no-example", "detail": detail}
        )
    return gzip.compress("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode(), mtime=0)


class WeaveBucket(beam.DoFn):
    """Bucket -> BucketRecord."""

    def __init__(self, folder: str, plan: str, dataset: str, records: str, config: WeaveConfig, vocabulary: Vocabulary):
        self.folder, self.plan, self.dataset, self.records = folder, plan, dataset, records
        self.config, self.vocabulary = config, vocabulary
        self._plan: Plan | None = None

    def process(self, bucket: Bucket) -> Iterator[BucketRecord]:
        if self._plan is None:  # not in setup: the plan is written while the job runs
            self._plan = read_plan(self.plan)
        yield weave_bucket(bucket, self._plan, self.folder, self.dataset, self.records, self.config, self.vocabulary)


class Weave(beam.PTransform):
    """Buckets -> BucketRecords."""

    def __init__(self, **arguments: Any):
        super().__init__()
        self.do = WeaveBucket(**arguments)

    def expand(self, buckets):
        return buckets | "weave bucket" >> beam.ParDo(self.do)

"""The weave stage: a bucket of documents -> its shards, one for each length and copy.

A finished bucket leaves a record with the digests of its shards; a started-again job takes it over instead of weaving
again. A retried bundle writes the same bytes over the same names.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertloom import storage
from bertloom.shards import ShardName
from pipeline.examples.configuration import ExamplesConfig
from pipeline.examples.decoding import plain_text
from pipeline.examples.shards import write_shard
from pipeline.inputs.rejects import rejects_log
from pipeline.stages.near_duplicates import read_near_duplicates
from pipeline.stages.plan import Bucket, Plan, is_validation, read_plan
from pipeline.text.records import SHOWN_CHARACTERS, Reject
from pipeline.tokens import TokenBlock, read_range, take_ranges
from pipeline.vocabulary import Vocabulary, kept_vocabulary

HELD_BYTES = 32_000_000  # of a bucket, before copies are looked for; few buckets without copies have more
Held = tuple[TokenBlock, NDArray[np.intp]]  # documents, and the number of the part that each is from


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
    """Near ones among them."""
    num_without_example: int
    num_sentences: int
    num_tokens: int
    rejects: str
    """Name, in the folder of records, of the log of documents that reached no example; empty where there are none."""
    num_near_duplicates: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    """Pairs made and dropped, by "name/max_seq_length"."""


DOCUMENTS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.uint64(), nullable=False),
        pa.field("source_key", pa.uint64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("piece", pa.int32(), nullable=False),
        pa.field("num_sentences", pa.int32(), nullable=False),
        pa.field("num_tokens", pa.int32(), nullable=False),
    ]
)


def read_bucket(
    bucket: Bucket, plan: Plan, folder: str, left_out: NDArray[np.uint64] | None = None
) -> tuple[TokenBlock, list[str], int, int]:
    """A bucket's documents in id order without duplicates: (tokens, source of each, duplicates dropped, near ones of them).

    Of equal documents the one whose source sorts first is kept. left_out: ids of near duplicates.
    """
    held: list[Held] = []
    num_documents = num_bytes = 0
    most = HELD_BYTES

    def of_split(ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return is_validation(ids, plan.validation_fraction) == (bucket.split == "validation")

    for first, file in plan.files:
        block = read_range(storage.join(folder, file.name), file, bucket.low, bucket.high, of_split)
        ids = block.documents["id"]
        if len(ids) == 0:
            continue
        num_documents += len(ids)
        held.append((block, first + block.documents["part"].astype(np.intp)))
        if (ids[1:] == ids[:-1]).any():
            held[-1] = _distinct(held[-1:], plan)
        num_bytes += _num_bytes(held[-1][0])
        if num_bytes > most:
            held = [_distinct(held, plan)]
            num_bytes = _num_bytes(held[0][0])
            most = max(HELD_BYTES, 2 * num_bytes)  # so that a bucket of many texts is not sorted again for each part
    tokens, part_of = _distinct(held, plan)
    num_near = 0
    if left_out is not None:
        near = np.isin(tokens.documents["id"], left_out)
        num_near = int(near.sum())
        tokens, part_of = _take([tokens], np.flatnonzero(~near)), part_of[~near]
    return tokens, [plan.parts[i].source for i in part_of], num_documents - len(part_of), num_near


def _distinct(held: Sequence[Held], plan: Plan) -> Held:
    """The documents in id order, of equal ones the first; ValueError where two that differ have the same id."""
    rows = np.concatenate([block.documents for block, _ in held])
    part_of = np.concatenate([part_of for _, part_of in held])
    order = np.argsort(rows["id"], kind="stable")
    ids, low = rows["id"][order], rows["id_low"][order]
    again = np.zeros(len(order), bool)
    again[1:] = ids[1:] == ids[:-1]
    clash = np.flatnonzero(again[1:] & (low[1:] != low[:-1]))
    if len(clash):
        raise ValueError(
            f"two different documents have the same id {ids[clash[0]]:016x}: one of them has to go "
            f"({plan.parts[part_of[order[clash[0]]]].source} and {plan.parts[part_of[order[clash[0] + 1]]].source})"
        )
    return _take([block for block, _ in held], order[~again]), part_of[order[~again]]


def _take(blocks: Sequence[TokenBlock], order: NDArray[np.intp]) -> TokenBlock:
    """The documents with these numbers, counted through all blocks, in this order."""
    rows = np.concatenate([block.documents for block in blocks])

    def gather(name: str, column: str) -> NDArray:
        values = np.concatenate([getattr(block, name) for block in blocks])
        counts = rows[column].astype(np.int64)
        return take_ranges(values, (np.cumsum(counts) - counts)[order], counts[order])

    inside = gather("inside_words", "num_tokens") if blocks[0].inside_words is not None else None
    return TokenBlock(gather("ids", "num_tokens"), gather("sentence_lengths", "num_sentences"), rows[order], inside)


def _num_bytes(block: TokenBlock) -> int:
    return block.ids.nbytes + block.sentence_lengths.nbytes + block.documents.nbytes


def weave_bucket(
    bucket: Bucket,
    plan: Plan,
    folder: str,
    dataset: str,
    records: str,
    config: ExamplesConfig,
    vocabulary: Vocabulary,
    left_out: NDArray[np.uint64] | None = None,
) -> BucketRecord:
    """Writes all shards of a bucket and its page of documents/; a finished one is only read.

    left_out: ids of near duplicates.
    """
    key = json.dumps([plan.digest, asdict(config), vocabulary.sha256, bucket.split, bucket.number])
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    path = storage.join(records, f"{name}.json")
    if storage.exists(path):
        return read_record(path)

    tokens, sources, num_duplicates, num_near = read_bucket(bucket, plan, folder, left_out)
    used = np.zeros(len(tokens.documents), bool)
    shards: list[dict[str, Any]] = []
    counters: dict[str, int] = {}
    for length in config.max_seq_length:
        sentences = config.sentences(tokens, vocabulary.continuation, length)
        masking = config.masking(length, vocabulary)
        for copy in range(config.dupe_factor):
            pairs, counted = config.make_pairs(sentences, length, copy)
            counted |= {"pairs": len(pairs), "pairs-random": int((pairs.label == 1).sum())}
            for counter, value in counted.items():
                counters[f"{counter}/{length}"] = counters.get(f"{counter}/{length}", 0) + value
            used[pairs.document_a] = True
            used[pairs.document_b] = True
            if len(pairs):
                shard = ShardName(split=bucket.split, max_seq_length=length, copy=copy, number=bucket.number)
                shards.append(write_shard(dataset, shard, sentences, pairs, config.seed, masking))

    page = storage.join(dataset, "documents", bucket.split, f"{bucket.number:05d}.parquet")
    storage.make_folder(page.rpartition("/")[0])
    _, documents_sha256 = storage.write_whole(page, [_documents_page(tokens.documents, sources)])
    log = f"{name}.rejects.jsonl.gz" if not used.all() else ""
    if log:
        without = _without_example(tokens, sources, ~used, vocabulary.words)
        storage.write_whole(storage.join(records, log), [rejects_log(without)])
    record = BucketRecord(
        split=bucket.split,
        number=bucket.number,
        shards=tuple(shards),
        documents_sha256=documents_sha256,
        num_used=int(used.sum()),
        num_duplicates=num_duplicates,
        num_near_duplicates=num_near,
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


def _without_example(
    tokens: TokenBlock, sources: list[str], which: NDArray[np.bool_], words: Sequence[str]
) -> Iterator[tuple[str, Reject]]:
    """(source, reject) of documents that reached no example. Their text is gone: what is shown is their tokens'."""
    rows = tokens.documents
    starts = np.cumsum(rows["num_tokens"], dtype=np.int64) - rows["num_tokens"]
    for i in np.flatnonzero(which):
        position, piece, num_sentences, num_tokens = (
            int(rows[name][i]) for name in ("position", "piece", "num_sentences", "num_tokens")
        )
        ids = tokens.ids[starts[i] : starts[i] + min(num_tokens, SHOWN_CHARACTERS)]  # a token is a character or more
        text = plain_text([words[token] for token in ids])[:SHOWN_CHARACTERS]
        detail = f"{num_sentences} sentences, {num_tokens} tokens"
        yield sources[i], Reject(position, "no-example", detail, text, piece=piece)


class WeaveBucket(beam.DoFn):
    """Bucket -> BucketRecord."""

    def __init__(
        self,
        folder: str,
        plan: str,
        dataset: str,
        records: str,
        config: ExamplesConfig,
        vocabulary: str,
        near: str | None = None,
    ):
        self.folder, self.plan, self.dataset, self.records, self.near = folder, plan, dataset, records, near
        self.config, self.vocabulary = config, vocabulary
        self._plan: Plan | None = None

    def process(self, bucket: Bucket) -> Iterator[BucketRecord]:
        if self._plan is None:  # not in setup: the plan is written while the job runs
            self._plan = read_plan(self.plan)
            self._left_out = read_near_duplicates(self.near)["id"] if self.near else None
        vocabulary = kept_vocabulary(self.vocabulary)
        yield weave_bucket(
            bucket, self._plan, self.folder, self.dataset, self.records, self.config, vocabulary, self._left_out
        )


class Weave(beam.PTransform):
    """Buckets -> BucketRecords."""

    def __init__(self, **arguments: Any):
        super().__init__()
        self.do = WeaveBucket(**arguments)

    def expand(self, buckets):
        return buckets | "weave bucket" >> beam.ParDo(self.do)

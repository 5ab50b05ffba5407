"""Examples to shards: Arrow record batches in a ustar tar, byte for byte the same from the same pairs.

`docs/shard-format.md` is normative. `read_shard` opens a shard in one line, for people and for tests; the trainer has a
reader of its own.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertloom import storage
from bertloom.draws import GOLDEN, MASKS, SHARD_ORDER, draw, fold, mix
from pipeline.examples.masking.masks import Masking, mask_examples
from pipeline.examples.pairs import Pairs
from pipeline.examples.sentences import Sentences
from pipeline.tokens import take_ranges

FORMAT_VERSION = 1
MEMBER_EXAMPLES = 1024
BATCH_EXAMPLES = 8 * MEMBER_EXAMPLES  # masked at a time: stays in the processor's cache
SPLITS = ("train", "validation")

SHARDS_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("max_seq_length", pa.int32(), nullable=False),
        pa.field("copy", pa.int32(), nullable=False),
        pa.field("number", pa.int32(), nullable=False),
        pa.field("examples", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("member_offsets", pa.list_(pa.int64()), nullable=False),
        pa.field("member_bytes", pa.list_(pa.int64()), nullable=False),
        pa.field("member_examples", pa.list_(pa.int32()), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class ShardName:
    """Which shard: one for each (split, max_seq_length, copy, bucket)."""

    split: str
    max_seq_length: int
    copy: int
    number: int

    @property
    def path(self) -> str:
        """Relative to the data set."""
        return f"{self.split}/seq{self.max_seq_length}/copy{self.copy}/{self.number:05d}.tar"

    @property
    def order_number(self) -> int:
        """The bucket as the keys of the order see it: validation buckets are other buckets."""
        return self.number + (1 << 32) * SPLITS.index(self.split)


def schema(ids: np.dtype, metadata: dict[str, str] | None = None) -> pa.Schema:
    """The schema of a member."""
    id_type = pa.from_numpy_dtype(ids)
    fields: list[tuple[str, pa.DataType]] = [
        ("input_ids", _list_of(id_type)),
        ("segment_b_start", pa.uint16()),
        ("masked_lm_positions", _list_of(pa.uint16())),
        ("masked_lm_ids", _list_of(id_type)),
        ("next_sentence_label", pa.int8()),
        ("document_a", pa.uint64()),
        ("token_a", pa.uint32()),
        ("document_b", pa.uint64()),
        ("token_b", pa.uint32()),
    ]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields], metadata)


def write_shard(
    dataset: str,
    name: ShardName,
    sentences: Sentences,
    pairs: Pairs,
    seed: int,
    masking: Masking,
) -> dict[str, Any]:
    """Permutes, masks and writes the pairs of one bucket; the shard's row of shards.parquet."""
    pairs = pairs.take(shard_order(name, len(pairs), seed))
    metadata = {
        "format_version": str(FORMAT_VERSION),
        "max_seq_length": str(name.max_seq_length),
        "copy": str(name.copy),
        "vocabulary_sha256": masking.vocabulary.sha256,
    }
    members = _Members(schema(sentences.ids.dtype, metadata), f"{name.number:05d}")
    mask_key = fold(seed, MASKS, name.max_seq_length, name.copy)
    specials = [masking.vocabulary.cls, masking.vocabulary.sep]
    words = np.concatenate([sentences.ids, np.array(specials, sentences.ids.dtype)])
    heads = np.append(sentences.head, [True, True]) if masking.scheme.whole_words else sentences.head

    def chunks() -> Iterator[bytes]:
        for first in range(0, len(pairs), BATCH_EXAMPLES):
            batch = pairs.take(slice(first, first + BATCH_EXAMPLES))
            columns = _examples(sentences, words, heads, batch, mask_key, masking)
            for start in range(0, len(batch), MEMBER_EXAMPLES):
                yield from members.add(columns, start, min(start + MEMBER_EXAMPLES, len(batch)))
        yield b"\0" * 2 * tarfile.BLOCKSIZE

    path = storage.join(dataset, *name.path.split("/"))
    storage.make_folder(path.rpartition("/")[0])
    size, sha256 = storage.write_whole(path, chunks())
    return {
        "path": name.path,
        **asdict(name),
        "examples": len(pairs),
        "tokens": int(_lengths(pairs).sum()),
        "bytes": size,
        "sha256": sha256,
        "member_offsets": members.offsets,
        "member_bytes": members.sizes,
        "member_examples": members.examples,
    }


def shard_order(name: ShardName, n: int, seed: int) -> NDArray[np.intp]:
    """Which of a bucket's n pairs, in the order in which they were made, is each example of the shard."""
    key = fold(seed, SHARD_ORDER, name.max_seq_length, name.copy, name.order_number)
    return np.argsort(draw(key, np.arange(n)), kind="stable")


def _lengths(pairs: Pairs) -> NDArray[np.int64]:
    """Tokens of each example, specials counted."""
    return pairs.a_length + pairs.b_length + 2 + (pairs.b_length > 0)


def _examples(s: Sentences, words: NDArray, heads: NDArray[np.bool_], pairs: Pairs, mask_key, masking: Masking):
    """The columns of a batch of examples: (offsets or None, values) for each, in the order of the schema.

    words: the bucket's ids, and behind them [CLS] and [SEP], so that an example is five ranges of one array; heads: does
    a word begin at each of them.
    """
    n = len(pairs)
    lengths = _lengths(pairs)
    starts = np.cumsum(lengths) - lengths
    has_b = pairs.b_length > 0
    one, cls, sep = np.ones(n, np.int64), np.full(n, len(s.ids)), np.full(n, len(s.ids) + 1)
    ranges = np.stack([cls, pairs.a_start, sep, pairs.b_start, sep], 1).ravel()
    sizes = np.stack([one, pairs.a_length, one, pairs.b_length, has_b], 1).ravel()
    input_ids = take_ranges(words, ranges, sizes)
    begins = take_ranges(heads, ranges, sizes) if masking.scheme.whole_words else heads

    document_a = s.ids_of_documents[pairs.document_a]
    keys = mix((mix((mask_key ^ document_a) + GOLDEN) ^ pairs.sentence.astype(np.uint64)) + GOLDEN)
    positions, originals, counts = mask_examples(
        input_ids, begins, starts, pairs.a_length, pairs.b_length, keys, masking
    )
    first_token = s.edges[s.first[:-1]]  # of each document
    mask_offsets = _offsets(counts)
    return (
        (_offsets(lengths), input_ids),
        (None, (pairs.a_length + 2).astype(np.uint16)),
        (mask_offsets, positions),
        (mask_offsets, originals),
        (None, pairs.label.astype(np.int8)),
        (None, document_a),
        (None, (pairs.a_start - first_token[pairs.document_a]).astype(np.uint32)),
        (None, s.ids_of_documents[pairs.document_b] * has_b),
        (None, ((pairs.b_start - first_token[pairs.document_b]) * has_b).astype(np.uint32)),
    )


class _Members:
    """Record batches to tar members; remembers where each payload lies."""

    def __init__(self, member_schema: pa.Schema, prefix: str):
        self.schema, self.prefix = member_schema, prefix
        self.at = 0
        self.offsets: list[int] = []
        self.sizes: list[int] = []
        self.examples: list[int] = []

    def add(self, columns, start: int, end: int) -> Iterator[bytes]:
        arrays = []
        for (offsets, values), field in zip(columns, self.schema, strict=True):
            if offsets is None:
                arrays.append(pa.array(values[start:end]))
                continue
            own = offsets[start : end + 1]
            items = pa.array(values[own[0] : own[-1]])
            arrays.append(pa.ListArray.from_arrays(pa.array(own - own[0]), items, type=field.type))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, self.schema) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        payload = sink.getvalue()
        header = tarfile.TarInfo(f"{self.prefix}-{len(self.offsets):06d}.arrow")
        header.size = len(payload)  # mode 0644, owner and time 0 are tarfile's defaults
        yield header.tobuf(tarfile.USTAR_FORMAT)
        yield payload
        padding = -len(payload) % tarfile.BLOCKSIZE
        yield b"\0" * padding
        self.offsets.append(self.at + tarfile.BLOCKSIZE)
        self.sizes.append(len(payload))
        self.examples.append(end - start)
        self.at += tarfile.BLOCKSIZE + len(payload) + padding


def read_shard(path: str) -> pa.Table:
    """A whole shard as one table.

    >>> read_shard("DATASET/train/seq128/copy0/00000.tar").column("next_sentence_label")[:3]
    """
    with storage.open_read(path) as file, tarfile.open(fileobj=file) as tar:
        members = [pa.ipc.open_file(tar.extractfile(member).read()).read_all() for member in tar]  # type: ignore[union-attr]
    if not members:
        raise ValueError(f"{path} holds no members")
    return pa.concat_tables(members)


def shards_table(rows: list[dict[str, Any]]) -> pa.Table:
    """shards.parquet: rows sorted by (split, max_seq_length, copy, number)."""
    keys = ("split", "max_seq_length", "copy", "number")
    ordered = sorted(rows, key=lambda row: tuple(row[key] for key in keys))
    return pa.Table.from_pylist(ordered, schema=SHARDS_SCHEMA)


def digest_of(rows: list[dict[str, Any]]) -> str:
    """One digest for all shards: sha256 over their paths and sha256s, in order."""
    lines = "".join(f"{row['sha256']}  {row['path']}\n" for row in sorted(rows, key=lambda row: row["path"]))
    return hashlib.sha256(lines.encode()).hexdigest()


def _list_of(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("item", kind, nullable=False))


def _offsets(lengths: NDArray) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)

"""Write examples to shards: Arrow record batches in a ustar tar. The same pairs give the same bytes.

`docs/shard-format.md` is normative. `bertloom/shards.py` holds the format.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64, U64, Bools
from bertloom.draws import GOLDEN, MASKS, SHARD_ORDER, draw, fold, mix
from bertloom.shards import FORMAT_VERSION, MEMBER_EXAMPLES, ShardName, schema
from pipeline.examples.masking.masks import Masking, mask_examples
from pipeline.examples.pairs import Pairs
from pipeline.examples.sentences import Sentences
from pipeline.tokens import take_ranges

BATCH_EXAMPLES = 8 * MEMBER_EXAMPLES  # masked at a time; fits in the processor's cache
Column = tuple[NDArray[np.int32] | None, NDArray[Any]]
"""(offsets of the lists, or None for a column without lists; values)."""


def write_shard(
    dataset: str, name: ShardName, sentences: Sentences, pairs: Pairs, seed: int, masking: Masking
) -> dict[str, Any]:
    """Permute, mask and write the pairs of one bucket, and return the shard's row of shards.parquet."""
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
            columns = _make_columns(sentences, words, heads, batch, mask_key, masking)
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
    """Return the number of the pair, in the order in which a bucket's n pairs were made, of each example of the shard."""
    key = fold(seed, SHARD_ORDER, name.max_seq_length, name.copy, name.order_number)
    return np.argsort(draw(key, np.arange(n)), kind="stable")


def _lengths(pairs: Pairs) -> I64:
    """Return the tokens of each example, specials counted."""
    return pairs.a_length + pairs.b_length + 2 + (pairs.b_length > 0)


def _make_columns(
    s: Sentences, words: NDArray[Any], heads: Bools, pairs: Pairs, mask_key: U64, masking: Masking
) -> list[Column]:
    """Return the columns of a batch of examples, in the order of the schema.

    Args:
        words: the bucket's ids followed by [CLS] and [SEP], so that an example is five ranges of one array.
        heads: whether a word begins at each of them.
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
    return [
        (_offsets(lengths), input_ids),
        (None, (pairs.a_length + 2).astype(np.uint16)),
        (mask_offsets, positions),
        (mask_offsets, originals),
        (None, pairs.label.astype(np.int8)),
        (None, document_a),
        (None, (pairs.a_start - first_token[pairs.document_a]).astype(np.uint32)),
        (None, s.ids_of_documents[pairs.document_b] * has_b),
        (None, ((pairs.b_start - first_token[pairs.document_b]) * has_b).astype(np.uint32)),
    ]


class _Members:
    """Turns record batches into tar members and records the offset of each payload."""

    def __init__(self, member_schema: pa.Schema, prefix: str):
        self.schema, self.prefix = member_schema, prefix
        self.at = 0
        self.offsets: list[int] = []
        self.sizes: list[int] = []
        self.examples: list[int] = []

    def add(self, columns: list[Column], start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a member with examples start ... end - 1 of a batch."""
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


def _offsets(lengths: I64) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)

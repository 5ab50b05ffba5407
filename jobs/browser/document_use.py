"""The use of a document: which of its tokens are in examples, and in which ones. All examples of its bucket are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from bertloom.arrays import I64, Bools
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.lru import LruCache
from jobs.browser.per_data_set import PerDataSet
from jobs.browser.sliced_work import SlicedWork

LISTED = 5
"""Examples listed of each length and copy."""
KEPT_BYTES = 16 << 20
"""Bytes of the uses that are kept. A use has a byte for each token of its document."""


@dataclass
class Group:
    """The examples of one length and copy that hold a part of the document."""

    as_a: int = 0
    as_b: int = 0
    examples: int = 0
    """In an example, A, B or both may be from the document."""
    first: list[int] = field(default_factory=list)
    """The numbers of the first LISTED."""


class DocumentUse(SlicedWork):
    """The use of one document, found by reading the members of its bucket in order."""

    def __init__(self, data_set: BrowsedDataSet, document: int) -> None:
        row, bucket = data_set.document(document), data_set.bucket_of(document)
        assert row is not None and bucket is not None
        self.data_set, self.document = data_set, document
        self.used: Bools = np.zeros(row["num_tokens"], bool)
        """Which tokens are in an example that was read: (tokens,)."""
        self.groups: dict[tuple[int, int], Group] = {}
        """(length, copy) -> its examples."""
        self.num_read = 0
        """Members that were read."""
        self.members = [
            (shard, member)
            for shard, of in enumerate(data_set.rows)
            if (of["split"], of["number"]) == bucket
            for member in range(len(of["member_offsets"]))
        ]
        super().__init__()

    @property
    def num_used(self) -> int:
        return int(self.used.sum())

    def steps(self) -> Iterator[None]:
        self.used, self.groups = np.zeros_like(self.used), {}
        self.num_read = 0
        for shard, member in self.members:
            self._read(shard, member)
            self.num_read += 1
            yield

    def _read(self, shard: int, member: int) -> None:
        of = self.data_set.rows[shard]
        group = self.groups.setdefault((of["max_seq_length"], of["copy"]), Group())
        batch = self.data_set.member(shard, member)
        is_a, is_b, ranges = uses(batch, self.document)
        for first, end in ranges.tolist():
            self.used[first:end] = True
        rows = np.flatnonzero(is_a | is_b)
        group.as_a += int(is_a.sum())
        group.as_b += int(is_b.sum())
        group.examples += len(rows)
        before = int(self.data_set.firsts[shard]) + sum(of["member_examples"][:member])
        group.first += (before + rows[: LISTED - len(group.first)]).tolist()


def uses(batch: pa.RecordBatch, document: int) -> tuple[Bools, Bools, I64]:
    """Return (whether A is from a document, whether B is, (first token, end) of each of these segments) of a member."""

    def column(name: str) -> Any:
        return batch.column(name).to_numpy()

    sizes = np.diff(batch.column("input_ids").offsets.to_numpy().astype(np.int64))
    b = column("segment_b_start").astype(np.int64)
    is_a: Bools = column("document_a") == np.uint64(document)
    is_b: Bools = (column("document_b") == np.uint64(document)) & (sizes > b)
    first_a, first_b = (column(name).astype(np.int64) for name in ("token_a", "token_b"))
    ranges = [
        np.stack([first[chosen], (first + size)[chosen]], axis=1)
        for first, size, chosen in ((first_a, b - 2, is_a), (first_b, sizes - b - 1, is_b))
    ]
    return is_a, is_b, np.concatenate(ranges)


_uses = PerDataSet(lambda _: LruCache[DocumentUse](KEPT_BYTES, lambda use: use.used.nbytes + 10_000))


def use_of(data_set: BrowsedDataSet, document: int) -> DocumentUse:
    """Return the use of a document, as far as earlier requests have found it."""
    return _uses(data_set).get(document, lambda: DocumentUse(data_set, document))

"""Global batches: the examples of one step, divided between ranks and micro-batches by length.

The order alone decides what a global batch holds (`model/loading/order.py`). The lengths of its examples decide how it is
divided, so each rank computes its share without communication. The division changes losses only by rounding, because they
are divided by the counts of the whole batch.
"""

import heapq
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from bertloom.arrays import I64
from model.batch import PackedBatch, StaticShape
from model.distributed import Ranks
from model.loading.data import DataSet, Examples
from model.loading.order import TrainingOrder
from model.loading.padding import pad_batch, static_shape
from model.loading.remask import EpochMasks, Remasking, example_keys, num_masks_of
from model.loading.stream import Leg, rows_sum
from model.schedule import Phase


@dataclass(frozen=True, kw_only=True)
class GlobalBatch:
    """One rank's share of a step's examples, in parts that fit into memory, and the counts of the whole step."""

    micro_batches: list[PackedBatch]
    """Those of this rank. None is empty, but the list may be."""
    numbers: list[int]
    """Number of each micro-batch among the parts of the global batch."""
    num_passes: int
    """Largest number of micro-batches of a rank."""
    lengths: np.ndarray
    """int64 (num_examples,), real tokens of each example of all ranks."""
    num_masked: int
    """Number of masked positions of all ranks."""
    num_pairs: int
    """Number of examples of all ranks with label 0 or 1."""
    stream_sum: int
    """Sum modulo 2^64 of the hashes of this rank's rows; see `model/loading/stream.py`."""
    source_names: tuple[str, ...] = ()
    """Names of the data sets of a mixture, in the order of their numbers in `PackedBatch.sources`."""
    masked_by_source: tuple[int, ...] = ()
    """Number of masked positions of all ranks from each of these data sets."""
    tokens_by_source: tuple[int, ...] = ()
    """Number of real tokens of all ranks from each of these data sets."""

    @property
    def num_examples(self) -> int:
        """Number of examples of all ranks."""
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """Number of real tokens of all ranks."""
        return int(self.lengths.sum())


def cut_by_length(lengths: np.ndarray, micro_batch_size: int, num_ranks: int = 1) -> list[np.ndarray]:
    """Divide a global batch into parts of at most micro_batch_size rows and about equal tokens.

    The number of parts is the smallest one that is equal for all ranks; part p belongs to rank p mod num_ranks. The rows
    are taken by length, longest first (equal lengths in their order in the batch). Each goes to the part with the fewest
    tokens among those with room left (the first of equal ones). Within a part, rows keep their order in the batch. With
    more ranks than rows, the last parts are empty.

    >>> [part.tolist() for part in cut_by_length(np.array([9, 2, 5, 4, 1]), 3)]
    [[0, 4], [1, 2, 3]]
    """
    count = num_parts(len(lengths), micro_batch_size, num_ranks)
    if count == 1:
        return [np.arange(len(lengths))]
    parts: list[list[int]] = [[] for _ in range(count)]
    lightest = [(0, part) for part in range(count)]  # a heap already
    for index in np.argsort(-lengths, kind="stable").tolist():
        tokens, part = heapq.heappop(lightest)
        parts[part].append(index)
        if len(parts[part]) < micro_batch_size:
            heapq.heappush(lightest, (tokens + int(lengths[index]), part))
    return [np.sort(np.array(part, dtype=np.int64)) for part in parts]


def num_parts(batch_size: int, micro_batch_size: int, num_ranks: int) -> int:
    """Return the number of parts of a global batch, over all ranks."""
    return -(-batch_size // (micro_batch_size * num_ranks)) * num_ranks


def global_batch(
    examples: Examples,
    order: TrainingOrder,
    start: int,
    batch_size: int,
    micro_batch_size: int,
    rank: int = 0,
    num_ranks: int = 1,
) -> GlobalBatch:
    """Return one rank's share of items start … start + batch_size - 1 of training."""
    return share_rows(examples, *order.items(start, start + batch_size), micro_batch_size, rank, num_ranks)


def share_rows(
    examples: Examples,
    copies: np.ndarray,
    rows: np.ndarray,
    micro_batch_size: int,
    rank: int,
    num_ranks: int,
    new_masks: EpochMasks | None = None,
) -> GlobalBatch:
    """Return one rank's share of the global batch of these rows, with new masks if given."""
    whole = num_ranks == 1 and len(rows) <= micro_batch_size  # a single part: its columns are read once
    sizes = examples.read(copies, rows, with_tokens=whole)
    parts = cut_by_length(sizes["lengths"], micro_batch_size, num_ranks)
    numbers = [number for number in range(rank, len(parts), num_ranks) if len(parts[number])]
    micro_batches, stream_sum = [], 0
    if numbers:
        mine = np.concatenate([parts[number] for number in numbers])
        columns = sizes if whole else examples.read(copies[mine], rows[mine])
        stream_sum = rows_sum(columns, mine)
        if new_masks:
            columns = new_masks.put_on(columns, mine)
        pieces = split_columns(columns, [len(parts[number]) for number in numbers])
        micro_batches = [
            examples.pack(piece, copies[parts[number]], rows[parts[number]]) for piece, number in zip(pieces, numbers)
        ]
    return GlobalBatch(
        micro_batches=micro_batches,
        numbers=numbers,
        num_passes=len(parts) // num_ranks,
        lengths=sizes["lengths"],
        num_masked=int(num_masks_of(sizes, new_masks.counts if new_masks else None).sum()),
        num_pairs=int((sizes["labels"] >= 0).sum()),
        stream_sum=stream_sum,
    )


def split_columns(columns: dict[str, np.ndarray], counts: list[int]) -> list[dict[str, np.ndarray]]:
    """Cut the columns of `Examples.read` into pieces of counts[0], counts[1], … rows."""
    ends = np.cumsum(counts)[:-1]
    token_ends, mask_ends = (np.concatenate([[0], np.cumsum(columns[n])])[ends] for n in ("lengths", "num_masks"))
    cuts = {"input_ids": token_ends, "positions": mask_ends, "masked_ids": mask_ends}
    pieces = {name: np.split(values, cuts.get(name, ends), axis=-1) for name, values in columns.items()}
    return [{name: values[number] for name, values in pieces.items()} for number in range(len(counts))]


class BatchReader:
    """Reads one rank's share of the global batch of any step, at each length of training."""

    def __init__(
        self,
        data_set: DataSet,
        max_seq_lengths: Iterable[int],
        seed: int,
        micro_batch_size: int,
        ranks: Ranks,
        shuffle: str = "global",
        remasking: Remasking | None = None,
    ) -> None:
        """
        Args:
            micro_batch_size: at the shortest length; longer ones use proportionally fewer examples.
            remasking: draws new masks in every epoch, at the rate of a leg that has one; without it, examples keep the
                masks of the data set.
        """
        self.remasking = remasking
        self.ranks = ranks
        self.examples = {length: data_set.examples("train", length) for length in sorted(set(max_seq_lengths))}
        self.orders = {length: examples.order(seed, shuffle) for length, examples in self.examples.items()}
        self._items = {length: self.examples[length].items_ahead(order) for length, order in self.orders.items()}
        shortest = min(self.examples)
        self.micro_batch_sizes = {length: max(1, micro_batch_size * shortest // length) for length in self.examples}
        for examples in self.examples.values():
            examples.check_shards()
        self._shapes: dict[tuple[int, int, float | None], StaticShape] = {}
        self._counts: dict[tuple[int, float], I64] = {}
        self._thread = ThreadPoolExecutor(1, "batches")
        self._coming: tuple[Leg, int, Future[GlobalBatch]] | None = None

    def has_pairs(self) -> bool:
        """Return whether the first thousand examples of any length have labels for next sentence prediction."""
        return any((self._sample(length)["labels"] >= 0).any() for length in self.examples)

    def check_whole(self, phases: Iterable[Phase]) -> None:
        """Raise ValueError unless every rank has one micro-batch of at least one example in each step."""
        for phase in phases:
            length, size, ranks = phase.max_seq_length, phase.batch_size, self.ranks.size
            if not ranks <= size <= self.micro_batch_sizes[length] * ranks:
                raise ValueError(
                    f"normalization=batch is over a whole batch in one pass: at length {length} batch_size={size} must be "
                    f"at least the number of ranks, {ranks}, and at most micro_batch_size x ranks = "
                    f"{self.micro_batch_sizes[length] * ranks}; raise micro_batch_size, or take --model.normalization layer"
                )

    def pad_batches(self, phases: Iterable[Phase]) -> list[StaticShape]:
        """Pad the micro-batches of each of these phases to one size from now on, and return the sizes."""
        for phase in phases:
            length, batch_size = phase.max_seq_length, phase.batch_size
            micro_batch_size, sample = self.micro_batch_sizes[length], self._sample(length)
            rate = phase.masked_lm_prob if self.remasking else None
            self._shapes[length, batch_size, rate] = static_shape(
                sample["lengths"],
                num_masks_of(sample, self._counts_at(length, rate)),
                max_seq_length=length,
                batch_size=batch_size,
                micro_batch_size=micro_batch_size,
                num_parts=num_parts(batch_size, micro_batch_size, self.ranks.size),
            )
        return list(self._shapes.values())

    def _counts_at(self, length: int, rate: float | None) -> I64 | None:
        """Return the number of masks of an example by its length; None if it is that of the data set."""
        if rate is None:
            return None
        assert self.remasking
        if (length, rate) not in self._counts:
            self._counts[length, rate] = self.remasking.counts(length, rate)
        return self._counts[length, rate]

    def _sample(self, length: int) -> dict[str, np.ndarray]:
        """Return sizes and labels of the first thousand examples of a length; a shard is in random order."""
        examples = self.examples[length]
        copy = next(copy for copy, size in enumerate(examples.rows_per_copy) if size)
        rows = np.arange(min(1024, examples.rows_per_copy[copy]))
        return examples.read(np.full_like(rows, copy), rows, with_tokens=False)

    def read(self, leg: Leg, step: int) -> GlobalBatch:
        """Return the share of the update after `step` updates, from the prefetch if it is the same one."""
        coming, self._coming = self._coming, None
        if coming:
            batch = coming[2].result()  # even of another batch: the thread must be done with the shards
            if coming[:2] == (leg, step):
                return batch
        return self._read(leg, step)

    def prefetch(self, leg: Leg, step: int) -> None:
        """Start to read the next batch in a thread. A wrong guess only costs time."""
        assert self._coming is None
        self._coming = (leg, step, self._thread.submit(self._read, leg, step))

    def __enter__(self) -> "BatchReader":
        return self

    def __exit__(self, *error: object) -> None:
        for examples in self.examples.values():
            examples.close()
        self._thread.shutdown(cancel_futures=True)

    def indices(self, leg: Leg, step: int) -> list[int]:
        """Return the rows that the update after `step` updates reads, numbered over all shards as `explain` counts."""
        start = leg.item_at(step)
        copies, rows = self.orders[leg.max_seq_length].items(start, start + leg.batch_size)
        return self.examples[leg.max_seq_length].indices(copies, rows).tolist()

    def _read(self, leg: Leg, step: int) -> GlobalBatch:
        length = leg.max_seq_length
        start = leg.item_at(step)
        copies, rows = self._items[length].items(start, start + leg.batch_size)
        new_masks = None
        if self.remasking:
            keys = example_keys(leg.seed, length, self.orders[length].epochs(start, start + leg.batch_size), rows)
            counts = self._counts_at(length, leg.masked_lm_prob)
            new_masks = EpochMasks(keys=keys, max_seq_length=length, remasking=self.remasking, counts=counts)
        batch = share_rows(
            self.examples[length],
            copies,
            rows,
            self.micro_batch_sizes[length],
            self.ranks.rank,
            self.ranks.size,
            new_masks,
        )
        if shape := self._shapes.get((length, leg.batch_size, leg.masked_lm_prob)):
            batch = replace(batch, micro_batches=[pad_batch(part, shape) for part in batch.micro_batches])
        if self.ranks.device.type == "cuda":  # a copy from pinned memory does not wait for the GPU
            batch = replace(batch, micro_batches=[part.pinned() for part in batch.micro_batches])
        return batch

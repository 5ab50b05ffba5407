"""Global batches: the examples of one step, divided between ranks and micro-batches by length.

The order alone decides what a global batch holds (`model/loading/order.py`). The lengths of its examples decide how it is
divided, so each rank computes its share without communication. The division changes losses only by rounding, because they
are divided by the counts of the whole batch.
"""

import heapq
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from bertloom.arrays import I64
from model.batch import PackedBatch, StaticShape
from model.distributed import Ranks
from model.loading.data import Examples
from model.loading.data_sets import DataSets, LegReader, MixedExamples
from model.loading.mixture import CYCLE
from model.loading.order import Order
from model.loading.padding import largest_shape, pad_batch, static_shape
from model.loading.remask import EpochMasks, Remasking, example_keys, num_masks_of
from model.loading.stream import Leg, mixture_of, rows_sum, without_place


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
    examples: Examples | MixedExamples,
    order: Order,
    start: int,
    batch_size: int,
    micro_batch_size: int,
    rank: int = 0,
    num_ranks: int = 1,
) -> GlobalBatch:
    """Return one rank's share of items start … start + batch_size - 1 of training."""
    return share_rows(examples, *order.items(start, start + batch_size), micro_batch_size, rank, num_ranks)


def share_rows(
    examples: Examples | MixedExamples,
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
    sources, num_masks = examples.sources_of(copies), num_masks_of(sizes, new_masks.counts if new_masks else None)
    return GlobalBatch(
        micro_batches=micro_batches,
        numbers=numbers,
        num_passes=len(parts) // num_ranks,
        lengths=sizes["lengths"],
        num_masked=int(num_masks.sum()),
        num_pairs=int((sizes["labels"] >= 0).sum()),
        stream_sum=stream_sum,
        masked_by_source=sums_by_number(sources, num_masks, examples),
        tokens_by_source=sums_by_number(sources, sizes["lengths"], examples),
    )


def sums_by_number(
    sources: np.ndarray | None, values: np.ndarray, examples: Examples | MixedExamples
) -> tuple[int, ...]:
    """Return the sum of the values (N,) of each data set of a mixture; none if the rows are from one data set."""
    if sources is None or isinstance(examples, Examples):
        return ()
    sums = np.zeros(len(examples.sources), np.int64)
    np.add.at(sums, sources, values)
    return tuple(sums.tolist())


def split_columns(columns: dict[str, np.ndarray], counts: list[int]) -> list[dict[str, np.ndarray]]:
    """Cut the columns of `Examples.read` into pieces of counts[0], counts[1], … rows."""
    ends = np.cumsum(counts)[:-1]
    token_ends, mask_ends = (np.concatenate([[0], np.cumsum(columns[n])])[ends] for n in ("lengths", "num_masks"))
    cuts = {"input_ids": token_ends, "positions": mask_ends, "masked_ids": mask_ends}
    pieces = {name: np.split(values, cuts.get(name, ends), axis=-1) for name, values in columns.items()}
    return [{name: values[number] for name, values in pieces.items()} for number in range(len(counts))]


class BatchReader:
    """Reads one rank's share of the global batch of any step."""

    def __init__(
        self,
        data_sets: DataSets,
        legs: Sequence[Leg],
        micro_batch_size: int,
        ranks: Ranks,
        remasking: Remasking | None = None,
    ) -> None:
        """
        Args:
            legs: a leg for each phase of training, at any place. Other legs over the same examples may be read, too.
            micro_batch_size: at the shortest length; longer ones use proportionally fewer examples.
            remasking: draws new masks in every epoch, at the rate of a leg that has one; without it, examples keep the
                masks of the data set.
        """
        self.data_sets = data_sets
        self.legs = legs
        self.remasking = remasking
        self.ranks = ranks
        lengths = sorted({leg.max_seq_length for leg in legs})
        self.micro_batch_sizes = {length: max(1, micro_batch_size * lengths[0] // length) for length in lengths}
        for leg in legs:
            for examples in data_sets.examples_of(leg):
                examples.check_shards()
        self._shapes: dict[tuple[int, int, float | None], StaticShape] = {}
        self._counts: dict[tuple[int, float], I64] = {}
        self._readers: dict[Leg, LegReader] = {}
        self._thread = ThreadPoolExecutor(1, "batches")
        self._coming: tuple[Leg, int, Future[GlobalBatch]] | None = None

    def has_pairs(self) -> bool:
        """Return whether the first thousand examples of any data set have labels for next sentence prediction."""
        examples = {found for leg in self.legs for found in self.data_sets.examples_of(leg)}
        return any((found.sample()["labels"] >= 0).any() for found in examples)

    def check_whole(self) -> None:
        """Raise ValueError unless every rank has one micro-batch of at least one example in each step."""
        for leg in self.legs:
            length, size, ranks = leg.max_seq_length, leg.batch_size, self.ranks.size
            if not ranks <= size <= self.micro_batch_sizes[length] * ranks:
                raise ValueError(
                    f"normalization=batch is over a whole batch in one pass: at length {length} batch_size={size} must be "
                    f"at least the number of ranks, {ranks}, and at most micro_batch_size x ranks = "
                    f"{self.micro_batch_sizes[length] * ranks}; raise micro_batch_size, or take --model.normalization layer"
                )

    def pad_batches(self) -> list[StaticShape]:
        """Pad the micro-batches of each length, batch size and masking rate to one size from now on; return the sizes."""
        found: dict[tuple[int, int, float | None], list[StaticShape]] = {}
        for leg in self.legs:
            length, batch_size = leg.max_seq_length, leg.batch_size
            micro_batch_size = self.micro_batch_sizes[length]
            found.setdefault((length, batch_size, leg.masked_lm_prob), []).extend(
                static_shape(
                    sample["lengths"],
                    num_masks_of(sample, self._counts_at(length, leg.masked_lm_prob)),
                    max_seq_length=length,
                    batch_size=batch_size,
                    micro_batch_size=micro_batch_size,
                    num_parts=num_parts(batch_size, micro_batch_size, self.ranks.size),
                )
                for sample in self._samples(leg)
            )
        self._shapes = {key: largest_shape(shapes) for key, shapes in found.items()}
        return list(self._shapes.values())

    def _counts_at(self, length: int, rate: float | None) -> I64 | None:
        """Return the number of masks of an example by its length; None for the data set's own number."""
        if rate is None:
            return None
        assert self.remasking
        if (length, rate) not in self._counts:
            self._counts[length, rate] = self.remasking.counts(length, rate)
        return self._counts[length, rate]

    def _samples(self, leg: Leg) -> list[dict[str, np.ndarray]]:
        """Return the sizes of about a thousand examples of each stretch of a leg."""
        samples = [examples.sample() for examples in self.data_sets.examples_of(leg)]
        if not leg.sources:
            return samples
        return [
            {
                name: np.concatenate([np.resize(s[name], -(-n // CYCLE)) for s, n in zip(samples, stretch.counts)])
                for name in samples[0]
            }
            for stretch in mixture_of(leg).stretches
        ]

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
        self.data_sets.close()
        self._thread.shutdown(cancel_futures=True)

    def indices(self, leg: Leg, step: int) -> list[int] | dict[str, list[int]]:
        """Return the rows that the update after `step` updates reads, numbered over all shards as `explain` counts.

        With several data sets, the result is a dictionary by their names.
        """
        start = leg.item_at(step)
        reader = self.leg_reader(leg)
        copies, rows = reader.order.items(start, start + leg.batch_size)
        indices, sources = reader.examples.indices(copies, rows), reader.examples.sources_of(copies)
        if sources is None:
            return indices.tolist()
        return {source.name: indices[sources == number].tolist() for number, source in enumerate(leg.sources)}

    def leg_reader(self, leg: Leg) -> LegReader:
        """Return the rows of a leg and their order. With one data set, all legs have the same rows and order."""
        key = leg if leg.sources else without_place(leg)
        if key not in self._readers:
            self._readers[key] = LegReader(self.data_sets.examples_of(leg), key)
        return self._readers[key]

    def _read(self, leg: Leg, step: int) -> GlobalBatch:
        length, reader = leg.max_seq_length, self.leg_reader(leg)
        start = leg.item_at(step)
        copies, rows = reader.items.items(start, start + leg.batch_size)
        new_masks = None
        if self.remasking:
            epochs, apart = reader.order.epochs(start, start + leg.batch_size), reader.keys_of(copies)
            keys = example_keys(leg.seed, length, epochs, rows, *apart)
            counts = self._counts_at(length, leg.masked_lm_prob)
            new_masks = EpochMasks(keys=keys, max_seq_length=length, remasking=self.remasking, counts=counts)
        batch = share_rows(
            reader.examples,
            copies,
            rows,
            self.micro_batch_sizes[length],
            self.ranks.rank,
            self.ranks.size,
            new_masks,
        )
        batch = replace(batch, source_names=tuple(source.name for source in leg.sources))
        if shape := self._shapes.get((length, leg.batch_size, leg.masked_lm_prob)):
            batch = replace(batch, micro_batches=[pad_batch(part, shape) for part in batch.micro_batches])
        if self.ranks.device.type == "cuda":  # a copy from pinned memory does not wait for the GPU
            batch = replace(batch, micro_batches=[part.pinned() for part in batch.micro_batches])
        return batch

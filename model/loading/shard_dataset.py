"""A torch data set over shards, for trainers other than `bertloom pretrain`.

    data = bertloom.ShardDataset("DATASET", batch_size=32, seed=1)
    for batch in data.loader(num_workers=2):
        BertForPreTraining(config)(**batch).loss.backward()

The order is that of `bertloom pretrain` (`model/loading/order.py`): a permutation that depends on seed and epoch alone. A
global batch is the next batch_size x ranks examples of it; rank r takes the r-th part. Workers take batches in turn, so
their number changes nothing. The state is the number of examples that all ranks have read.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from model.loading.cache import DEFAULT_CACHE_GB
from model.loading.data import DataSet, Examples
from model.loading.order import ORDER_VERSION, ItemsAhead
from model.loading.transformers_batch import pad_columns, split_examples

Batch = dict[str, Tensor] | dict[str, Any]
POSITION, START, READ_BY_WORKERS, TRACKED = range(4)
"""What all processes of a data set share: the place after the last batch that the loop was given, the place where workers
begin, whether workers read, and whether a `ShardLoader` follows what they read."""


class ShardDataset(IterableDataset[Batch]):
    """The training examples of a data set, in batches or one by one, with an exact state.

    Iterating reads the rest of the current epoch, and the next time the next one: epoch e is copy e mod `dupe_factor` in an
    order of its own. With phases, iterating reads the rest of all phases.

    With `batch_size` it yields batches as `collate` makes them: int64 tensors (examples, tokens). Without it, it yields
    single examples: dicts with `input_ids`, `segment_b_start`, `masked_lm_positions`, `masked_lm_ids` and
    `next_sentence_label`.

    Examples:
        >>> data = bertloom.ShardDataset("DATASET", batch_size=32, seed=1)
        >>> for batch in data.loader(num_workers=2):
        ...     loss = BertForPreTraining(config)(**batch).loss
    """

    def __init__(
        self,
        location: str | os.PathLike[str],
        *,
        batch_size: int | None = None,
        max_seq_length: int | None = None,
        phases: Sequence[tuple[int, int]] | None = None,
        seed: int = 0,
        shuffle: str = "global",
        rank: int | None = None,
        num_ranks: int | None = None,
        pad_to_max: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_gb: float = DEFAULT_CACHE_GB,
    ) -> None:
        """
        Args:
            location: a local folder, or a URL that fsspec knows.
            batch_size: examples of a batch of one rank, padded as `collate` does. None: single examples, for `collate`.
            max_seq_length: length of the examples, by default the shortest one.
            phases: (max_seq_length, examples of all ranks) of each phase, such as [(128, 900_000), (512, 100_000)].
            seed: seed of the order. `bertloom pretrain` has 1 by default.
            shuffle: `global`, or `window:16` to read 16 members at a time, for data at a URL.
            rank: number of this process among those that train together. By default torch.distributed decides, or it is 0.
            num_ranks: number of these processes. By default torch.distributed decides, or it is 1.
            pad_to_max: pad every batch to max_seq_length instead of its longest example.
            cache_dir: folder that caches data from a URL. The default is ~/.cache/bertloom.
            cache_gb: largest size of the cache, in 10^9 bytes.

        Raises:
            ValueError: the location has no finished data set, the data set has no examples of a length, or two options
                contradict each other.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected 1 or more, or None for single examples")
        if phases is not None and (max_seq_length is not None or not phases or min(size for _, size in phases) < 1):
            raise ValueError(
                f"phases={phases!r}, max_seq_length={max_seq_length}: give one of the two, and phases as "
                f"[(max_seq_length, number of examples), ...], such as [(128, 900_000), (512, 100_000)]"
            )
        if (rank is None) != (num_ranks is None) or not 0 <= (rank or 0) < (1 if num_ranks is None else num_ranks):
            raise ValueError(f"rank={rank}, num_ranks={num_ranks}: give both, with rank 0 to num_ranks - 1, or neither")
        self.location, self.cache_dir, self.cache_gb = os.fspath(location), cache_dir, cache_gb
        self.batch_size, self.seed, self.shuffle, self.pad_to_max = batch_size, seed, shuffle, pad_to_max
        self._ranks = None if rank is None or num_ranks is None else (rank, num_ranks)
        data_set = self._opened()
        self.phases = None if phases is None else [(int(length), int(size)) for length, size in phases]
        self.max_seq_length = data_set.examples("train", max_seq_length).max_seq_length
        self.lengths = sorted({length for length, _ in self.phases or [(self.max_seq_length, 0)]})
        for length in self.lengths:
            data_set.examples("train", length).order(seed, shuffle)  # raises ValueError where there is none
        self.vocabulary_size = data_set.vocabulary_size
        self._digest = data_set.shards_digest
        # In shared memory: workers that stay between epochs see where the next one begins.
        self._shared = torch.zeros(4, dtype=torch.int64).share_memory_()

    # ---- ranks and files, as this process sees them

    @property
    def ranks(self) -> tuple[int, int]:
        """Rank of this process, and the number of ranks."""
        if self._ranks is None and dist.is_available() and dist.is_initialized():
            return dist.get_rank(), dist.get_world_size()
        return self._ranks or (0, 1)

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to a worker: it has no process group, and opens the files itself."""
        state = {name: value for name, value in vars(self).items() if name not in ("_reader", "_reader_process")}
        return {**state, "_ranks": self.ranks}

    def _opened(self) -> DataSet:
        return DataSet(self.location, self.cache_dir, self.cache_gb)

    @property
    def _readers(self) -> "_Readers":
        """The files, opened by this process: threads and connections do not survive a fork."""
        if self.__dict__.get("_reader_process") != os.getpid():
            self._reader_process, self._reader = os.getpid(), _Readers(self._opened(), self)
        return self._reader

    # ---- the state

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the order after the last batch or example that the loop was given.

        The state is a dict of plain values. It does not depend on the numbers of ranks and workers or on batch_size, which
        may change.

        Raises:
            ValueError: workers of a plain DataLoader read ahead of the loop. Use `loader`.
        """
        if self._shared[READ_BY_WORKERS] and not self._shared[TRACKED]:
            raise ValueError(
                "the state is not known, because the workers of a DataLoader read ahead of the loop: iterate over "
                "data.loader(num_workers=...) instead of DataLoader(data, num_workers=...)"
            )
        return {"position": int(self._shared[POSITION]), **self._order()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a place that `state_dict` returned.

        Raises:
            ValueError: the state is damaged, or it is of another data set, seed, shuffle or length.
        """
        own = self._order()
        differing = sorted(name for name in own if state.get(name) != own[name])
        if differing or not isinstance(state.get("position"), int) or state["position"] < 0:
            raise ValueError(
                f"the state is damaged or belongs to another order: it differs in {', '.join(differing) or 'position'}: "
                f"expected {own}; give the same data set, seed, shuffle and lengths"
            )
        self._move(state["position"])

    def set_epoch(self, epoch: int) -> None:
        """Continue at the beginning of an epoch, counted from 0.

        Raises:
            ValueError: the data set has phases, so it has no epochs.
        """
        if self.phases is not None:
            raise ValueError("set_epoch: a data set with phases has no epochs; load_state_dict moves it")
        self._move(self._readers.orders[self.max_seq_length].epoch_start(epoch))

    def _order(self) -> dict[str, Any]:
        phases = None if self.phases is None else [list(phase) for phase in self.phases]
        return {
            "order_version": ORDER_VERSION,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "max_seq_length": None if phases else self.max_seq_length,
            "phases": phases,
            "shards_digest": self._digest,
        }

    def _move(self, position: int) -> None:
        self._shared[:] = torch.tensor([position, position, 0, 0])

    # ---- reading

    def _stretch(self, position: int) -> tuple[int, int, int] | None:
        """Return (length, item in the order of that length, examples left) where one phase or epoch goes on, or None."""
        if self.phases is None:
            order = self._readers.orders[self.max_seq_length]
            return self.max_seq_length, position, order.epoch_start(order.epoch_of(position) + 1) - position
        items = dict.fromkeys(self.lengths, 0)
        for length, size in self.phases:
            if position < size:
                return length, items[length] + position, size - position
            items[length], position = items[length] + size, position - size
        return None

    def _parts(self, position: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (length, first item, item after the last, position of all ranks after it) of each part of this rank.

        The last global batch of a phase or epoch may be smaller; it is divided as equally as possible.
        """
        rank, num_ranks = self.ranks
        while stretch := self._stretch(position):
            length, item, left = stretch
            for start in range(0, left, step := (self.batch_size or 1) * num_ranks):
                size = min(step, left - start)
                first, past = (item + start + size * number // num_ranks for number in (rank, rank + 1))
                yield length, first, past, position + start + size
            position += left
            if self.phases is None:
                return

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            self._shared[READ_BY_WORKERS] = 1
        turn = 0
        for length, first, past, position in self._parts(int(self._shared[START if worker else POSITION])):
            if worker is None:
                self._shared[POSITION] = position
            if first < past:
                if turn % num_workers == number:
                    yield self._readers.read(length, first, past)
                turn += 1

    def loader(self, num_workers: int = 0, **options: Any) -> "ShardLoader":
        """Return a DataLoader over the batches that keeps the state.

        Args:
            num_workers: number of worker processes. It does not change the batches.
            options: of torch.utils.data.DataLoader, except those that decide the batches and their order.

        Raises:
            ValueError: the data set has no batch_size, or an option decides the batches.
        """
        if self.batch_size is None:
            raise ValueError("loader: the data set has no batch_size; give ShardDataset(..., batch_size=32)")
        if not options.keys().isdisjoint(
            ("batch_size", "shuffle", "sampler", "batch_sampler", "collate_fn", "drop_last")
        ):
            raise ValueError("loader: batches and their order belong to the data set: give batch_size to ShardDataset")
        return ShardLoader(self, batch_size=None, num_workers=num_workers, **options)


class ShardLoader(DataLoader[Batch]):
    """A DataLoader that moves the state of its data set with each batch that it yields, whoever read it."""

    dataset: ShardDataset

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        if self.num_workers == 0:
            yield from super().__iter__()
            return
        shared, parts = self.dataset._shared, self.dataset._parts(int(self.dataset._shared[POSITION]))
        shared[START], shared[TRACKED] = shared[POSITION], 1
        batches = super().__iter__()
        for _, first, past, position in parts:
            batch = next(batches) if first < past else None
            shared[POSITION] = position
            if batch is not None:
                yield batch
        assert next(batches, None) is None  # the workers are done, too


class _Readers:
    """The rows of each length of a data set, and their orders."""

    def __init__(self, data_set: DataSet, data: ShardDataset) -> None:
        self.examples: dict[int, Examples] = {length: data_set.examples("train", length) for length in data.lengths}
        self.orders = {length: examples.order(data.seed, data.shuffle) for length, examples in self.examples.items()}
        self._items: dict[int, ItemsAhead] = {
            length: examples.items_ahead(self.orders[length]) for length, examples in self.examples.items()
        }
        self.batched, self.pad_to_max = data.batch_size is not None, data.pad_to_max
        self._data_set = data_set

    @cached_property
    def pad(self) -> int:
        """Id of [PAD]."""
        return self._data_set.tokenizer().special.pad

    def read(self, length: int, first: int, past: int) -> Batch:
        """Return the batch of these items, or the single one if there are no batches."""
        copies, rows = self._items[length].items(first, past)
        columns = self.examples[length].read(copies, rows)
        if not self.batched:
            return split_examples(columns)[0]
        return pad_columns(columns, length if self.pad_to_max else None, self.pad)

"""The batches of consecutive updates, read from the shards as the trainer reads them."""

import time
from collections.abc import Iterator
from types import TracebackType

import torch

from benchmarks.gpu.levers import SEED
from model.batch import StaticShape
from model.distributed import Ranks
from model.loading.batches import BatchReader, GlobalBatch
from model.loading.data import DataSet
from model.loading.data_sets import DataSets
from model.loading.stream import Leg


class Steps:
    """The batches of consecutive updates at one length. The reader's thread ends with the block."""

    def __init__(self, data_set: DataSet, length: int, micro_batch: int, parts: int, device: torch.device) -> None:
        size = micro_batch * parts
        self.leg = Leg(step=0, max_seq_length=length, item=0, batch_size=size, seed=SEED, shards_digest="")
        self.reader = BatchReader(DataSets({"": data_set}), [self.leg], micro_batch, Ranks(device=device))

    def pad(self) -> list[StaticShape]:
        """Pad batches to one size from now on, and return it."""
        return self.reader.pad_batches()

    def read(self, number: int, first: int = 0) -> Iterator[tuple[GlobalBatch, float]]:
        """Yield the batches of a number of updates, and the seconds waited for each; the next one is prefetched."""
        for step in range(first, first + number):
            start = time.perf_counter()
            batch = self.reader.read(self.leg, step)
            waited = time.perf_counter() - start
            self.reader.prefetch(self.leg, step + 1)
            yield batch, waited

    def __enter__(self) -> "Steps":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reader.__exit__()

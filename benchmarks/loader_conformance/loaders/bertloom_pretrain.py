"""bertloom: the loader of `bertloom pretrain` (`model/loading/batches.py`).

A checkpoint holds the number of steps; the order of all rows follows from it and the data set
(docs/training.md, docs/mixtures.md).
Each rank takes its share of a global batch by length, so a row's place is read from the same rule. The loader has no worker
processes: a thread reads the next step ahead.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loader_conformance.interface import Setting
from loader_conformance.loaders.bertloom_shards import write_shards
from loader_conformance.rows import LONGEST

PACKAGES = ("bertloom",)
LACKS: dict[str, str] = {}


def write(rows: Sequence[np.ndarray], folder: Path) -> None:
    write_shards(rows, folder)


class Session:
    def __init__(self, setting: Setting) -> None:
        import torch

        from model.distributed import Ranks
        from model.loading.batches import BatchReader
        from model.loading.data_sets import open_data_sets
        from model.loading.sources import Source
        from model.loading.stream import continue_legs

        self.setting = setting
        shares = setting.shares if len(setting.folders) > 1 else (None,)
        named = zip(("first", "second"), setting.folders, shares)
        sources = [Source(name=name, path=path, share=share) for name, path, share in named]
        data_sets = open_data_sets(sources)
        self.length = data_sets.shortest_length(source.name for source in sources)
        [self.leg] = continue_legs(
            [],
            0,
            max_seq_length=self.length,
            batch_size=setting.global_batch,
            seed=setting.seed,
            shuffle="global",
            shards_digest=data_sets.shards_digest,
            sources=data_sets.leg_sources(sources, self.length, setting.seed),
        )
        ranks = Ranks(rank=setting.rank, size=setting.num_ranks, device=torch.device("cpu"))
        self.reader = BatchReader(data_sets, [self.leg], setting.micro_batch, ranks)
        [first, *others] = data_sets.examples_of(self.leg)
        self.num_rows = None if others else first.rows_per_copy[0]
        self.step = 0

    def steps(self, epoch: int) -> Iterator[list[Any]]:
        """Yield the steps whose first row is in this epoch; a mixture has no epochs, so its first one has no end."""
        while self.num_rows is None or self.step * self.setting.global_batch < (epoch + 1) * self.num_rows:
            batch = self.reader.read(self.leg, self.step)
            self.reader.prefetch(self.leg, self.step + 1)
            self.step += 1
            yield [(batch, number) for number in range(len(batch.micro_batches))]

    def tokens(self, batch: Any) -> list[np.ndarray]:
        """Return the rows with the words that the masks hide."""
        step, number = batch
        part = step.micro_batches[number]
        ids = part.input_ids.numpy().copy()
        ids[part.masked_positions.numpy()] = part.masked_ids.numpy()
        assert self.length > LONGEST
        return np.split(ids, np.cumsum(part.lengths)[:-1])

    def places(self, batch: Any) -> list[int]:
        from model.loading.batches import cut_by_length

        step, number = batch
        parts = cut_by_length(step.lengths, self.setting.micro_batch, self.setting.num_ranks)
        return parts[step.numbers[number]].tolist()

    def state(self) -> int:
        return self.step

    def load(self, states: list[int]) -> None:
        self.step = states[0]

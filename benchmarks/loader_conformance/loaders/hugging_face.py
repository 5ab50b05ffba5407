"""What both ways of Hugging Face datasets have in common: Parquet files, and torchdata's `StatefulDataLoader`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loader_conformance.interface import PaddedSession, Setting, grouped, pad

PACKAGES = ("datasets", "torchdata")
LACKS = {"c-32": "batch_size of a DataLoader is per rank (docs, use_with_pytorch), and 3 does not divide 32"}
NUM_FILES = 24
"""Files. 1, 2 and 3 ranks and workers divide it, as `split_dataset_by_node` asks for."""


def write(rows: Sequence[np.ndarray], folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number in range(NUM_FILES):
        column = pa.array(list(rows[number::NUM_FILES]), pa.list_(pa.uint16()))
        pq.write_table(pa.table({"input_ids": column}), folder / f"{number:05d}.parquet")


def files_of(folder: str) -> list[str]:
    return sorted(map(str, Path(folder).glob("*.parquet")))


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return pad([np.asarray(sample["input_ids"]) for sample in samples])


class StatefulSession(PaddedSession):
    """A session whose data set is an `IterableDataset` of its own for each epoch."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.loaded: Any = None
        self.loader: Any = None

    def data(self, epoch: int) -> Any:
        raise NotImplementedError

    def steps(self, epoch: int) -> Iterator[list[Any]]:
        from datasets.distributed import split_dataset_by_node
        from torchdata.stateful_dataloader import StatefulDataLoader

        data = self.data(epoch)
        if self.setting.num_ranks > 1:
            data = split_dataset_by_node(data, rank=self.setting.rank, world_size=self.setting.num_ranks)
        options = {"batch_size": self.setting.micro_batch, "num_workers": self.setting.num_workers}
        self.loader = StatefulDataLoader(data.with_format("numpy"), collate_fn=collate, **options)
        if self.loaded:
            self.loader.load_state_dict(self.loaded)
            self.loaded = None
        yield from grouped(self.loader, self.setting.num_passes)

    def state(self) -> Any:
        return self.loader.state_dict()

    def load(self, states: list[Any]) -> None:
        """Each rank takes its own state; with another number of ranks, there is none, so it takes one that exists."""
        self.loaded = states[self.setting.rank % len(states)]

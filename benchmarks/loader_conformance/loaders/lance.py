"""LanceDB: a table, `lancedb.streaming.StreamingDataset` and `StreamingDataLoader`.

https://docs.lancedb.com/training/distributed-training: the samples of a global step are the same for every number of ranks
and workers, if `num_splits` is fixed and ranks times workers divide it.
https://docs.lancedb.com/training/checkpointing: `num_splits` divides the global batch size; the states of all ranks are
joined with `merge_state_dicts`; with several workers a state exists only where each of them had a turn. An epoch is a data
set with another `epoch`. Workers are spawned, not forked (https://docs.lancedb.com/training/torch).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loader_conformance.interface import PaddedSession, Setting, grouped, pad

PACKAGES = ("lancedb", "pylance")
ONE_TABLE = "StreamingDataset reads one table (docs.lancedb.com/training/data-loading)"
LACKS = {
    "c-32": "batch_size is the same for all ranks, and their number divides num_splits, which divides the global batch "
    "(docs.lancedb.com/training/checkpointing): 3 does not divide 32",
    "g": ONE_TABLE,
    "g-ranks": ONE_TABLE,
}
NUM_WRITES = 8


def write(rows: Sequence[np.ndarray], folder: Path) -> None:
    import lancedb
    import pyarrow as pa

    table = None
    for number in range(NUM_WRITES):
        part = pa.table({"input_ids": pa.array(rows[number::NUM_WRITES], pa.list_(pa.uint16()))})
        if table is None:
            table = lancedb.connect(folder).create_table("rows", part)
        else:
            table.add(part)


def lists_of(batch: Any) -> list[np.ndarray]:
    """Return the rows of a record batch: the data set's `transform`."""
    column = batch.column("input_ids")
    return np.split(column.flatten().to_numpy(), np.cumsum(column.value_lengths().to_numpy())[:-1])


class Session(PaddedSession):
    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.loaded: Any = None
        self.data: Any = None

    def steps(self, epoch: int) -> Iterator[list[Any]]:
        import lancedb
        from lancedb.streaming import StreamingDataLoader, StreamingDataset

        setting = self.setting
        self.data = StreamingDataset(
            lancedb.connect(setting.folders[0]).open_table("rows"),
            num_splits=setting.global_batch,
            shuffle_seed=setting.seed,
            epoch=epoch,
            rank=setting.rank,
            world_size=setting.num_ranks,
            transform=lists_of,
        )
        if self.loaded:
            self.data.load_state_dict(self.loaded)
            self.loaded = None
        options: dict[str, Any] = {"multiprocessing_context": "spawn"} if setting.num_workers else {}
        loader = StreamingDataLoader(
            self.data, batch_size=setting.micro_batch, num_workers=setting.num_workers, collate_fn=pad, **options
        )
        yield from grouped(loader, setting.num_passes)

    def state(self) -> Any:
        return self.data.state_dict()

    def load(self, states: list[Any]) -> None:
        from lancedb.streaming import StreamingDataset

        self.loaded = StreamingDataset.merge_state_dicts(states)

"""grain: ArrayRecord files, a shuffled `MapDataset`, and `grain.experimental.ElasticIterator`.

https://google-grain.readthedocs.io/en/latest/grain.experimental.html, `ElasticIterator`: it shards and batches, and the
state of any shard restores all shards after a change of their number. It takes the global batch size. An epoch is
`MapDataset.repeat`, which shuffles each epoch anew. Mixtures: `MapDataset.mix`
(https://google-grain.readthedocs.io/en/latest/tutorials/dataset_advanced_tutorial.html).
Worker processes: `MultiprocessingOptions`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loader_conformance.interface import PaddedSession, Setting

PACKAGES = ("grain", "array-record")
LACKS: dict[str, str] = {}
NUM_FILES = 8
LENGTH = 128
"""Length to which each row is padded: ElasticIterator stacks rows, so all must have the same length."""


def write(rows: Sequence[np.ndarray], folder: Path) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    for number in range(NUM_FILES):
        writer = ArrayRecordWriter(str(folder / f"{number:05d}.array_record"), "group_size:1")
        for row in rows[number::NUM_FILES]:
            writer.write(row.tobytes())
        writer.close()


def decode(record: bytes) -> dict[str, np.ndarray]:
    row = np.frombuffer(record, np.uint16)
    ids = np.zeros(LENGTH, np.int64)
    ids[: len(row)] = row
    return {"input_ids": ids, "lengths": np.int64(len(row))}


class Session(PaddedSession):
    def __init__(self, setting: Setting) -> None:
        import grain
        from grain.experimental import ElasticIterator

        paths = [sorted(map(str, Path(folder).glob("*.array_record"))) for folder in setting.folders]
        sources = [grain.sources.ArrayRecordDataSource(files) for files in paths]
        sets = [grain.MapDataset.source(source).seed(setting.seed).shuffle().repeat().map(decode) for source in sources]
        data = sets[0] if len(sets) == 1 else grain.MapDataset.mix(sets, weights=list(setting.shares))
        shard = grain.sharding.ShardOptions(shard_index=setting.rank, shard_count=setting.num_ranks)
        workers = grain.MultiprocessingOptions(num_workers=setting.num_workers) if setting.num_workers else None
        elastic = ElasticIterator(data, setting.global_batch, shard, multiprocessing_options=workers)
        self.iterator = iter(elastic)
        self.num_rows = len(sources[0]) if len(sources) == 1 else None
        self.global_batch, self.micro_batch = setting.global_batch, setting.micro_batch
        self.step = 0

    def steps(self, epoch: int) -> Iterator[list[Any]]:
        """Yield the steps whose first row is in this epoch, because repeat() lets batches cross the end of an epoch."""
        import torch

        while self.num_rows is None or self.step * self.global_batch < (epoch + 1) * self.num_rows:
            batch = {name: torch.from_numpy(values) for name, values in next(self.iterator).items()}
            self.step += 1
            pieces = {name: values.split(self.micro_batch) for name, values in batch.items()}
            yield [dict(zip(pieces, values)) for values in zip(*pieces.values())]

    def state(self) -> Any:
        return self.step, self.iterator.get_state()

    def load(self, states: list[Any]) -> None:
        self.step, state = states[0]
        self.iterator.set_state(state)

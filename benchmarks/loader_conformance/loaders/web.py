"""webdataset: tar files, shards and a buffer shuffled. It has no state, so no scenario can run.

https://github.com/webdataset/webdataset, README and FAQ: a pipeline has neither `state_dict` nor a place to resume from. For
training on several nodes the FAQ (issue 434) recommends `resampled=True`, which draws shards with replacement.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loader_conformance.interface import PaddedSession, Setting, grouped, pad
from loader_conformance.scenarios import SCENARIOS

PACKAGES = ("webdataset",)
LACKS = {scenario.key: "no state to save or load (README and FAQ of webdataset)" for scenario in SCENARIOS}
NUM_SHARDS = 8
BUFFER_SIZE = 1_000


def write(rows: Sequence[np.ndarray], folder: Path) -> None:
    import webdataset

    for shard in range(NUM_SHARDS):
        with webdataset.TarWriter(str(folder / f"{shard:05d}.tar")) as tar:
            for number in range(shard, len(rows), NUM_SHARDS):
                tar.write({"__key__": f"{number:09d}", "ids.npy": npy(rows[number])})


def npy(row: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, row)
    return buffer.getvalue()


class Session(PaddedSession):
    def __init__(self, setting: Setting) -> None:
        import webdataset

        shards = sorted(map(str, Path(setting.folders[0]).glob("*.tar")))
        splits = {"nodesplitter": webdataset.split_by_node, "workersplitter": webdataset.split_by_worker}
        data = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=setting.seed, **splits)
        data = data.shuffle(BUFFER_SIZE, seed=setting.seed).decode().to_tuple("ids.npy").map(first)
        data = data.batched(setting.micro_batch, collation_fn=pad)
        self.loader = webdataset.WebLoader(data, batch_size=None, num_workers=setting.num_workers)
        self.num_passes = setting.num_passes

    def steps(self, epoch: int) -> Iterator[list[Any]]:
        return grouped(self.loader, self.num_passes)


def first(columns: tuple[np.ndarray, ...]) -> np.ndarray:
    return columns[0]

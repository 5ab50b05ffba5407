"""litdata: chunks made by `optimize`, `StreamingDataset` and `StreamingDataLoader`.

https://github.com/Lightning-AI/litData, README, "Pause, resume data streaming": `loader.state_dict()` and
`load_state_dict()`; "Streams on multi-GPU, multi-node": `shuffle=True, drop_last=True`. The docstring of `StreamingDataset`
describes `num_canonical_nodes` and the elastic resume: a state may be loaded with another number of ranks and workers and
with another batch size. Mixtures: `CombinedStreamingDataset(weights=...)`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loader_conformance.interface import LoaderSession, Setting, pad

PACKAGES = ("litdata",)
LACKS = {"c-32": "batch_size of StreamingDataLoader is per rank and the same for all, and 3 does not divide 32"}
NUM_CHUNKS = 8


def as_sample(row: np.ndarray) -> dict[str, Any]:
    return {"input_ids": row}


def write(rows: Sequence[np.ndarray], folder: Path) -> None:
    from litdata import optimize

    folder.rmdir()  # optimize makes it
    size = -(-len(rows) // NUM_CHUNKS)
    optimize(fn=as_sample, inputs=list(rows), output_dir=str(folder), chunk_size=size, num_workers=1)


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return pad([np.asarray(sample["input_ids"]) for sample in samples])


class Session(LoaderSession):
    def __init__(self, setting: Setting) -> None:
        from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset

        shuffled = {"shuffle": True, "drop_last": True, "seed": setting.seed}
        sets = [StreamingDataset(folder, **shuffled, num_canonical_nodes=1) for folder in setting.folders]
        mixed = {"weights": list(setting.shares), "seed": setting.seed, "iterate_over_all": False}
        data = sets[0] if len(sets) == 1 else CombinedStreamingDataset(sets, **mixed)
        options = {"batch_size": setting.micro_batch, "num_workers": setting.num_workers, "collate_fn": collate}
        self.loader = StreamingDataLoader(data, **options)
        self.num_passes = setting.num_passes

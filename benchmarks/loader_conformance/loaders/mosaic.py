"""mosaicml-streaming: MDS shards, `StreamingDataset` with a fixed `num_canonical_nodes`, and `StreamingDataLoader`.

https://docs.mosaicml.com/projects/streaming/en/latest/distributed_training/fast_resumption.html: rank 0's
`StreamingDataLoader.state_dict()` goes into the checkpoint, and each rank loads it.
https://docs.mosaicml.com/projects/streaming/en/latest/distributed_training/elastic_determinism.html: the samples have the
same order on any number of GPUs and workers if the global batch size and `num_canonical_nodes` are the same.
Mixtures: `Stream(proportion=...)`. After a killed run its documentation asks for `clean_stale_shared_memory()`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loader_conformance.interface import LoaderSession, Setting, pad

PACKAGES = ("mosaicml-streaming",)
LACKS = {
    "c-32": "batch_size is per device and the same for all (API reference, StreamingDataset), and 3 does not divide 32"
}
NUM_SHARDS = 8


def write(rows: Sequence[np.ndarray], folder: Path) -> None:
    check_torchvision()
    from streaming import MDSWriter

    shard_bytes = sum(row.nbytes + 12 for row in rows) // NUM_SHARDS + (1 << 10)
    with MDSWriter(out=str(folder), columns={"input_ids": "ndarray:uint16"}, size_limit=shard_bytes) as out:
        for row in rows:
            out.write({"input_ids": row})


def check_torchvision() -> None:
    """Make `import streaming` possible where torch is built for the CPU and torchvision for CUDA.

    streaming imports torchvision, for images. Its import then fails, because it describes operators of a library that
    cannot be loaded. No loader of text uses them.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return pad([sample["input_ids"] for sample in samples])


class Session(LoaderSession):
    def __init__(self, setting: Setting) -> None:
        check_torchvision()
        from streaming import Stream, StreamingDataLoader, StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()  # on all ranks, which wait for the first one
        one = {"local": setting.folders[0]}
        shares = zip(setting.folders, setting.shares)
        mixed = {"streams": [Stream(local=folder, proportion=share) for folder, share in shares]}
        data = StreamingDataset(
            **(one if len(setting.folders) == 1 else mixed),
            batch_size=setting.micro_batch,
            shuffle=True,
            shuffle_seed=setting.seed,
            num_canonical_nodes=1,
        )
        options = {"batch_size": setting.micro_batch, "num_workers": setting.num_workers, "collate_fn": collate}
        self.loader = StreamingDataLoader(data, **options)
        self.num_passes = setting.num_passes

"""bertloom: the torch data set `bertloom.ShardDataset` with its own loader, for other trainers.

docs/training.md, section "The shards in your own trainer": the state is a place in the order, which does not depend on
ranks, workers or batch_size.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loader_conformance.interface import Setting, grouped
from loader_conformance.loaders.bertloom_shards import write_shards

PACKAGES = ("bertloom",)
ONE_SET = "one data set; mixtures are a feature of `bertloom pretrain` (docs/mixtures.md)"
LACKS = {
    "c-32": "batch_size is the same for all ranks, and 3 does not divide 32 (docs/training.md)",
    "g": ONE_SET,
    "g-ranks": ONE_SET,
}


def write(rows: Sequence[np.ndarray], folder: Path) -> None:
    write_shards(rows, folder)


class Session:
    def __init__(self, setting: Setting) -> None:
        import bertloom

        ranks = {"rank": setting.rank, "num_ranks": setting.num_ranks}
        [folder] = setting.folders
        self.data = bertloom.ShardDataset(folder, batch_size=setting.micro_batch, seed=setting.seed, **ranks)
        self.setting = setting

    def steps(self, epoch: int) -> Iterator[list[Any]]:
        return grouped(self.data.loader(num_workers=self.setting.num_workers), self.setting.num_passes)

    def tokens(self, batch: Any) -> list[np.ndarray]:
        """Return the rows with the words that the masks hide."""
        ids, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
        lengths = batch["attention_mask"].numpy().sum(axis=1)
        return [row[:length] for row, length in zip(np.where(labels >= 0, labels, ids), lengths)]

    def places(self, batch: Any) -> None:
        return None

    def state(self) -> Any:
        return self.data.state_dict()

    def load(self, states: list[Any]) -> None:
        self.data.load_state_dict(states[0])

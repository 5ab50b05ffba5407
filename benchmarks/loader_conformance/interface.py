"""What each loader of the comparison offers, and the list of the loaders.

A loader is added in three places: a file in `loaders/`, a line in `LOADERS`, and its packages in
benchmarks/rivals/loaders.txt. The files import their library inside functions, because only one environment has it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

LOADERS = {
    "bertloom pretrain": "bertloom_pretrain",
    "bertloom ShardDataset": "bertloom_shard_dataset",
    "mosaicml-streaming": "mosaic",
    "litdata": "lit",
    "grain": "grain_elastic",
    "lancedb": "lance",
    "datasets, shuffled table": "hugging_face_table",
    "datasets, shuffle buffer": "hugging_face_buffer",
    "webdataset": "web",
}
"""Module in `loaders/` of each loader, by its name in the table."""
OURS = ("bertloom pretrain", "bertloom ShardDataset")
"""The loaders that run in this project's environment."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a training process passes to its loader."""

    folders: Sequence[str]
    """Folders that `Loader.write` filled: one, or two for a mixture."""
    shares: Sequence[float] = (0.7, 0.3)
    """Shares of the two sets of a mixture."""
    global_batch: int
    """Rows of a step over all ranks."""
    micro_batch: int
    """Largest number of rows that a rank takes at once."""
    num_ranks: int = 1
    rank: int = 0
    num_workers: int = 0
    """Worker processes of each rank."""
    seed: int = 1

    @property
    def num_passes(self) -> int:
        """Number of micro-batches of a rank in a step, where the ranks divide the global batch."""
        return self.global_batch // (self.micro_batch * self.num_ranks)


class Session(Protocol):
    """A loader in one process of training."""

    def steps(self, epoch: int) -> Iterator[list[Any]]:
        """Yield this rank's micro-batches of each step in the rest of an epoch."""

    def tokens(self, batch: Any) -> list[np.ndarray]:
        """Return the tokens of each row of a micro-batch."""

    def places(self, batch: Any) -> list[int] | None:
        """Return the place of each row in its global batch, if the loader knows it."""

    def state(self) -> Any:
        """Return what a checkpoint holds after the last step."""

    def load(self, states: list[Any]) -> None:
        """Continue after a checkpoint, which holds the state of each rank that wrote it."""


class Loader(Protocol):
    """A module in `loaders/`."""

    PACKAGES: Sequence[str]
    """Distributions whose versions the report names."""
    LACKS: dict[str, str]
    """Why the loader cannot run a scenario, by the scenario's key: what its documentation says, and where."""

    def write(self, rows: Sequence[np.ndarray], folder: Path) -> None:
        """Write rows of tokens in the loader's own format."""

    def Session(self, setting: Setting) -> Session:
        """Open the data that `write` wrote."""


def loader_of(name: str) -> Loader:
    """Return the module of a loader."""
    module: Any = import_module(f"loader_conformance.loaders.{LOADERS[name]}")
    return module


class PaddedSession:
    """A session whose batches have two tensors: `input_ids` (N, L), padded, and `lengths` (N,)."""

    def tokens(self, batch: Any) -> list[np.ndarray]:
        ids, lengths = batch["input_ids"].numpy(), batch["lengths"].tolist()
        return [row[:length] for row, length in zip(ids, lengths)]

    def places(self, batch: Any) -> list[int] | None:
        return None


class LoaderSession(PaddedSession):
    """A padded session over a `loader` of micro-batches whose state is the same on all ranks."""

    loader: Any
    num_passes: int

    def steps(self, epoch: int) -> Iterator[list[Any]]:
        return grouped(self.loader, self.num_passes)

    def state(self) -> Any:
        return self.loader.state_dict()

    def load(self, states: list[Any]) -> None:
        self.loader.load_state_dict(states[0])


def pad(rows: Sequence[Any]) -> dict[str, Any]:
    """Return rows of tokens as a padded batch: `input_ids` int64 (N, L), `lengths` int64 (N,)."""
    import torch

    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    ids[np.arange(ids.shape[1]) < lengths[:, None]] = np.concatenate(rows)
    return {"input_ids": torch.from_numpy(ids), "lengths": torch.from_numpy(lengths)}


def grouped(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of this number of micro-batches; the last one may be shorter."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group

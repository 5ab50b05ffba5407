"""Where metrics go beside metrics.jsonl, for those who like to look elsewhere: TensorBoard and Weights & Biases.

Both are optional packages, and are imported only where they are asked for.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

SinkName = Literal["tensorboard", "wandb"]


class Sink(Protocol):
    """Something that takes a line of metrics."""

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """One line; what is no number may be left out."""

    def close(self) -> None:
        """No more lines."""


class TensorBoardSink:
    """Event files under RUN/tensorboard; what a stopped run had written behind its checkpoint is purged."""

    def __init__(self, out: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError(missing("tensorboard")) from None
        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        for name, value in numbers(values).items():
            self._writer.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


class WandbSink:
    """A run in Weights & Biases, named like the run folder; the same one when it is resumed."""

    def __init__(self, out: Path, configuration: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise ValueError(missing("wandb")) from None
        folder = out.resolve()
        self._run = wandb.init(
            project="bertloom",
            name=folder.name,
            dir=str(folder),
            config=dict(configuration),
            resume="allow",
            id=f"{folder.name}-{(folder / '.lock').stat().st_ino}",
        )

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        self._run.log({f"{split}/{name}": value for name, value in numbers(values).items()}, step=step)

    def close(self) -> None:
        self._run.finish()


def open_sinks(names: Sequence[SinkName], out: Path, step: int, configuration: Mapping[str, Any]) -> list[Sink]:
    """The sinks of these names; a ValueError says what to install."""
    return [TensorBoardSink(out, step) if name == "tensorboard" else WandbSink(out, configuration) for name in names]


def missing(name: str) -> str:
    """The words of that error."""
    return f"sinks: {name} is not installed: pip install {name}, or leave it out; metrics.jsonl has every number too"


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """What can be drawn of a line of metrics."""
    found = {name: value for name, value in values.items() if isinstance(value, (int, float))}
    return {name: value for name, value in found.items() if math.isfinite(value)}

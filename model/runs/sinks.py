"""Where metrics go besides metrics.jsonl: TensorBoard and Weights & Biases.

Both are optional packages, imported only if they are chosen.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

SinkName = Literal["tensorboard", "wandb"]


class Sink(Protocol):
    """A receiver of metrics."""

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Record one line; values that are not numbers may be ignored."""

    def close(self) -> None:
        """Finish after the last line."""


class TensorBoardSink:
    """Event files in RUN/tensorboard. Events after the checkpoint of a resumed run are purged."""

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
    """A run in Weights & Biases with the name of the run folder. A resumed run continues it."""

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
    """Return the sinks with these names; ValueError if a package is not installed."""
    return [TensorBoardSink(out, step) if name == "tensorboard" else WandbSink(out, configuration) for name in names]


def missing(name: str) -> str:
    """Return the text of the error about a missing package."""
    return f"sinks: {name} is not installed: run `pip install {name}`, or omit it; metrics.jsonl contains all metrics anyway"


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a line of metrics. One in a table gets the names of both.

    >>> numbers({"loss": 2.5, "stream": "00ff", "loss_by_source": {"web": 2.0, "books": 3.0}})
    {'loss': 2.5, 'loss_by_source/web': 2.0, 'loss_by_source/books': 3.0}
    """
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{inner}": number for inner, number in numbers(value).items()}
        elif isinstance(value, (int, float)) and math.isfinite(value):
            found[name] = value
    return found

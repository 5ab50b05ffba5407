"""Draws the curves of one or several runs: losses, accuracies, learning rate, speed.

    bertloom plot run
    bertloom plot run-a run-b --out compared.svg --x tokens

Reads metrics.jsonl of each run, also while it is being written. Training curves are running means, with the single steps
pale behind them; dots are the validation split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from bertloom.whole_files import whole_file
from jobs.support.config import parse
from model.runs.metrics import read_metrics

PANELS = (
    ("loss", "loss (nats)"),
    ("mlm_loss", "MLM loss"),
    ("nsp_loss", "NSP loss"),
    ("mlm_accuracy", "MLM accuracy"),
    ("nsp_accuracy", "NSP accuracy"),
    ("gradient_norm", "norm of the gradient"),
    ("learning_rate", "learning rate"),
    ("tokens_per_second", "real tokens per second"),
    ("mfu", "MFU"),
    ("accuracy", "accuracy"),
    ("macro_f1", "macro F1"),
    ("f1", "F1"),
    ("exact_match", "exact match"),
    ("pearson", "Pearson's correlation"),
)
"""Keys of metrics.jsonl and what is written above them; those that no run has are left out."""
EXACT = ("learning_rate",)
"""Drawn as it is, without a mean."""


@dataclass(frozen=True, kw_only=True)
class PlotConfig:
    """The curves of one or several runs, as PNG or SVG."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    out: Path = Path("plot.png")
    """The file to write: .png, .svg or .pdf."""
    x: Literal["step", "tokens", "seconds"] = "step"
    """What the curves run over."""
    smooth: int = 20
    """Steps in a running mean."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("give at least one run folder")
        if self.out.suffix not in (".png", ".svg", ".pdf"):
            raise ValueError(f"--out {self.out}: expected a name that ends in .png, .svg or .pdf")
        if self.smooth < 1:
            raise ValueError(f"smooth={self.smooth} must be at least 1")


def main(argv: Sequence[str]) -> None:
    config = parse(PlotConfig, argv, prog="bertloom plot")
    plot(config)
    print(f"{config.out}: {len(config.runs)} runs")


def plot(config: PlotConfig) -> None:
    """Draws the file."""
    runs = {}
    for run in config.runs:
        lines = read_metrics(run / "metrics.jsonl")
        if not lines:
            raise ValueError(f"{run} has no metrics.jsonl with a line in it: it is no run folder, or has not begun")
        lines = without_pairs(lines)
        runs[run] = [line | {"tokens": tokens} for line, tokens in zip(lines, tokens_of(lines))]
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("plot needs matplotlib: pip install matplotlib") from None

    known = {key for lines in runs.values() for line in lines for key, value in line.items() if value is not None}
    panels = [(key, title) for key, title in PANELS if key in known]
    num_rows = -(-len(panels) // 3)
    figure = Figure(figsize=(15, 3.6 * num_rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (key, title) in enumerate(panels, 1):
        axes = figure.add_subplot(num_rows, 3, place)
        for number, (run, lines) in enumerate(runs.items()):
            color = f"C{number % 10}"
            xs, ys = curve(lines, key, config.x)
            if key in EXACT or len(xs) < 3:
                axes.plot(xs, ys, color=color, label=str(run))
            else:
                axes.plot(xs, ys, color=color, alpha=0.2, linewidth=0.7)
                axes.plot(xs, running_mean(ys, config.smooth), color=color, label=str(run))
            xs, ys = curve(lines, key, config.x, "validation")
            axes.plot(xs, ys, "o", color=color, markersize=4)
        axes.set_title(title)
        axes.set_xlabel(config.x)
        axes.grid(alpha=0.3)
        if len(runs) > 1 and place == 1:
            axes.legend(fontsize="small")
    with whole_file(config.out) as file:
        figure.savefig(file, format=config.out.suffix[1:] or None, dpi=110)


def without_pairs(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines without next sentence prediction where a run has none: its losses are all 0, and no curve."""
    if any(line.get("nsp_loss") for line in lines):
        return lines
    return [{key: value for key, value in line.items() if not key.startswith("nsp_")} for line in lines]


def tokens_of(lines: list[dict[str, Any]]) -> list[int]:
    """Tokens consumed at each line; validation lines have those of the training line before them."""
    tokens = [0]
    for line in lines:
        tokens.append(line.get("tokens", tokens[-1]))
    return tokens[1:]


def curve(lines: list[dict[str, Any]], key: str, x: str, split: str = "train") -> tuple[list[float], list[float]]:
    """The points of one curve; where a step has no number there is none."""
    points = [(line[x], line[key]) for line in lines if line["split"] == split and line.get(key) is not None]
    return [at for at, _ in points], [value for _, value in points]


def running_mean(values: list[float], size: int) -> list[float]:
    """The mean of the last `size` values at each place, of fewer at the beginning.

    Each sum is of its own window: one that is carried on would keep the rounding of a spike for good.

    >>> running_mean([1.0, 3.0, 5.0, 7.0], 2)
    [1.0, 2.0, 4.0, 6.0]
    """
    sums = np.convolve(values, np.ones(size))[: len(values)]
    return (sums / np.minimum(np.arange(1, len(values) + 1), size)).tolist()

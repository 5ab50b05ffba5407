"""Plots the curves of runs: losses, accuracies, learning rate, speed.

    bertloom plot run
    bertloom plot run-a run-b --out compared.svg --x tokens

Reads the metrics.jsonl of each run, also during training. Lines are running means over training steps, with the single
steps drawn pale. Dots are evaluations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from bertloom.counts import counted
from bertloom.whole_files import output_file
from jobs.support.config import parse
from jobs.support.curves import EXACT, PANELS
from jobs.support.outputs import check_output
from model.runs.metrics import read_metrics
from model.runs.sinks import numbers


@dataclass(frozen=True, kw_only=True)
class PlotConfig:
    """Plot the curves of one or several runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    out: Path = Path("plot.png")
    """File to write: .png, .svg or .pdf."""
    overwrite: bool = False
    """Replace the file of --out if it exists."""
    x: Literal["step", "tokens", "seconds"] = "step"
    """Unit of the horizontal axis."""
    smooth: int = 20
    """Number of steps in a running mean."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("give at least one run folder")
        if self.out.suffix not in (".png", ".svg", ".pdf"):
            raise ValueError(f"--out {self.out}: expected a name ending in .png, .svg or .pdf")
        if self.smooth < 1:
            raise ValueError(f"smooth={self.smooth} must be at least 1")


def main(argv: Sequence[str]) -> None:
    """Run `bertloom plot`."""
    config = parse(PlotConfig, argv, prog="bertloom plot")
    plot(config)
    print(f"{config.out}: {counted(len(config.runs), 'run')}")


def plot(config: PlotConfig) -> None:
    """Draw the curves and write the file."""
    check_output(config.out, [run / "metrics.jsonl" for run in config.runs], overwrite=config.overwrite)
    runs = {}
    for run in config.runs:
        lines = read_metrics(run / "metrics.jsonl")
        if not lines:
            raise ValueError(
                f"{run} has no metrics.jsonl with a line in it: expected a run folder in which training has started"
            )
        lines = drop_untrained_nsp(lines)
        runs[run] = [line | {"tokens": tokens} for line, tokens in zip(lines, tokens_of(lines))]
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = {key for lines in runs.values() for line in lines for key in numbers(line)}
    panels = [(key, title) for key, title in PANELS if key in known]
    if not panels:
        raise ValueError(f"{config.runs[0]}/metrics.jsonl has no number that can be drawn, such as a loss")
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
    with output_file(config.out) as file:
        figure.savefig(file, format=config.out.suffix[1:] or None, dpi=110)


def drop_untrained_nsp(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines, without next sentence prediction if the run did not train it: its losses are all 0."""
    if any(line.get("nsp_loss") for line in lines):
        return lines
    return [{key: value for key, value in line.items() if not key.startswith("nsp_")} for line in lines]


def tokens_of(lines: list[dict[str, Any]]) -> list[int]:
    """Return the tokens read at each line. A validation line has those of the training line before it."""
    tokens = [0]
    for line in lines:
        tokens.append(line.get("tokens", tokens[-1]))
    return tokens[1:]


def curve(lines: list[dict[str, Any]], key: str, x: str, split: str = "train") -> tuple[list[float], list[float]]:
    """Return the points of one curve, without steps that have no number."""
    own = (numbers(line) for line in lines if line["split"] == split)
    points = [(values[x], values[key]) for values in own if x in values and key in values]
    return [at for at, _ in points], [value for _, value in points]


def running_mean(values: list[float], size: int) -> list[float]:
    """Return the mean of the last `size` values at each position, of fewer at the beginning.

    Each window has its own sum. A sum updated from step to step would keep the rounding error of a spike forever.

    >>> running_mean([1.0, 3.0, 5.0, 7.0], 2)
    [1.0, 2.0, 4.0, 6.0]
    """
    sums = np.convolve(values, np.ones(size))[: len(values)]
    means: list[float] = (sums / np.minimum(np.arange(1, len(values) + 1), size)).tolist()
    return means

"""Plots the curves of runs: losses, accuracies, learning rate, speed.

    bertloom plot run
    bertloom plot run-a run-b --out compared.svg --x tokens

Reads the metrics.jsonl of each run, also during training. Lines are running means over training steps, with the single
steps drawn pale. Dots are evaluations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from bertloom.counts import counted
from bertloom.whole_files import output_file
from jobs.support.config import parse
from jobs.support.curves import EXACT, PANELS, SOURCE_PANELS, all_sources
from jobs.support.outputs import check_output
from model.runs.metrics import read_metrics
from model.runs.sinks import numbers

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Lines = list[dict[str, Any]]
STYLES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
"""Styles of lines of the runs in a chart with a curve for each source."""
LEGEND_ROWS = 12
"""Rows of a column of a legend."""


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


@dataclass(frozen=True)
class Panel:
    """One chart."""

    key: str
    """Of metrics.jsonl."""
    title: str
    sources: Mapping[str, Any] = field(default_factory=dict)
    """Names of the sources with a curve each, and their colours; without them a run has one curve."""


def plot(config: PlotConfig) -> None:
    """Draw the curves and write the file."""
    check_output(config.out, [run / "metrics.jsonl" for run in config.runs], overwrite=config.overwrite)
    runs = {str(run): read_run(run) for run in config.runs}
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = panels_of([line for lines in runs.values() for line in lines])
    if not panels:
        raise ValueError(f"{config.runs[0]}/metrics.jsonl has no number that can be drawn, such as a loss")
    num_rows = -(-len(panels) // 3)
    figure = Figure(figsize=(15, 3.6 * num_rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, panel in enumerate(panels, 1):
        axes = figure.add_subplot(num_rows, 3, place)
        if panel.sources:
            draw_sources(axes, panel, runs, config)
        else:
            draw_runs(axes, panel, runs, config, has_legend=len(runs) > 1 and place == 1)
        axes.set_title(panel.title)
        axes.set_xlabel(config.x)
        axes.grid(alpha=0.3)
    with output_file(config.out) as file:
        figure.savefig(file, format=config.out.suffix[1:] or None, dpi=110)


def read_run(run: Path) -> Lines:
    """Return the numbers of each line of a run, by the names that `numbers` gives, with its split and the tokens read.

    Raises:
        ValueError: the run has no line.
    """
    lines = read_metrics(run / "metrics.jsonl")
    if not lines:
        raise ValueError(
            f"{run} has no metrics.jsonl with a line in it: expected a run folder in which training has started"
        )
    lines = drop_untrained_nsp(lines)
    return [numbers(line) | {"tokens": tokens, "split": line["split"]} for line, tokens in zip(lines, tokens_of(lines))]


def panels_of(lines: Lines) -> list[Panel]:
    """Return the charts of what these lines have."""
    known = dict.fromkeys(key for line in lines for key in line)
    panels = [Panel(key, title) for key, title in PANELS if key in known]
    names = all_sources(known)
    colors = {name: source_color(number, len(names)) for number, name in enumerate(names)}
    for key, title in SOURCE_PANELS:
        if sources := {name: color for name, color in colors.items() if f"{key}/{name}" in known}:
            panels.append(Panel(key, title, sources))
    return panels


def draw_runs(axes: Axes, panel: Panel, runs: Mapping[str, Lines], config: PlotConfig, *, has_legend: bool) -> None:
    """Draw a curve of each run, in its own colour."""
    handles = [
        draw_curve(axes, lines, panel.key, config, color=f"C{number % 10}", is_exact=panel.key in EXACT)
        for number, lines in enumerate(runs.values())
    ]
    if has_legend:
        add_legend(axes, list(zip(runs, handles)))


def draw_sources(axes: Axes, panel: Panel, runs: Mapping[str, Lines], config: PlotConfig) -> None:
    """Draw a curve of each source of each run. A colour is a source, a style of line is a run."""
    from matplotlib.lines import Line2D

    is_exact = panel.key in EXACT
    styles = [STYLES[number % len(STYLES)] for number in range(len(runs))]
    for lines, style in zip(runs.values(), styles):
        for source, color in panel.sources.items():
            draw_curve(axes, lines, f"{panel.key}/{source}", config, color=color, style=style, is_exact=is_exact)
    entries = [(source, Line2D([], [], color=color)) for source, color in panel.sources.items()]
    if len(runs) > 1:
        entries += [(run, Line2D([], [], color="0.3", linestyle=style)) for run, style in zip(runs, styles)]
    add_legend(axes, entries)


def draw_curve(
    axes: Axes, lines: Lines, key: str, config: PlotConfig, *, color: Any, style: str = "-", is_exact: bool
) -> Artist:
    """Draw training as a line, pale with its running mean unless it is exact, and evaluations as dots."""
    xs, ys = curve(lines, key, config.x)
    if is_exact or len(xs) < 3:
        (line,) = axes.plot(xs, ys, style, color=color)
    else:
        axes.plot(xs, ys, color=color, alpha=0.2, linewidth=0.7)
        (line,) = axes.plot(xs, running_mean(ys, config.smooth), style, color=color)
    xs, ys = curve(lines, key, config.x, "validation")
    axes.plot(xs, ys, "o", color=color, markersize=4)
    return line


def add_legend(axes: Axes, entries: Sequence[tuple[str, Artist]]) -> None:
    """Add a legend. Names may hold anything: dollar signs begin no formula, and a first underscore hides nothing."""
    handles = [handle for _, handle in entries]
    legend = axes.legend(
        handles, ["name"] * len(handles), fontsize="small", ncols=1 + (len(handles) - 1) // LEGEND_ROWS
    )
    for text, (name, _) in zip(legend.get_texts(), entries):
        text.set_text(
            "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
        )
        text.set_parse_math(False)


def source_color(number: int, count: int) -> Any:
    """Return the colour of a source, the same in all charts."""
    from matplotlib import colormaps

    return f"C{number}" if count <= 10 else colormaps["turbo"](number / (count - 1))


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


def curve(lines: Lines, key: str, x: str, split: str = "train") -> tuple[list[float], list[float]]:
    """Return the points of one curve, without steps that have no number."""
    points = [(line[x], line[key]) for line in lines if line["split"] == split and x in line and key in line]
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

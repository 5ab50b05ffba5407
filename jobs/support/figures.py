"""The figures of the report, as SVG to stand in a page: Latin letters and digits alone, so that any font will do."""

import io
import re
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "bertloom",  # the same data give the same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}
BLUE, ORANGE, GREY = "#3b6ea5", "#d9822b", "#888888"


def draw_length(length: int, found: dict[str, Any]) -> str:
    """Lengths of examples, of B by label, and where masks fall, for one max_seq_length."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 5.2))
        figure.subplots_adjust(0.07, 0.06, 0.99, 0.94, 0.16, 0.34)  # a layout found by drawing costs half the time
        lengths, labels, positions, pieces = figure.subplots(2, 2).flat
        _bars(lengths, list(found["sample"]["length_histogram"].values()), length, "tokens of an example")
        for (name, counts), color in zip(found["b_lengths"].items(), (BLUE, ORANGE)):
            labels.stairs([n / sum(counts) for n in counts], _edges(len(counts), length), color=color, label=name)
        labels.set_title("tokens of B, by label")
        if found["b_lengths"]:
            labels.legend(frameon=False)
        else:
            labels.text(0.5, 0.5, "no pairs", transform=labels.transAxes, ha="center", color=GREY)
        rates = found["mask_rate_by_position"]
        _rates(positions, rates, [(i + 0.5) * length / len(rates) for i in range(len(rates))], length / len(rates))
        positions.set_title("share of tokens masked, by position")
        rates = found["mask_rate_by_pieces"]
        _rates(pieces, rates, range(1, len(rates) + 1), 1)
        pieces.set_xticks(range(1, len(rates) + 1), [*map(str, range(1, len(rates))), f"{len(rates)} or more"])
        pieces.set_title("share of tokens masked, by the pieces of their word")
        return _svg(figure)


def draw_documents(found: dict[str, Any]) -> str:
    """Tokens and sentences of a document, over powers of two."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 2.6))
        figure.subplots_adjust(0.07, 0.11, 0.99, 0.88, 0.16)
        for axes, name, title in zip(
            figure.subplots(1, 2), ("num_tokens", "num_sentences"), ("tokens of a document", "sentences of a document")
        ):
            histogram = found[name]["histogram"]
            axes.bar(range(len(histogram)), [n for _, _, n in histogram], width=0.9, color=BLUE)
            step = -(-len(histogram) // 8)
            ticks = range(0, len(histogram), step)
            axes.set_xticks(ticks, [_short(histogram[i][0]) for i in ticks])
            axes.set_title(title)
        return _svg(figure)


def _bars(axes: Axes, counts: Sequence[int], longest: int, title: str) -> None:
    edges = _edges(len(counts), longest)
    axes.bar(edges[:-1], counts, width=edges[1], align="edge", color=BLUE, edgecolor="white", linewidth=0.5)
    axes.set_title(title)


def _rates(axes: Axes, rates: Sequence[float | None], places: Sequence[float], width: float) -> None:
    known = [(at, rate) for at, rate in zip(places, rates) if rate is not None]
    axes.bar([at for at, _ in known], [rate for _, rate in known], width=0.9 * width, color=BLUE)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")


def _edges(bins: int, longest: int) -> list[float]:
    return [i * longest / bins for i in range(bins + 1)]


def _short(number: int) -> str:
    return f"{number:,}" if number < 10_000 else f"{number // 1000:,}k"


def _svg(figure: Figure) -> str:
    """The <svg> element alone."""
    FigureCanvasSVG(figure)
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"^.*?(?=<svg)", "", sink.getvalue(), flags=re.DOTALL)

"""The charts of the report, as inline SVG. Axes and text take the page's text colour, so that charts work on light and
dark pages; the page decides how many charts share a row (`.charts` in report.html.j2)."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 400, 200
LEFT, RIGHT, TOP, BOTTOM = 50, 384, 34, 174  # the plot's edges
COLORS = ("#4a7fb8", "#d9822b")
MAX_LABELS = 8

Ticks = Sequence[tuple[float, str]]
"""Positions along the x axis, from 0 to 1, with their labels."""


def draw_length(length: int, found: dict[str, Any]) -> str:
    """Return four charts for one max_seq_length: lengths of examples, lengths of B by label, and two mask rates."""
    quarters = [(i / 4, f"{length * i / 4:,.0f}") for i in range(5)]
    pieces = found["mask_rate_by_pieces"]
    names = [*map(str, range(1, len(pieces))), f"{len(pieces)}+"]
    b_lengths = {name: [n / sum(counts) for n in counts] for name, counts in found["b_lengths"].items()}
    return _charts(
        _chart("examples by tokens", [*found["sample"]["length_histogram"].values()], quarters),
        _chart("tokens of B, by label", b_lengths or None, quarters, percent),
        _chart("tokens masked, by position", found["mask_rate_by_position"], quarters, percent),
        _chart("tokens masked, by word pieces of their word", pieces, _centres(names), percent),
    )


def draw_documents(found: dict[str, Any]) -> str:
    """Return two charts of the documents: their tokens and their sentences, over powers of two."""
    charts = []
    for name, title in ("num_tokens", "documents by tokens"), ("num_sentences", "documents by sentences"):
        histogram = found[name]["histogram"]
        ticks = _centres([f"{low:,}" if low < 10_000 else f"{low // 1000:,}k" for low, _, _ in histogram])
        charts.append(_chart(title, [n for _, _, n in histogram], ticks[:: math.ceil(len(ticks) / MAX_LABELS)]))
    return _charts(*charts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _charts(*charts: str) -> str:
    return f'<div class="charts">{"".join(charts)}</div>'


def _chart(
    title: str,
    values: Sequence[float | None] | Mapping[str, Sequence[float]] | None,
    ticks: Ticks,
    write: Callable[[float], str] = _number,
) -> str:
    """Return one chart: bars over equal ranges of x, or one outlined histogram for each name; None: no data."""
    series = values if isinstance(values, Mapping) else {"": [value or 0 for value in values or ()]}
    step, top = scale(max((value for row in series.values() for value in row), default=0))
    heights = {name: [BOTTOM - (BOTTOM - TOP) * value / top for value in row] for name, row in series.items()}
    parts = [_text(0, 14, title, weight="600")]
    for i in range(round(top / step) + 1):
        y = BOTTOM - (BOTTOM - TOP) * i * step / top
        parts.append(f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="currentColor" opacity="{0.15 if i else 0.5}"/>')
        parts.append(_text(LEFT - 6, y + 4, write(i * step), anchor="end"))
    parts += [_text(_x(place), BOTTOM + 18, label, anchor="middle") for place, label in ticks]
    if values is None:
        parts.append(_text(_x(0.5), (TOP + BOTTOM) / 2, "no pairs", anchor="middle"))
    elif isinstance(values, Mapping):
        for i, (name, row) in enumerate(heights.items()):
            color = COLORS[i % len(COLORS)]
            steps = "".join(f"V{y:.1f}H{_x((j + 1) / len(row)):.1f}" for j, y in enumerate(row))
            parts.append(f'<path d="M{LEFT} {BOTTOM}{steps}V{BOTTOM}" fill="none" stroke="{color}" stroke-width="2"/>')
            parts.append(_text(RIGHT, TOP + 14 * i, name, anchor="end", color=color, weight="600"))
    else:
        row = heights[""]
        bars = "".join(
            f"M{_x((j + 0.05) / len(row)):.1f} {BOTTOM}V{y:.1f}H{_x((j + 0.95) / len(row)):.1f}V{BOTTOM}Z"
            for j, y in enumerate(row)
        )
        parts.append(f'<path d="{bars}" fill="{COLORS[0]}"/>')
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
    return head + "".join(parts) + "</svg>"


def scale(largest: float) -> tuple[float, float]:
    """Return a round step between grid lines, and the multiple of it at or above `largest`.

    >>> scale(870), scale(3), scale(0)
    ((200.0, 1000.0), (1.0, 3.0), (1, 1))
    """
    if largest <= 0:
        return 1, 1
    power = 10.0 ** math.floor(math.log10(largest / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if largest <= 5 * power * factor)
    return step, step * math.ceil(round(largest / step, 9))


def _centres(labels: Sequence[str]) -> list[tuple[float, str]]:
    return [((i + 0.5) / len(labels), label) for i, label in enumerate(labels)]


def _x(place: float) -> float:
    return LEFT + (RIGHT - LEFT) * place


def _text(
    x: float, y: float, text: str, anchor: str = "start", color: str = "currentColor", weight: str = "400"
) -> str:
    style = f'text-anchor="{anchor}" fill="{color}" font-size="12" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(text)}</text>'

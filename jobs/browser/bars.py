"""Bar charts that a template draws (`templates/bars.html.j2`): columns over ranges of a number, and rows of names.

Every bar is a link. Columns are SVG with a table below them. Rows are a table with a bar in each row. So a screen reader can
read both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jobs.support.figures import percent, scale

WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 56, 412, 12, 164
"""Edges of the plot."""
SHORT_NAME = 12
"""Characters of a name that leaves room for its bar."""
MOST_LABELS = 5
"""Labels below columns. The table has the other names."""


@dataclass(frozen=True)
class Bar:
    """One value."""

    name: str
    value: float
    text: str
    """The value as the page shows it."""
    href: str | None = None
    """Address of the examples that it counts."""
    details: Sequence[str] = ()
    """Other cells of its row."""


class Column(NamedTuple):
    """A drawn bar, in the coordinates of the chart."""

    bar: Bar
    x: float
    width: float
    y: float
    height: float


class Tick(NamedTuple):
    """A label at an axis."""

    place: float
    text: str


@dataclass(frozen=True)
class Columns:
    """A chart of columns."""

    id: str
    title: str
    bars: Sequence[Bar]
    heads: Sequence[str]
    """Headings of its table: of the name, the value and the details."""
    top: float
    """Largest value on the axis. Charts that are compared have the same."""
    is_share: bool = False

    @property
    def columns(self) -> list[Column]:
        step = (RIGHT - LEFT) / max(1, len(self.bars))
        highest = self._scale[1]
        found = []
        for i, bar in enumerate(self.bars):
            height = (BOTTOM - TOP) * bar.value / highest
            found.append(Column(bar, LEFT + (i + 0.06) * step, 0.88 * step, BOTTOM - height, height))
        return found

    @property
    def y_ticks(self) -> list[Tick]:
        step, highest = self._scale
        values = [i * step for i in range(round(highest / step) + 1)]
        return [
            Tick(BOTTOM - (BOTTOM - TOP) * value / highest, percent(value) if self.is_share else f"{value:,.0f}")
            for value in values
        ]

    @property
    def x_ticks(self) -> list[Tick]:
        every = -(-len(self.bars) // MOST_LABELS)
        return [
            Tick(column.x + column.width / 2, column.bar.name)
            for i, column in enumerate(self.columns)
            if i % every == 0
        ]

    @property
    def _scale(self) -> tuple[float, float]:
        return scale(self.top)


@dataclass(frozen=True)
class Rows:
    """A chart of rows, for names."""

    id: str
    title: str
    bars: Sequence[Bar]
    heads: Sequence[str]
    note: str = ""

    @property
    def has_short_names(self) -> bool:
        """Whether the bars have a column of their own. The bars of long names are below the names."""
        return all(len(bar.name) <= SHORT_NAME for bar in self.bars)

    def width(self, bar: Bar) -> float:
        """Return the length of a bar: 100 for the largest value."""
        return 100 * bar.value / (max(bar.value for bar in self.bars) or 1)

"""The points of a run's curves: metrics.jsonl, read as it grows and thinned to a bounded number of points.

The lines of a split are grouped into intervals. At first an interval has one line. When there would be more than
MAX_POINTS intervals, they are merged in pairs. An interval has the mean, the lowest and the highest value of each quantity,
so no spike is lost. A million lines take as much memory as a few thousand.
"""

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bertloom.arrays import F64, I64
from bertloom.json_files import check_regular
from jobs.browser.metrics_lines import KEYS, Lines, parse_lines

XS = ("step", "tokens", "seconds")
SPLITS = ("train", "validation")
MAX_POINTS = 2048
"""Points of each split; a screen has fewer pixels. The number is even, so that intervals can be merged in pairs."""
READ_BYTES = 8 << 20
"""Bytes of metrics.jsonl that one call reads, which takes a small part of a second."""
TAIL_BYTES = 512

Latest = dict[str, dict[str, float]]
"""For each split the last number of each quantity, and the last `step`."""


class Points:
    """The lines of one split, in at most MAX_POINTS intervals."""

    def __init__(self) -> None:
        self.width = 1
        """Lines in an interval. The last one may have fewer."""
        self.num_lines = 0
        self.xs: F64 = np.zeros((len(XS), MAX_POINTS))
        """Of the last line of each interval."""
        self.counts: I64 = np.zeros((0, MAX_POINTS), dtype=np.int64)
        """Number of lines with a value of each quantity. The next three arrays are over these lines."""
        self.sums: F64 = np.zeros((0, MAX_POINTS))
        self.lows: F64 = np.zeros((0, MAX_POINTS))
        self.highs: F64 = np.zeros((0, MAX_POINTS))
        self.widen(len(KEYS))

    def __len__(self) -> int:
        return -(-self.num_lines // self.width)

    def widen(self, num_quantities: int) -> None:
        """Make room for more quantities, which no line so far has."""
        more = ((0, num_quantities - len(self.counts)), (0, 0))
        self.counts, self.sums = np.pad(self.counts, more), np.pad(self.sums, more)
        self.lows = np.pad(self.lows, more, constant_values=np.inf)
        self.highs = np.pad(self.highs, more, constant_values=-np.inf)

    def add(self, xs: F64, values: F64) -> None:
        """Add lines. xs: (3, lines). values: (quantities, lines), not finite where there is none."""
        size = xs.shape[1]
        while self.num_lines + size > MAX_POINTS * self.width:
            self._halve()
        places = (self.num_lines + np.arange(size)) // self.width
        self.num_lines += size
        self.xs[:, places] = xs  # of several lines in a place, the last one stays
        for key in np.flatnonzero(np.isfinite(values).any(axis=1)):
            known = np.isfinite(values[key])
            there, found = places[known], values[key, known]
            np.add.at(self.counts[key], there, 1)
            with np.errstate(over="ignore"):
                np.add.at(self.sums[key], there, found)
            np.minimum.at(self.lows[key], there, found)
            np.maximum.at(self.highs[key], there, found)

    def _halve(self) -> None:
        """Merge the intervals in pairs."""
        size, rest = len(self), MAX_POINTS // 2
        self.width *= 2
        self.xs[:, :rest] = self.xs[:, np.minimum(np.arange(rest) * 2 + 1, max(size - 1, 0))]
        for sums in (self.counts, self.sums):
            sums[:, :rest] = sums[:, ::2] + sums[:, 1::2]
            sums[:, rest:] = 0
        self.lows[:, :rest] = np.minimum(self.lows[:, ::2], self.lows[:, 1::2])
        self.lows[:, rest:] = np.inf
        self.highs[:, :rest] = np.maximum(self.highs[:, ::2], self.highs[:, 1::2])
        self.highs[:, rest:] = -np.inf

    def since(self, first: int, keys: Mapping[int, str]) -> dict[str, Any]:
        """Return the points from this one on, as JSON: x values, and for each quantity its counts, means and extremes.

        keys: number -> name of the quantities to return. A quantity without any value is left out.
        """
        first = min(first, max(len(self) - 1, 0))
        chosen = slice(first, len(self))
        values: dict[str, Any] = {}
        for key, name in keys.items():
            counts = self.counts[key, chosen]
            if not self.counts[key].any():
                continue
            means = self.sums[key, chosen] / np.maximum(counts, 1)
            values[name] = {"mean": _plain(np.where(counts > 0, means, np.nan))}
            if self.width > 1:
                values[name]["count"] = counts.tolist()
                values[name]["low"] = _plain(self.lows[key, chosen])
                values[name]["high"] = _plain(self.highs[key, chosen])
        xs = {x: _plain(self.xs[number, chosen], digits=15) for number, x in enumerate(XS)}
        return {"width": self.width, "lines": self.num_lines, "first": first, **xs, "values": values}


class CurvePoints:
    """The points of both splits of a metrics.jsonl, which may grow, be truncated or not exist. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._num_starts = 0
        self._begin()

    def _begin(self) -> None:
        self._num_starts += 1
        self.keys = list(KEYS)
        self.points = {split: Points() for split in SPLITS}
        self._latest: Latest = {split: {} for split in SPLITS}
        self.num_damaged = 0
        self._offset = 0
        self._tail = b""
        self._tokens = 0

    def read_on(self) -> bool:
        """Read at most READ_BYTES of what is new, and return whether there is more. A last line without end waits."""
        with self._lock:
            try:
                with open(check_regular(self.path), "rb") as file:
                    if self._was_truncated(file):
                        self._begin()
                    file.seek(self._offset)
                    content = file.read(READ_BYTES)
            except FileNotFoundError:
                if self._offset:
                    self._begin()
                return False
            end = content.rfind(b"\n") + 1
            if not end and len(content) == READ_BYTES:  # a line of this size is damaged
                self.num_damaged += 1
                end = len(content)
            else:
                self._add(content[:end])
            self._offset += end
            self._tail = (self._tail + content[:end])[-TAIL_BYTES:]
            return len(content) == READ_BYTES

    def _was_truncated(self, file: BinaryIO) -> bool:
        """Return whether the file has lost what was read last. Each line has its own time, so no other line equals it."""
        if os.fstat(file.fileno()).st_size < self._offset:
            return True
        file.seek(self._offset - len(self._tail))
        return file.read(len(self._tail)) != self._tail

    def _add(self, content: bytes) -> None:
        lines = parse_lines(content, self.keys)
        self.num_damaged += lines.num_damaged
        if not lines.steps.size:
            return
        self.keys = list(lines.columns)
        # A line without tokens, such as an evaluation, gets the tokens of the line before it.
        tokens = lines.tokens
        last = np.maximum.accumulate(np.where(np.isfinite(tokens), np.arange(len(tokens)), -1))
        tokens = np.where(last >= 0, tokens[last], self._tokens)
        self._tokens = tokens[-1]
        xs = np.stack([lines.steps.astype(float), tokens, lines.seconds])
        values = np.stack(list(lines.columns.values()))
        for split in SPLITS:
            chosen = np.flatnonzero(lines.splits == split)
            self.points[split].widen(len(self.keys))
            self.points[split].add(xs[:, chosen], values[:, chosen])
        _note_latest(self._latest, lines)

    def since(self, version: str, firsts: Mapping[str, int]) -> dict[str, Any]:
        """Return the points that a page does not have, as JSON.

        Args:
            version: the version of the page's points. If it is not the current one, all points are returned.
            firsts: for each split, the first point that the page lacks.
        """
        with self._lock:
            keys = self._drawn_keys()
            widths = ".".join(str(self.points[split].width) for split in SPLITS)
            now = f"{self._num_starts}.{widths}.{len(keys)}"
            splits = {
                split: self.points[split].since(firsts.get(split, 0) if version == now else 0, keys) for split in SPLITS
            }
            return {"version": now, "damaged": self.num_damaged, "splits": splits}

    def latest(self) -> Latest:
        """Return the last numbers of each split. While the file is not read to its end, they are read from its end."""
        is_behind = self.read_on()
        with self._lock:
            latest = {split: dict(values) for split, values in self._latest.items()}
            if is_behind:
                with suppress(FileNotFoundError), open(self.path, "rb") as file:
                    file.seek(max(self._offset, os.fstat(file.fileno()).st_size - READ_BYTES))
                    content = file.read(READ_BYTES)
                    whole = content[content.find(b"\n") + 1 : content.rfind(b"\n") + 1]
                    _note_latest(latest, parse_lines(whole, self.keys))
            has_pairs = self._has_pairs() or any(values.get("nsp_loss") for values in latest.values())
        return {
            split: {key: value for key, value in values.items() if has_pairs or not key.startswith("nsp_")}
            for split, values in latest.items()
        }

    def _drawn_keys(self) -> dict[int, str]:
        """Return number -> name of the quantities. Without next sentence prediction, its loss is always 0 and left out."""
        has_pairs = self._has_pairs()
        return {number: key for number, key in enumerate(self.keys) if has_pairs or not key.startswith("nsp_")}

    def _has_pairs(self) -> bool:
        loss = KEYS.index("nsp_loss")
        return any((points.highs[loss] > 0).any() for points in self.points.values())


def _note_latest(latest: Latest, lines: Lines) -> None:
    """Put the last numbers of these lines into `latest`."""
    for split in SPLITS:
        chosen = np.flatnonzero(lines.splits == split)
        if chosen.size:
            latest[split]["step"] = int(lines.steps[chosen[-1]])
        for key, column in lines.columns.items():
            values = column[chosen]
            known = np.flatnonzero(np.isfinite(values))
            if known.size:
                latest[split][key] = float(values[known[-1]])


def _plain(values: F64, digits: int = 6) -> list[float | None]:
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]

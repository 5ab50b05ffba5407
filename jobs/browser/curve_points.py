"""The points of a run's curves: metrics.jsonl, read as it grows and thinned to a bounded number of points.

A quantity is a number of a line, or an entry of one of its tables by source, such as `loss_by_source/web`. Which sources a
run has is found in its lines.

The lines of a split are grouped into intervals. At first an interval has one line. When there would be more than
MAX_POINTS intervals, they are merged in pairs. An interval has the mean, the lowest and the highest value of each quantity,
so no spike is lost. A million lines take as much memory as a few thousand.
"""

import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from bertloom.arrays import F64, I64
from bertloom.json_files import check_regular, loads
from jobs.support.curves import PANELS, SOURCE_PANELS
from model.loading.sources import MAX_SOURCES
from model.runs.metrics import is_table, parse_line
from model.runs.sinks import numbers

KEYS = tuple(key for key, _ in PANELS)
"""The quantities that any run may have. Those of sources come after them."""
TABLES = tuple(key for key, _ in SOURCE_PANELS)
TABLE = re.compile(rb'"(' + "|".join(TABLES).encode() + rb')"\s*:\s*(\{[^{}]*\})')
XS = ("step", "tokens", "seconds")
SPLITS = ("train", "validation")
MAX_POINTS = 2048
"""Points of each split; a screen has fewer pixels. The number is even, so that intervals can be merged in pairs."""
READ_BYTES = 8 << 20
"""Bytes of metrics.jsonl that one call reads, which takes a small part of a second."""
TAIL_BYTES = 512
SCHEMA = pa.schema(
    [("step", pa.int64()), ("split", pa.string()), ("tokens", pa.int64()), ("seconds", pa.float64())]
    + [(key, pa.float64()) for key in KEYS]
)

Latest = dict[str, dict[str, float]]
"""For each split the last number of each quantity, and the last `step`."""
OfSources = list[dict[str, float]]
"""The numbers of sources of each line, by quantity; an empty list if no line has one."""


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
        table, of_sources, num_damaged = parse_lines(content)
        self.num_damaged += num_damaged
        if not table.num_rows:
            return
        self.keys = admitted(self.keys, of_sources)
        # A line without tokens, such as an evaluation, gets the tokens of the line before it.
        tokens = table["tokens"].to_numpy()
        last = np.maximum.accumulate(np.where(np.isfinite(tokens), np.arange(len(tokens)), -1))
        tokens = np.where(last >= 0, tokens[last], self._tokens)
        self._tokens = tokens[-1]
        xs = np.stack([table["step"].to_numpy().astype(float), tokens, table["seconds"].to_numpy()])
        values = np.stack([column_of(key, table, of_sources) for key in self.keys])
        splits = np.array(table["split"].to_pylist())
        for split in SPLITS:
            chosen = np.flatnonzero(splits == split)
            self.points[split].widen(len(self.keys))
            self.points[split].add(xs[:, chosen], values[:, chosen])
        _note_latest(self._latest, self.keys, table, of_sources)

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
                    table, of_sources, _ = parse_lines(whole)
                    _note_latest(latest, admitted(self.keys, of_sources), table, of_sources)
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


def admitted(keys: Sequence[str], of_sources: OfSources) -> list[str]:
    """Return these quantities and those of the lines, of each table at most MAX_SOURCES."""
    found = dict.fromkeys(keys)
    room = {table: MAX_SOURCES - sum(key.startswith(f"{table}/") for key in keys) for table in TABLES}
    for line in of_sources:
        for key in line:
            table, _, _ = key.partition("/")
            if key not in found and room[table]:
                room[table] -= 1
                found[key] = None
    return list(found)


def sources_of(columns: Iterable[Mapping[str, float]], table: str) -> list[str]:
    """Return the sources with an entry in a table, in the order of these columns of `CurvePoints.latest`.

    >>> sources_of([{"loss": 1.5, "loss_by_source/web": 2.0}, {"loss_by_source/books": 1.0}], "loss_by_source")
    ['web', 'books']
    """
    keys = dict.fromkeys(key for column in columns for key in column if key.startswith(f"{table}/"))
    return [key.removeprefix(f"{table}/") for key in keys]


def column_of(key: str, table: pa.Table, of_sources: OfSources) -> F64:
    """Return the numbers of a quantity in each line, NaN where there is none."""
    if key in KEYS:
        column: F64 = table[key].to_numpy()
        return column
    return np.array([line.get(key, np.nan) for line in of_sources] or [np.nan] * table.num_rows)


def parse_lines(content: bytes) -> tuple[pa.Table, OfSources, int]:
    """Return the columns of whole lines, NaN where a line has no number; the numbers of sources; and the damaged lines."""
    table, num_damaged = SCHEMA.empty_table(), 0
    of_sources: OfSources = []
    if content:
        try:
            table, of_sources = _parse_fast(content)
        except (pa.ArrowException, ValueError):  # one by one, to leave out the damaged ones
            lines = [parse_line(text) for text in content.split(b"\n")[:-1]]
            num_damaged = lines.count(None)
            whole = [line for line in lines if line]
            table = pa.Table.from_pylist([_plain_line(line) for line in whole], SCHEMA)
            of_sources = [_numbers_of_sources(line) for line in whole]
    columns = [
        table[name] if name in ("step", "split") else table[name].cast(pa.float64()).fill_null(np.nan)
        for name in SCHEMA.names
    ]
    return pa.table(columns, SCHEMA.names), of_sources, num_damaged


def _parse_fast(content: bytes) -> tuple[pa.Table, OfSources]:
    """Return the columns of lines, and the numbers of sources; ValueError or an error of Arrow if one is damaged."""
    block = pj.ReadOptions(use_threads=False, block_size=len(content) + 1)
    options = pj.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="ignore")
    table = pj.read_json(pa.BufferReader(content), block, options).select(SCHEMA.names)
    lowest = pc.min(table["step"]).as_py()
    if table["step"].null_count or table["split"].null_count or lowest is None or lowest < 0:
        raise ValueError("a line has no step or split")
    if b'_by_source"' not in content:
        return table, []
    of_sources = [_find_tables(text) for text in content.split(b"\n")[:-1]]
    if len(of_sources) != table.num_rows:
        raise ValueError("a line is empty")
    return table, of_sources


def _find_tables(text: bytes) -> dict[str, float]:
    """Return the numbers of sources in a line that is JSON; ValueError if they must be read by `parse_line`."""
    found = {key.decode(): loads(table) for key, table in TABLE.findall(text)}
    if text.count(b'_by_source"') != len(found) or not all(map(is_table, found.values())):
        raise ValueError("a table has another form, as with braces in a name")
    return _numbers_of_sources(found)


def _numbers_of_sources(line: Mapping[str, Any]) -> dict[str, float]:
    tables = {key: line[key] for key in TABLES if isinstance(line.get(key), dict)}
    return {name: float(value) for name, value in numbers(tables).items()}


def _plain_line(line: dict[str, Any]) -> dict[str, Any]:
    values = {key: float(value) for key, value in numbers(line).items() if key in (*KEYS, "seconds")}
    return values | {key: line[key] for key in ("step", "split", "tokens") if key in line}


def _note_latest(latest: Latest, keys: Iterable[str], table: pa.Table, of_sources: OfSources) -> None:
    """Put the last numbers of these lines into `latest`."""
    splits = np.array(table["split"].to_pylist())
    for split in SPLITS:
        chosen = np.flatnonzero(splits == split)
        if chosen.size:
            latest[split]["step"] = table["step"][int(chosen[-1])].as_py()
        for key in keys:
            values = column_of(key, table, of_sources)[chosen]
            known = np.flatnonzero(np.isfinite(values))
            if known.size:
                latest[split][key] = float(values[known[-1]])


def _plain(values: F64, digits: int = 6) -> list[float | None]:
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]

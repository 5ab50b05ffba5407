"""Lines of metrics.jsonl as columns of numbers: fast for whole lines, one by one where some are damaged.

A quantity is a number of a line, or an entry of one of its tables by source, such as `loss_by_source/web`. Which sources a
run has is found in its lines.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from bertloom.arrays import F64, I64
from bertloom.json_files import loads
from jobs.support.curves import PANELS, SOURCE_PANELS
from model.loading.sources import MAX_SOURCES
from model.runs.metrics import is_table, parse_line
from model.runs.sinks import numbers

KEYS = tuple(key for key, _ in PANELS)
"""The quantities that any run may have. The quantities of sources come after them."""
TABLES = tuple(key for key, _ in SOURCE_PANELS)
SCHEMA = pa.schema(
    [("step", pa.int64()), ("split", pa.string()), ("tokens", pa.int64()), ("seconds", pa.float64())]
    + [(key, pa.float64()) for key in KEYS]
)
MARK = b'_by_source"'
"""The end of the name of each table."""
TABLE = re.compile(rb'"(' + "|".join(TABLES).encode() + rb')"\s*:\s*(\{[^{}]*\})')


class Lines(NamedTuple):
    """Lines that are not damaged, in their order."""

    steps: I64
    splits: np.ndarray
    """`train` or `validation`, or what a file of other origin has."""
    tokens: F64
    """The columns of numbers are NaN where a line has none."""
    seconds: F64
    columns: dict[str, F64]
    """The quantities, in the order of `keys`."""
    num_damaged: int
    """Number of lines that are left out."""


def parse_lines(content: bytes, keys: Sequence[str] = KEYS) -> Lines:
    """Return whole lines, each with its line end.

    Args:
        keys: the quantities known so far, `KEYS` first. The result has also those that appear in these lines, but of
            each table at most 32.
    """
    try:
        table, columns = _parse_fast(content, keys)
        num_damaged = 0
    except (pa.ArrowException, ValueError):  # one by one, to leave out the damaged ones
        found = [parse_line(text) for text in content.split(b"\n")[:-1]]
        lines = [_plain_line(line) for line in found if line]
        num_damaged = found.count(None)
        table = pa.Table.from_pylist([{name: line.get(name) for name in SCHEMA.names} for line in lines], SCHEMA)
        columns = {
            key: np.array([line.get(key, np.nan) for line in lines], dtype=np.float64)
            for key in _with_sources(keys, lines)[len(KEYS) :]
        }
    return Lines(
        steps=table["step"].to_numpy(),
        splits=np.array(table["split"].to_pylist(), dtype=object),
        tokens=_floats(table["tokens"]),
        seconds=_floats(table["seconds"]),
        columns={key: _floats(table[key]) for key in KEYS} | columns,
        num_damaged=num_damaged,
    )


def _parse_fast(content: bytes, keys: Sequence[str]) -> tuple[pa.Table, dict[str, F64]]:
    """Return (columns of lines, columns of sources); ValueError or an error of Arrow if a line may be damaged."""
    schema = SCHEMA
    if MARK in content:
        if not _has_only(content, keys):
            keys = _with_sources(keys, map(_find_sources, content.split(b"\n")[:-1]))
        for table in TABLES:
            names = sources_in(keys, table)
            schema = schema.append(pa.field(table, pa.struct([(name, pa.float64()) for name in names])))
    block = pj.ReadOptions(use_threads=False, block_size=len(content) + 1)
    options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    found = pj.read_json(pa.BufferReader(content), block, options)
    lowest = pc.min(found["step"]).as_py()
    if found["step"].null_count or found["split"].null_count or lowest is None or lowest < 0:
        raise ValueError("a line has no step or split")
    columns = {}
    for key in keys[len(KEYS) :]:
        table, _, source = key.partition("/")
        is_there = table in schema.names
        columns[key] = _floats(pc.struct_field(found[table], [source])) if is_there else np.full(len(found), np.nan)
    return found, columns


def _floats(column: pa.ChunkedArray) -> F64:
    """Return numbers, NaN where there is none."""
    values: F64 = column.cast(pa.float64()).fill_null(np.nan).to_numpy()
    return values


def _has_only(content: bytes, keys: Sequence[str]) -> bool:
    """Return whether each table in these lines has only entries of these quantities."""
    patterns = []
    for table in TABLES:
        names = b"|".join(re.escape(json.dumps(name).encode()) for name in sources_in(keys, table))
        entry = rb"(?:%s): [^,{}\"]+" % names if names else rb"(?!)"
        patterns.append(rb'"%s": \{(?:%s(?:, %s)*)?\}' % (table.encode(), entry, entry))
    return len(re.findall(b"|".join(patterns), content)) == content.count(MARK)


def _find_sources(text: bytes) -> dict[str, float]:
    """Return the numbers of sources in a line that is JSON; ValueError if they must be read by `parse_line`."""
    found = {key.decode(): loads(table) for key, table in TABLE.findall(text)}
    if text.count(MARK) != len(found) or not all(map(is_table, found.values())):
        raise ValueError("a table has another form, as with braces in a name")
    return numbers(found)


def _plain_line(line: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a line that are drawn, by quantity."""
    tables = tuple(f"{table}/" for table in TABLES)
    values = {
        key: float(value) for key, value in numbers(line).items() if key in (*KEYS, "seconds") or key.startswith(tables)
    }
    return values | {key: line[key] for key in ("step", "split", "tokens") if key in line}


def _with_sources(keys: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return these quantities and the ones that the lines have of sources, at most MAX_SOURCES of each table."""
    found = dict.fromkeys(keys)
    room = {table: MAX_SOURCES - len(sources_in(keys, table)) for table in TABLES}
    for line in lines:
        for key in line:
            table, slash, _ = key.partition("/")
            if slash and key not in found and room[table]:
                room[table] -= 1
                found[key] = None
    return list(found)


def sources_in(keys: Iterable[str], table: str) -> list[str]:
    """Return the sources with an entry in a table, in the order of these quantities.

    >>> sources_in(["loss", "loss_by_source/web", "loss_by_source/books", "tokens_by_source/web"], "loss_by_source")
    ['web', 'books']
    """
    return [key.removeprefix(f"{table}/") for key in dict.fromkeys(keys) if key.startswith(f"{table}/")]

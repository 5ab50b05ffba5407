"""metrics.jsonl: one JSON object per line, in order of time.

`{"step": 12, "split": "train", …}` is about the batch of the 12th update, `{"step": 12, "split": "validation", …}` about
the model after 12 updates. `stream` in a training line is the stream digest after that update
(`model/loading/stream.py`). A resumed run writes the same lines as an uninterrupted one, except for TIMING_KEYS.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from bertloom.json_files import check_regular, decode_json
from bertloom.whole_files import named_errors, write_text
from model.runs.sinks import Sink

Value = float | str | Mapping[str, float]
"""A value of a line. A table has a number for each source of a mixture."""
TIMING_KEYS = ("seconds", "tokens_per_second", "data_wait_share", "mfu")
"""Keys that differ from run to run: `seconds` of wall clock, real tokens per second, the share of a step's time spent
waiting for data, and the share of the device's peak FLOP/s (`model/devices.py`)."""
TABLES = ("loss_by_source", "tokens_by_source")
"""Keys whose value is a table."""
MAX_ENTRIES = 1024
"""Largest number of entries in a table of a line: a mixture has 32 sources at most, and a run has few mixtures."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return all lines, except a last one that a kill left incomplete. ValueError if another line is damaged."""
    return undamaged(path, read_lines(path))


def read_lines(path: Path) -> list[dict[str, Any] | None]:
    """Return all complete lines, with None for damaged ones: a power failure may leave zero bytes."""
    content = check_regular(path).read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [parse_line(text) for text in content]


def missing_after(lines: Sequence[dict[str, Any] | None], step: int, log_every: int) -> int | None:
    """Return the first step whose line is missing at the end of the lines up to a step; None if none is missing.

    log_every: number of steps between two lines. It may have been larger before.
    """
    steps = sorted({0, *(line["step"] for line in lines if line and line["step"] <= step)})
    most = max(log_every, *(after - before for before, after in pairwise(steps)), 1)
    return steps[-1] + 1 if step - steps[-1] >= most else None


def parse_line(text: bytes) -> dict[str, Any] | None:
    """Return a line: its step and split, and numbers, strings, nulls and TABLES by name; None if it is damaged."""
    try:
        line = decode_json(text, "")
    except ValueError:
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int or not isinstance(line.get("split"), str):
        return None
    is_whole = line["step"] >= 0 and all(
        is_table(value) if name in TABLES else is_plain(value) for name, value in line.items()
    )
    is_counted = all(type(line.get(name, 0)) is int for name in ("tokens", "num_examples"))
    return line if is_whole and is_counted and isinstance(line.get("seconds", 0.0), (int, float)) else None


def is_plain(value: object) -> bool:
    """Return whether a value of a line is one that `MetricsWriter` writes: a text, null, or a finite number below 2^63."""
    if isinstance(value, int):
        return abs(value) < 2**63
    return value is None or isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


def is_table(value: object) -> bool:
    """Return whether a value of a line is a table of `MetricsWriter`: a number or null for each source of a mixture."""
    return (
        isinstance(value, dict)
        and len(value) <= MAX_ENTRIES
        and all(is_plain(number) and not isinstance(number, str) for number in value.values())
    )


def undamaged(path: Path, lines: Sequence[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Return the lines; ValueError if one is damaged."""
    for number, line in enumerate(lines, 1):
        if line is None:
            raise ValueError(
                f"{path}: line {number} is damaged: expected a JSON object with step and split; remove the line"
            )
    return [line for line in lines if line is not None]


def finite(value: Value) -> Any:
    """Return the value with null in place of an infinity or NaN."""
    if isinstance(value, Mapping):
        return {name: finite(number) for name, number in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsWriter:
    """Appends to metrics.jsonl; readers see each line immediately.

    A new writer first removes the lines of steps that will be repeated. Those lines may be damaged. The lines before
    them were on disk when the checkpoint was written (`sync`).
    """

    def __init__(self, path: Path, step: int, sinks: Sequence[Sink] = ()) -> None:
        """
        Args:
            step: number of updates done; later lines are removed.
            sinks: where lines go besides the file.

        Raises:
            ValueError: a line to keep is damaged.
        """
        self._sinks = sinks
        lines = read_lines(path)
        num_known = max((number for number, line in enumerate(lines, 1) if line and line["step"] <= step), default=0)
        kept = [line for line in undamaged(path, lines[:num_known]) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._evaluated = {line["step"] for line in kept if line["split"] == "validation"}
        self._file = open(path, "a")  # noqa: SIM115  (open as long as the writer is)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # every line has been flushed; after a full disk, that error is already under way
            self._file.close()
        for sink in self._sinks:
            sink.close()

    def write(self, step: int, split: str, **values: Value) -> None:
        """Append one line, without empty tables. JSON has no infinity or NaN: they become null."""
        plain = {name: finite(value) for name, value in values.items() if value != {}}
        with named_errors(self._file.name):
            self._file.write(json.dumps({"step": step, "split": split, **plain}) + "\n")
            self._file.flush()
        for sink in self._sinks:
            sink.write(step, split, values)

    def is_evaluated(self, step: int) -> bool:
        """Return whether the file had a validation line for this step when it was opened."""
        return step in self._evaluated

    def sync(self) -> None:
        """Wait until all lines are on disk. A checkpoint that relies on them is written afterwards."""
        with named_errors(self._file.name):
            os.fsync(self._file.fileno())

"""metrics.jsonl: one JSON object a line, in the order of time.

`{"step": 12, "split": "train", …}` is the 12th update's batch; `{"step": 12, "split": "validation", …}` is the model
after 12 updates. `stream` in a training line is the stream digest behind that update (`model/loading/stream.py`). A run that
was stopped and resumed writes the same lines as one that was not, but for the keys in TIMING_KEYS.
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from bertloom.whole_files import whole_file
from model.runs.sinks import Sink

TIMING_KEYS = ("seconds", "tokens_per_second", "data_wait_share", "mfu")
"""What differs from run to run: `seconds` of wall clock, `tokens_per_second` of real tokens, the share of a step's time
in which it waited for data, and the share of the device's peak that it reached (`model/devices.py`)."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines; a last line that a kill cut short is left out. ValueError if another one is damaged."""
    return undamaged(path, read_lines(path))


def read_lines(path: Path) -> list[dict[str, Any] | None]:
    """All whole lines, None for one that is damaged: a loss of power may leave zeros in their place."""
    content = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    lines: list[dict[str, Any] | None] = []
    for text in content:
        try:
            line = json.loads(text.decode("utf-8"))
        except ValueError:  # UnicodeDecodeError and JSONDecodeError both are
            line = None
        is_whole = isinstance(line, dict) and isinstance(line.get("step"), int) and "split" in line
        lines.append(line if is_whole else None)
    return lines


def undamaged(path: Path, lines: Sequence[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """The lines of a file, from its first on; ValueError if one is damaged."""
    for number, line in enumerate(lines, 1):
        if line is None:
            raise ValueError(f"{path}: line {number} is damaged: expected a JSON object with step and split; remove it")
    return [line for line in lines if line is not None]


class MetricsWriter:
    """Appends to metrics.jsonl, each line at once visible to readers.

    A new writer first cuts the file back to what was known at `step`, so that nothing is told twice. Lines behind that
    may be damaged; those before it were on disk when the checkpoint was written (`sync`).
    """

    def __init__(self, path: Path, step: int, is_first: bool = True, sinks: Sequence[Sink] = ()) -> None:
        """
        Args:
            step: updates done.
            is_first: of several ranks only the first one writes; for the others this does nothing.
            sinks: what else takes the lines.

        Raises:
            ValueError: a line that is to be kept is damaged.
        """
        self._sinks = sinks
        self._file: TextIO | None = None
        self._evaluated: set[int] = set()
        if not is_first:
            return
        lines = read_lines(path)
        num_known = max((number for number, line in enumerate(lines, 1) if line and line["step"] <= step), default=0)
        kept = [line for line in undamaged(path, lines[:num_known]) if line["step"] <= step]
        with whole_file(path, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
        self._evaluated = {line["step"] for line in kept if line["split"] == "validation"}
        self._file = open(path, "a")  # noqa: SIM115  (open as long as the writer is)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()
        for sink in self._sinks:
            sink.close()

    def write(self, step: int, split: str, **values: float | str) -> None:
        """Appends one line; what is infinite or no number becomes null, which is JSON."""
        if self._file:
            plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
            self._file.write(json.dumps({"step": step, "split": split, **plain}) + "\n")
            self._file.flush()
            for sink in self._sinks:
                sink.write(step, split, values)

    def is_evaluated(self, step: int) -> bool:
        """Whether there was a validation line for this step when the file was opened."""
        return step in self._evaluated

    def sync(self) -> None:
        """Waits until all lines are on disk; before a checkpoint that relies on them."""
        if self._file:
            os.fsync(self._file.fileno())

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

from model.runs.sinks import Sink

TIMING_KEYS = ("seconds", "tokens_per_second", "data_wait_share", "mfu")
"""What differs from run to run: `seconds` of wall clock, `tokens_per_second` of real tokens, the share of a step's time
in which it waited for data, and the share of the device's peak that it reached (`model/flops.py`)."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


class MetricsWriter:
    """Appends to metrics.jsonl, each line at once visible to readers.

    A new writer first cuts the file back to what was known at `step`, so that nothing is told twice.
    """

    def __init__(self, path: Path, step: int, is_first: bool = True, sinks: Sequence[Sink] = ()) -> None:
        """
        Args:
            step: updates done.
            is_first: of several ranks only the first one writes; for the others this does nothing.
            sinks: what else takes the lines.
        """
        self._sinks = sinks
        self._file: TextIO | None = None
        self._evaluated: set[int] = set()
        if not is_first:
            return
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with open(temporary, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
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

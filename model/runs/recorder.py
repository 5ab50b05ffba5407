"""What a run writes and prints while it trains. Rank 0 has a `Recorder`; the other ranks have a `NullRecorder`."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bertloom.counts import counted
from bertloom.whole_files import sweep_temporary, write_text
from model.distributed import Ranks
from model.runs.bad_steps import BAD_STEPS, Action, BadExamples, append_bad_step, cut_back
from model.runs.checkpoint import check_names, latest_checkpoint, take_part_in_snapshot
from model.runs.checkpoint_writer import CheckpointWriter, check_space
from model.runs.lock import run_lock
from model.runs.metrics import MetricsWriter, Value, missing_after, read_lines, read_metrics
from model.runs.progress import Progress, Unit
from model.runs.progress_bar import ProgressBar
from model.runs.sinks import SinkName, open_sinks
from model.runs.state import CheckpointState, State
from model.step import StepResult

logger = logging.getLogger("bertloom")


@dataclass(frozen=True, kw_only=True)
class RecorderOptions:
    """How a run is recorded."""

    total: float
    """Progress at the end of the schedule."""
    unit: Unit
    """Unit of the total."""
    keep_checkpoints: int = 1
    """Number of checkpoints to keep."""
    keep_every: int | None = None
    """Checkpoints whose step is a multiple of this are kept, too."""
    log_every: int = 1
    """Number of steps between two lines of metrics."""
    sinks: Sequence[SinkName] = ()
    """Where metrics go besides metrics.jsonl."""
    configuration: Mapping[str, Any]
    """The run's configuration, for the sinks."""


class NullRecorder:
    """Writes and prints nothing."""

    def __init__(self, out: Path) -> None:
        self.out = out

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run folder, so that no other process trains there."""
        yield

    def find_checkpoint(self, kind: type[State]) -> tuple[Path, State] | None:
        """Remove what killed writers left, and return the latest intact checkpoint and its state, if there is one."""
        return None

    def check_space(self, model: nn.Module, optimizer: torch.optim.Optimizer, number: int, num_models: int = 0) -> None:
        """Raise ValueError unless the disk has room for this number of checkpoints at a time, and of models."""

    def check_folder(self) -> None:
        """Raise ValueError if the run folder was moved, removed or replaced since it was opened."""

    def print(self, text: str) -> None:
        """Print a line before or after training."""

    def warn(self, text: str) -> None:
        """Log a warning."""

    def write_text(self, name: str, text: str) -> None:
        """Write a small file of the run folder."""

    @contextmanager
    def open(self, progress: Progress, options: RecorderOptions) -> Iterator[None]:
        """Open metrics.jsonl, the sinks, the checkpoint writer and the progress bar for a run at this progress."""
        yield

    def is_evaluated(self, step: int) -> bool:
        """Return whether the model of this step was evaluated before the run was stopped."""
        return False

    def check_metrics(self, run: Path, step: int, log_every: int = 1) -> None:
        """Warn if a run of this many steps has no metrics.jsonl, or one that ends too early."""

    def copy_metrics(self, run: Path, step: int) -> None:
        """Begin metrics.jsonl with the lines of another run up to a step."""

    def note(self, text: str) -> None:
        """Print a line above the progress bar."""

    def write_metrics(self, step: int, split: str, **values: Value) -> None:
        """Append a line to metrics.jsonl."""

    def record_bad_step(self, step: int, result: StepResult, action: Action, examples: BadExamples) -> None:
        """Append a line to bad_steps.jsonl."""

    def show(self, progress: Progress, status: str) -> None:
        """Move the progress bar."""

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: CheckpointState) -> None:
        """Start to write a checkpoint. Lines of metrics.jsonl that belong to it reach the disk first."""
        take_part_in_snapshot(model, optimizer)

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk."""


class Recorder(NullRecorder):
    """Writes the run folder, the sinks and the terminal."""

    _metrics: MetricsWriter
    _writer: CheckpointWriter
    _bar: ProgressBar
    _options: RecorderOptions
    _folder: os.stat_result
    """The run folder when it was opened."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        with run_lock(self.out):
            yield

    def find_checkpoint(self, kind: type[State]) -> tuple[Path, State] | None:
        found = latest_checkpoint(self.out / "checkpoints", kind)
        check_names(self.out / "checkpoints", found[1].step if found else 0)
        sweep_temporary(self.out)
        return found

    def check_space(self, model: nn.Module, optimizer: torch.optim.Optimizer, number: int, num_models: int = 0) -> None:
        check_space(self.out / "checkpoints", model, optimizer, number, num_models)

    def check_folder(self) -> None:
        try:
            found = os.stat(self.out)
        except FileNotFoundError:
            found = None
        if found is None or not os.path.samestat(found, self._folder):
            raise ValueError(
                f"{self.out} was moved or removed during training: move it back and start the same command again, or give "
                f"its new place as --out"
            )

    def print(self, text: str) -> None:
        print(text, flush=True)  # at once, also into a file

    def warn(self, text: str) -> None:
        logger.warning("%s", text)

    def write_text(self, name: str, text: str) -> None:
        write_text(self.out / name, text)

    @contextmanager
    def open(self, progress: Progress, options: RecorderOptions) -> Iterator[None]:
        self._options, self._folder = options, os.stat(self.out)
        checkpoints = self.out / "checkpoints"
        self.check_metrics(self.out, progress.step, options.log_every)
        cut_back(self.out / BAD_STEPS, progress.step)
        sinks = open_sinks(options.sinks, self.out, progress.step, options.configuration)
        with ExitStack() as stack:
            self._metrics = stack.enter_context(MetricsWriter(self.out / "metrics.jsonl", progress.step, sinks))
            self._writer = stack.enter_context(
                CheckpointWriter(checkpoints, options.keep_checkpoints, options.keep_every)
            )
            self._bar = stack.enter_context(ProgressBar(options.total, progress.count(options.unit), options.unit))
            yield

    def is_evaluated(self, step: int) -> bool:
        return self._metrics.is_evaluated(step)

    def copy_metrics(self, run: Path, step: int) -> None:
        self.check_metrics(run, step)
        lines = [line for line in read_metrics(run / "metrics.jsonl") if line["step"] <= step]
        write_text(self.out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    def check_metrics(self, run: Path, step: int, log_every: int = 1) -> None:
        path = run / "metrics.jsonl"
        if step and not path.exists():
            self.warn(f"{path} is missing: the metrics of the first {counted(step, 'step')} are lost")
        elif last := missing_after(read_lines(path), step, log_every):
            self.warn(f"{path} ends at step {last - 1:,}: the metrics of {counted(step - last + 1, 'step')} are lost")

    def note(self, text: str) -> None:
        self._bar.write(text, file=sys.stderr)

    def write_metrics(self, step: int, split: str, **values: Value) -> None:
        self._metrics.write(step, split, **values)

    def record_bad_step(self, step: int, result: StepResult, action: Action, examples: BadExamples) -> None:
        append_bad_step(self.out / BAD_STEPS, step, result, action, examples)

    def show(self, progress: Progress, status: str) -> None:
        self._writer.check()  # a full disk ends training at once, and not at the next checkpoint
        self.check_folder()
        self._bar.set_postfix_str(status, refresh=False)
        self._bar.update(min(progress.count(self._options.unit), self._options.total) - self._bar.n)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: CheckpointState) -> None:
        self._writer.save(model, optimizer, state, before=self._before_checkpoint)

    def wait(self) -> None:
        self._writer.wait()

    def _before_checkpoint(self) -> None:
        self.check_folder()  # or the checkpoint would make another folder of this name
        self._metrics.sync()


def make_recorder(out: Path, ranks: Ranks) -> NullRecorder:
    """Return the recorder of this rank."""
    return Recorder(out) if ranks.is_first else NullRecorder(out)

"""The training loop that pretraining and fine-tuning share: evaluate, save, step, log."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from signal import Signals
from typing import Any, Generic, TypeVar

from model.distributed import Ranks
from model.runs.bad_steps import BadStepPolicy
from model.runs.heap import Heap, keep_blocks
from model.runs.metrics import Value
from model.runs.progress import Progress
from model.runs.recorder import NullRecorder
from model.step import StepResult

Batch = TypeVar("Batch")
Result = TypeVar("Result", bound=StepResult)


class Training(ABC, Generic[Batch, Result]):
    """A kind of training: what `train` asks for, in the order in which it asks."""

    ranks: Ranks
    recorder: NullRecorder
    bad_steps: BadStepPolicy
    log_every: int = 1
    """Steps between lines in metrics.jsonl."""

    @abstractmethod
    def is_over(self, progress: Progress) -> bool:
        """Return whether no step is left."""

    @abstractmethod
    def is_evaluation_due(self, progress: Progress, *, is_stopping: bool) -> bool:
        """Return whether to evaluate before the next step; `is_stopping` after a signal."""

    @abstractmethod
    def evaluate(self, progress: Progress) -> dict[str, float]:
        """Return the metrics of the model on held-out data."""

    @abstractmethod
    def describe_evaluation(self, step: int, values: dict[str, float]) -> str:
        """Return the metrics of an evaluation in one line."""

    @abstractmethod
    def is_save_due(self, step: int, *, is_evaluated: bool) -> bool:
        """Return whether to save a checkpoint after this step, which has just been evaluated or not."""

    @abstractmethod
    def save(self, progress: Progress) -> None:
        """Save a checkpoint."""

    @abstractmethod
    def next_batch(self, progress: Progress) -> Batch:
        """Return the global batch of the next step, or this rank's share of it."""

    @abstractmethod
    def learning_rate(self, progress: Progress, batch: Batch) -> float:
        """Return the learning rate of the next step."""

    @abstractmethod
    def train_step(
        self, batch: Batch, *, step: int, learning_rate: float, highest_loss: float, loss_scale: float | None
    ) -> Result:
        """Update the weights once, unless loss or gradient are not finite or the loss is above the highest."""

    def rows_sum(self, batch: Batch) -> int:
        """Return this rank's sum of hashes for the digest of the stream, if there is one; see `model/loading/stream.py`."""
        return 0

    @abstractmethod
    def advance(self, progress: Progress, batch: Batch, loss: float | None, seconds: float, rows_sum: int) -> Progress:
        """Return the progress after a step; `loss` is None if its update was skipped.

        Args:
            rows_sum: the sum over all ranks.
        """

    @abstractmethod
    def record_bad_step(self, progress: Progress, result: Result, learning_rate: float) -> tuple[str, str]:
        """Record a step without an update. Return a description of it and advice."""

    @abstractmethod
    def measure_step(
        self, result: Result, batch: Batch, progress: Progress, seconds: float, wait_seconds: float
    ) -> Mapping[str, Value]:
        """Return what metrics.jsonl holds about a step besides its result, such as its speed.

        Args:
            progress: the progress after the step.
            seconds: duration of the step.
            wait_seconds: the part of it spent waiting for the batch.
        """

    @abstractmethod
    def status(self) -> str:
        """Return the text after the progress bar."""


def train(
    training: Training[Any, Any], progress: Progress, signals: Sequence[Signals], begun: float | None = None
) -> tuple[Progress, int]:
    """Train until the end or a signal.

    Args:
        progress: where to start.
        begun: the `time.monotonic()` from which the time of this process counts; now if None.
        signals: the signals received so far, see `stop_signals`; the current step is finished and saved.

    Returns:
        The progress at the end, and the number of the signal that stopped training; 0 if no step is left.
    """
    ranks, recorder = training.ranks, training.recorder
    start = (time.monotonic() if begun is None else begun) - progress.seconds
    saved_step = progress.step
    stop_signal = 0
    keep_blocks()
    heap = Heap()

    while True:
        # Evaluate.
        is_evaluated = training.is_evaluation_due(progress, is_stopping=stop_signal > 0)
        if is_evaluated:
            values = training.evaluate(progress)
            recorder.write_metrics(progress.step, "validation", **values, seconds=time.monotonic() - start)
            recorder.note(training.describe_evaluation(progress.step, values))

        # Save.
        is_over = training.is_over(progress)
        is_last = is_over or stop_signal > 0
        is_due = is_last or training.is_save_due(progress.step, is_evaluated=is_evaluated)
        # The end is always saved. The run may end by this evaluation, which the last checkpoint does not know.
        if is_over or (is_due and progress.step != saved_step):
            training.save(progress)
            saved_step = progress.step
        if is_last:
            return progress, 0 if is_over else stop_signal

        # Step.
        step_start = time.monotonic()
        batch = training.next_batch(progress)
        wait_seconds = time.monotonic() - step_start
        learning_rate = training.learning_rate(progress, batch)
        highest_loss = training.bad_steps.highest_loss(progress.loss_mean)
        result = training.train_step(
            batch,
            step=progress.step,
            learning_rate=learning_rate,
            highest_loss=highest_loss,
            loss_scale=progress.loss_scale,
        )
        is_skipped = not result.is_finite or result.loss > highest_loss
        if is_skipped and not result.is_overflow(progress.loss_scale):
            handle_bad_step(training, progress, result, learning_rate, is_saved=progress.step == saved_step)
        # All ranks stop after the same step, and use the clock of rank 0.
        num_signals, seconds, rows_sum = ranks.sum_step(
            len(signals), time.monotonic() - start, training.rows_sum(batch)
        )
        stop_signal = max(signals, default=Signals.SIGTERM) if num_signals else 0
        progress = training.advance(progress, batch, None if is_skipped else result.loss, seconds, rows_sum)

        # Log.
        step_seconds = time.monotonic() - step_start
        measured = training.measure_step(result, batch, progress, step_seconds, wait_seconds)
        if progress.step % training.log_every == 0 or training.is_over(progress):
            recorder.write_metrics(
                progress.step,
                "train",
                **vars(result),
                learning_rate=learning_rate,
                tokens=progress.tokens,
                seconds=seconds,
                **measured,
                **({"skipped": True} if is_skipped else {}),
                **({} if progress.loss_scale is None else {"loss_scale": progress.loss_scale}),
            )
        recorder.show(progress, training.status())
        heap.trim_if_due()


def handle_bad_step(
    training: Training[Any, Any], progress: Progress, result: StepResult, learning_rate: float, *, is_saved: bool
) -> None:
    """Record a step without an update, then continue or stop as the policy of the training says.

    Raises:
        ValueError: the policy is to stop. A checkpoint of `progress` is on disk.
    """
    description, advice = training.record_bad_step(progress, result, learning_rate)
    if training.bad_steps.action == "skip":
        training.recorder.note(f"{description}: skipping this update")
        return
    if not is_saved:
        training.save(progress)
    training.recorder.wait()
    training.ranks.wait_for_all()  # torchrun kills rank 0 half a minute after another rank has ended
    raise ValueError(f"{description}: {advice}")

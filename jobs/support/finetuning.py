"""Fine-tuning with one seed, as the training loop sees it: batches, learning rate, evaluation and checkpoints."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bertloom.whole_files import remove_folder, sweep_temporary, whole_folder
from jobs.support.finetune_config import FinetuneConfig
from model.distributed import Ranks
from model.hub.pretrained import Pretrained
from model.hub.weights import save_pretrained
from model.loading.order import TrainingOrder
from model.mixed_precision import ComputeCopy, computing_model
from model.runs.bad_steps import BadStepPolicy, describe_bad_step
from model.runs.best import Best
from model.runs.checkpoint import file_sha256
from model.runs.loop import Training
from model.runs.meter import SpeedMeter
from model.runs.progress import Progress
from model.runs.recorder import NullRecorder
from model.schedule import Schedule
from model.step import StepResult
from model.tasks.data import TaskBatch, TaskData
from model.tasks.heads import TaskModel
from model.tasks.rows import Rejected
from model.tasks.task import Task
from model.tasks.training import FinetuneState, learning_rate_of_width, micro_batches, predict_all, train_step


@dataclass(frozen=True, kw_only=True)
class FinetuneJob:
    """What all seeds of a command share."""

    config: FinetuneConfig
    ranks: Ranks
    """The processes that train together."""
    precision: str
    task: Task[Any]
    """The task, with what it has learnt from the training rows, such as their labels."""
    pretrained: Pretrained
    """The model to start from."""
    train: TaskData
    """The training rows as token ids."""
    dev: TaskData
    """The dev rows as token ids."""
    dev_rows: Sequence[Any]
    """The dev rows as they were read."""
    bad_train: list[Rejected]
    """Training rows that were skipped."""
    bad_dev: list[Rejected]
    """Dev rows that were skipped."""
    settings: dict[str, Any]
    """Settings that decide the numbers, without the seed, and digests of model and data."""

    @property
    def metric(self) -> str:
        """Name of the metric that chooses the best model."""
        return self.config.metric or self.task.metrics[0]

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""
        rate = self.config.learning_rate
        return learning_rate_of_width(self.pretrained.config.shape.hidden_size) if rate == "auto" else rate

    @property
    def num_steps(self) -> int:
        """Number of updates of a run that patience does not end early."""
        return math.ceil(self.config.num_epochs * self.train.num_items / self.config.batch_size)

    def is_end_of_epoch(self, step: int) -> bool:
        """Return whether an epoch ends with this step."""
        before, now = ((step - i) * self.config.batch_size // self.train.num_items for i in (1, 0))
        return before < now


@dataclass(kw_only=True)
class Finetuning(Training[list[TaskBatch], StepResult]):
    """A fine-tuning run with one seed. `jobs/support/finetune_run.py` prepares and resumes it."""

    job: FinetuneJob
    seed: int
    settings: dict[str, Any]
    """Settings that a resumed run must match."""
    ranks: Ranks
    recorder: NullRecorder
    model: TaskModel
    optimizer: torch.optim.Optimizer
    copy: ComputeCopy[TaskModel] | None
    """Computes in 16 bits."""
    start_step: int
    """The step at which this process started; it was evaluated and saved before."""
    best: Best
    best_files: dict[str, str]
    """sha256 of each file of the best model. Only rank 0 needs them."""
    bad_steps: BadStepPolicy = BadStepPolicy()
    meter: SpeedMeter = field(default_factory=SpeedMeter)

    def __post_init__(self) -> None:
        config = self.job.config
        self.order = TrainingOrder([self.job.train.num_items], self.seed, self.job.task.windowing.max_seq_length)
        self.schedule = Schedule(
            unit="steps",
            total=self.job.num_steps,
            peak=self.job.learning_rate,
            warmup_ratio=config.warmup_ratio,
            warmup_steps=config.warmup_steps,
            shape="linear",
            decay_ratio=1.0,
            phases=(),
        )

    @property
    def computing(self) -> TaskModel:
        """The model that runs forward and backward."""
        return computing_model(self.model, self.copy)

    def is_over(self, progress: Progress) -> bool:
        patience = self.job.config.patience
        is_patience_over = patience is not None and self.best.num_worse >= patience
        return self.schedule.is_over(progress.step) or is_patience_over

    def is_evaluation_due(self, progress: Progress, *, is_stopping: bool) -> bool:
        if progress.step == self.start_step:
            return False
        if (every := self.job.config.eval_every) is not None:
            return self.is_over(progress) or progress.step % every == 0
        return self.is_over(progress) or self.job.is_end_of_epoch(progress.step)

    def evaluate(self, progress: Progress) -> dict[str, float]:
        """Return the metrics on the dev rows, and keep the model if it is the best so far. Rank 0 does it for all."""
        task, values = self._measure() if self.ranks.is_first else (self.job.task, {})
        values = self.ranks.share_json(values)
        self.best = self.best.after(progress.step, values[self.job.metric])
        if self.best.step == progress.step and self.ranks.is_first:
            self.recorder.check_folder()  # or the model would make another folder of this name
            # A killed run may have got further than its checkpoint, and written this model already.
            with whole_folder(model_path(self.recorder.out, progress.step), replace=True) as folder:
                tokenizer, longest = self.job.pretrained.tokenizer, self.job.pretrained.max_seq_length
                longest = max(longest, task.windowing.max_seq_length)
                save_pretrained(self.model, folder, tokenizer, longest, task.vectors, **task.configuration())
            self.best_files = digests_of(model_path(self.recorder.out, progress.step))
        return values

    def _measure(self) -> tuple[Task[Any], dict[str, float]]:
        """Return the task with what the dev rows decide, and the metrics on them."""
        job = self.job
        logits, loss = predict_all(self.computing, job.dev, job.config.micro_batch_size)
        task = job.task.calibrate(job.dev, logits)
        values = task.measure(job.dev_rows, job.dev, logits)
        return task, values if loss is None else {"loss": loss, **values}

    def describe_evaluation(self, step: int, values: dict[str, float]) -> str:
        loss = f"loss {values['loss']:.4f}; " if "loss" in values else ""
        return f"step {step:,}, dev: {loss}{describe_metrics(values)}"

    def is_save_due(self, step: int, *, is_evaluated: bool) -> bool:
        return is_evaluated or step % self.job.config.save_every == 0

    def save(self, progress: Progress) -> None:
        state = FinetuneState(progress=progress, best=self.best, settings=self.settings, best_files=self.best_files)
        self.recorder.save(self.model, self.optimizer, state)
        self.recorder.wait()  # the checkpoint refers to the best model, so the older ones go afterwards
        if self.ranks.is_first:
            remove_other_models(self.recorder.out, self.best.step)

    def next_batch(self, progress: Progress) -> list[TaskBatch]:
        size = self.job.config.batch_size
        _, items = self.order.items(progress.step * size, (progress.step + 1) * size)
        return micro_batches(self.job.train, items, self.job.config.micro_batch_size)

    def learning_rate(self, progress: Progress, batch: list[TaskBatch]) -> float:
        return self.schedule.learning_rate(progress.step, 1)

    def train_step(
        self,
        batch: list[TaskBatch],
        *,
        step: int,
        learning_rate: float,
        highest_loss: float,
        loss_scale: float | None,
    ) -> StepResult:
        return train_step(
            self.model,
            self.optimizer,
            batch,
            learning_rate=learning_rate,
            max_gradient_norm=self.job.config.max_gradient_norm,
            seed=self.seed,
            step=step,
            copy=self.copy,
            loss_scale=loss_scale,
            ranks=self.ranks,
        )

    def advance(
        self, progress: Progress, batch: list[TaskBatch], loss: float | None, seconds: float, rows_sum: int
    ) -> Progress:
        return progress.after_step(num_tokens=count_tokens(batch), seconds=seconds, loss=loss)

    def record_bad_step(self, progress: Progress, result: StepResult, learning_rate: float) -> tuple[str, str]:
        return (
            describe_bad_step(progress.step + 1, result),
            f"use a learning_rate below {learning_rate:g} or a larger warmup_ratio, and a folder other than "
            f"{self.recorder.out}",
        )

    def measure_step(
        self, result: StepResult, batch: list[TaskBatch], progress: Progress, seconds: float, wait_seconds: float
    ) -> dict[str, float | str]:
        return {**self.meter.add(result, count_tokens(batch), seconds)}

    def status(self) -> str:
        return self.meter.describe()


def model_path(out: Path, step: int) -> Path:
    """Return the folder of the best model while a run is not finished."""
    return out / "models" / f"step-{step:08d}"


def digests_of(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a model."""
    return {
        path.relative_to(folder).as_posix(): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def remove_other_models(out: Path, best_step: int | None) -> None:
    """Remove all models except the best one, and what killed processes left. Other files stay."""
    sweep_temporary(out / "models")
    for path in (out / "models").glob("step-*"):
        if path.is_dir() and (best_step is None or path != model_path(out, best_step)):
            remove_folder(path)


def count_tokens(batch: Sequence[TaskBatch]) -> int:
    """Return the number of real tokens of a global batch."""
    return sum(sum(part.lengths) for part in batch)


def describe_metrics(values: dict[str, float]) -> str:
    """Return metrics in one line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "loss")

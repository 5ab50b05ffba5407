"""Pretraining, as the training loop sees it: batches, learning rate, evaluation and checkpoints."""

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from jobs.support.pretrain_config import PretrainConfig
from model.cuda_graphs import StepGraphs
from model.distributed import Ranks
from model.heads import PretrainingModel
from model.loading.batches import BatchReader, GlobalBatch
from model.loading.data import Examples
from model.loading.data_sets import DataSets
from model.loading.order import ORDER_VERSION
from model.loading.stream import Leg, continue_legs
from model.mixed_precision import ComputeCopy, computing_model
from model.runs.bad_steps import BAD_STEPS, BadStepPolicy, describe_bad_step
from model.runs.best import Best
from model.runs.loop import Training
from model.runs.meter import PretrainingMeter
from model.runs.metrics import Value
from model.runs.progress import Progress
from model.runs.recorder import NullRecorder
from model.runs.state import TrainingState
from model.schedule import Phase, Schedule
from model.sharding import Sharding
from model.step import Evaluation, PretrainingResult, evaluate, joined, train_step

NUM_SHOWN_EXAMPLES = 3
WRITING_SPEED = 200e6
"""Expected speed of writing the last checkpoint of a budget, in bytes per second: the speed of a network disk."""


@dataclass(kw_only=True)
class Pretraining(Training[GlobalBatch, PretrainingResult]):
    """A pretraining run. `jobs/pretrain.py` prepares and resumes it."""

    config: PretrainConfig
    ranks: Ranks
    recorder: NullRecorder
    bad_steps: BadStepPolicy
    data_sets: DataSets
    schedule: Schedule
    reader: BatchReader
    validation: Mapping[int, Mapping[str, Examples]]
    """Validation examples by max_seq_length and data set, of the lengths that are trained on."""
    model: PretrainingModel
    precision: str
    meter: PretrainingMeter
    optimizer: torch.optim.Optimizer = field(init=False)
    """Built when the weights are on their device."""
    sharding: Sharding | None = None
    """Of the model, with --shard-model and several ranks."""
    copy: ComputeCopy[PretrainingModel] | None = field(init=False)
    """Computes in 16 bits; made when the weights are those of the first step. A sharded model needs none."""
    graphs: StepGraphs | None = None
    """Run padded micro-batches, with --cuda-graphs."""
    best: Best = Best()
    """The best evaluation so far; its value is minus the MLM loss."""
    evaluation_seconds: float = 0.0
    """Duration of the longest evaluation so far."""
    finished: Path | None = None
    """The last checkpoint, if the run was finished before this process began."""
    changes: list[dict[str, Any]] = field(default_factory=list)
    """Settings changed on resuming."""
    leg_settings: dict[Phase, dict[str, Any]] = field(default_factory=dict)
    """What decides which examples each phase reads."""
    evaluated_step: int = -1
    """The last step that was evaluated."""
    step_seconds: float = field(init=False)
    """Duration of the last step. For the first one it is a guess: with 0, the first learning rate would be 0, too."""

    def __post_init__(self) -> None:
        self.log_every = self.config.log_every
        self.step_seconds = self.schedule.total / 1000
        self.reserve(0.0)

    @property
    def computing(self) -> PretrainingModel:
        """The model that runs forward and backward."""
        return computing_model(self.model, self.copy)

    def reserve(self, evaluation_seconds: float) -> None:
        """End a schedule in seconds early enough for the last checkpoint and an evaluation of at least this duration."""
        self.evaluation_seconds = max(self.evaluation_seconds, evaluation_seconds)
        if self.schedule.unit == "seconds":
            _, budget = self.config.length_of_training()
            num_bytes = 3 * sum(4 * parameter.numel() for parameter in self.model.parameters())  # with Adam's moments
            closing = self.evaluation_seconds + num_bytes / WRITING_SPEED
            self.schedule = replace(self.schedule, total=max(budget - closing, budget / 2))

    def legs_at(self, progress: Progress) -> list[Leg]:
        """Return the legs of the run up to and including the next step."""
        phase = self.schedule.phase_at(progress.count(self.schedule.unit))
        if phase not in self.leg_settings:
            self.leg_settings[phase] = self.config.leg_settings(self.data_sets, phase)
        return continue_legs(progress.legs, progress.step, **self.leg_settings[phase])

    def state(self, progress: Progress) -> TrainingState:
        """Return what a checkpoint holds besides tensors."""
        settings = {"max_seq_length": self.schedule.phases[0].max_seq_length, "precision": self.precision}
        return TrainingState(
            progress=progress,
            seed=self.config.seed,
            order_version=ORDER_VERSION,
            shards_digest=self.data_sets.shards_digest,
            vocabulary_sha256=self.data_sets.vocabulary_sha256,
            model=self.model.config.values(),
            schedule=self.config.settings() | settings,
            changes=self.changes,
            best=self.best,
            is_finished=self.is_over(progress),
            evaluation_seconds=self.evaluation_seconds,
        )

    def is_over(self, progress: Progress) -> bool:
        patience = self.config.patience
        is_patience_over = patience is not None and self.best.num_worse >= patience
        return self.schedule.is_over(progress.count(self.schedule.unit)) or is_patience_over

    def is_evaluation_due(self, progress: Progress, *, is_stopping: bool) -> bool:
        if progress.step == self.evaluated_step or not self.held_out_of(progress.legs[-1]):
            return False
        # After a signal there is little time: the evaluation takes place when the run is resumed.
        return self.is_over(progress) or (progress.step % self.config.eval_every == 0 and not is_stopping)

    def evaluate(self, progress: Progress) -> dict[str, float]:
        start = time.monotonic()
        self.evaluated_step = progress.step
        result, by_source = self.evaluate_sources(progress.legs[-1])
        self.best = self.best.after(progress.step, -result.mlm_loss)
        self.reserve(self.ranks.share_json(time.monotonic() - start))
        return asdict(result) | ({"loss_by_source": by_source} if self.data_sets.is_mixture else {})

    def held_out_of(self, leg: Leg) -> dict[str, Examples]:
        """Return the validation examples of each data set of a leg that has some."""
        found = self.validation.get(leg.max_seq_length, {})
        if not leg.sources:
            return dict(found)
        return {source.name: found[source.name] for source in leg.sources if source.share and source.name in found}

    def evaluate_sources(self, leg: Leg) -> tuple[Evaluation, dict[str, float]]:
        """Return the evaluation on the validation examples of all data sets of a leg, and the MLM loss on each."""
        held_out = self.held_out_of(leg)
        numbers = eval_numbers(self.config.num_eval_examples, held_out, leg)
        found = {}
        for name, examples in held_out.items():
            batches = examples.in_order(
                self.reader.micro_batch_sizes[leg.max_seq_length], numbers[name], self.ranks.rank, self.ranks.size
            )
            found[name] = evaluate(self.computing, batches, ranks=self.ranks, sharding=self.sharding)
        return joined(list(found.values())), {name: result.mlm_loss for name, result in found.items()}

    def describe_evaluation(self, step: int, values: dict[str, float]) -> str:
        pairs = (
            f"; NSP loss {values['nsp_loss']:.3f}, accuracy {values['nsp_accuracy']:.1%}" if values["nsp_loss"] else ""
        )
        return f"step {step:,}, validation: MLM loss {values['mlm_loss']:.3f}, accuracy {values['mlm_accuracy']:.1%}{pairs}"

    def is_save_due(self, step: int, *, is_evaluated: bool) -> bool:
        return step % self.config.save_every == 0

    def save(self, progress: Progress) -> None:
        self.recorder.save(self.model, self.optimizer, self.state(progress))

    def num_saves(self, progress: Progress) -> int:
        """Return the number of checkpoints to come; 3 if the number of steps is not known."""
        if self.schedule.unit != "steps":
            return 3
        return math.ceil((self.schedule.total - progress.step) / self.config.save_every)

    def next_batch(self, progress: Progress) -> GlobalBatch:
        legs = self.legs_at(progress)
        batch = self.reader.read(legs[-1], progress.step)
        expected = progress.after_step(
            num_tokens=batch.num_tokens, seconds=progress.seconds + self.step_seconds, loss=None, legs=legs
        )
        if not self.is_over(expected):
            self.reader.prefetch(self.legs_at(expected)[-1], expected.step)
        return batch

    def learning_rate(self, progress: Progress, batch: GlobalBatch) -> float:
        sizes = {"steps": 1, "tokens": batch.num_tokens, "seconds": self.step_seconds}
        unit = self.schedule.unit
        return self.schedule.learning_rate(progress.count(unit), sizes[unit])

    def train_step(
        self, batch: GlobalBatch, *, step: int, learning_rate: float, highest_loss: float, loss_scale: float | None
    ) -> PretrainingResult:
        return train_step(
            self.model,
            self.optimizer,
            batch,
            learning_rate=learning_rate,
            max_gradient_norm=self.config.max_gradient_norm,
            seed=self.config.seed,
            step=step,
            copy=self.copy,
            graphs=self.graphs,
            ranks=self.ranks,
            highest_loss=highest_loss,
            loss_scale=loss_scale,
            sharding=self.sharding,
        )

    def rows_sum(self, batch: GlobalBatch) -> int:
        return batch.stream_sum

    def advance(
        self, progress: Progress, batch: GlobalBatch, loss: float | None, seconds: float, rows_sum: int
    ) -> Progress:
        self.step_seconds = seconds - progress.seconds
        return progress.after_step(
            num_tokens=batch.num_tokens,
            seconds=seconds,
            loss=loss,
            rows_sum=rows_sum,
            legs=self.legs_at(progress),
            tokens_by_source=batch.tokens_by_source,
        )

    def record_bad_step(self, progress: Progress, result: PretrainingResult, learning_rate: float) -> tuple[str, str]:
        step = progress.step + 1
        examples = self.reader.indices(self.legs_at(progress)[-1], progress.step)
        path = self.recorder.out / BAD_STEPS
        self.recorder.record_bad_step(step, result, self.bad_steps.action, examples)
        by_name = examples if isinstance(examples, dict) else {str(self.data_sets.first.folder): examples}
        shown = "; ".join(
            f"rows {', '.join(map(str, rows[:NUM_SHOWN_EXAMPLES]))}, … of {name}"
            for name, rows in by_name.items()
            if rows
        )
        return (
            f"{describe_bad_step(step, result)}; its examples are {shown} (all in {path})",
            f"check these examples, or start a new run with a learning_rate below {learning_rate:g} or a longer warm-up, "
            f"or continue with --on-bad-step skip",
        )

    def measure_step(
        self, result: PretrainingResult, batch: GlobalBatch, progress: Progress, seconds: float, wait_seconds: float
    ) -> dict[str, Value]:
        length = progress.legs[-1].max_seq_length
        measured = self.meter.add_step(result, batch, length, seconds, wait_seconds)
        by_source: dict[str, Value] = (
            {"tokens_by_source": progress.tokens_by_source} if progress.tokens_by_source else {}
        )
        return {"stream": progress.stream, "max_seq_length": length, **by_source, **measured}

    def status(self) -> str:
        return self.meter.describe()


def eval_numbers(limit: int, names: Collection[str], leg: Leg) -> dict[str, int]:
    """Return the largest number of validation examples of each data set: its share of the limit, and at least 1."""
    shares = {source.name: source.share for source in leg.sources} or dict.fromkeys(names, 1.0)
    total = sum(shares[name] for name in names)
    return {name: max(1, round(limit * shares[name] / total)) for name in names}

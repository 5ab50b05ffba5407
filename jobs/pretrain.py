"""Trains a BERT on a data set that `bertloom preprocess` made.

    bertloom pretrain tiny --data DATASET --out RUN
    bertloom pretrain small --data DATASET --out RUN --num-steps 20000 --learning-rate 3e-4

Presets: tiny, mini, small, base, large. Writes

    RUN/config.toml                  all that was chosen; can be given back as a preset
    RUN/metrics.jsonl                a line a step, and one an evaluation
    RUN/checkpoints/step-00001000/   the last few; the last one is the trained model

Started again with the same flags, it goes on from the last whole checkpoint, and on a CPU with the same number of
threads gets the numbers, bit for bit, that it would have got without the stop. What decides those numbers (model, data,
batch size, schedule, seed) cannot be changed on the way; micro-batch size, device, threads and how often to save can.

Exit status: 0 when the run is finished; when SIGTERM or SIGINT (Ctrl-C) ends it, the step is finished, a checkpoint is
saved and the status is 128 + the signal's number: 143 or 130. A second Ctrl-C does not wait.
"""

import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

# Threads that wait for each other sleep, not spin. On idle cores it costs nothing; where other work shares them, a step
# of the tiny model became 2 to 15 times faster. Read when torch is loaded, so it stands before that.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from tqdm import tqdm

from jobs.config import dump, parse
from model.batches import global_batch
from model.bert import BertArchitecture, BertConfig, initialize_weights
from model.checkpoint import (
    TrainingState,
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    sweep,
)
from model.data import DataSet
from model.heads import BertForPreTraining
from model.metrics import MetricsWriter, read_metrics
from model.optimizer import build_optimizer, learning_rate_at
from model.order import ORDER_VERSION, TrainingOrder
from model.run_folder import only_trainer, stop_signals, write_text
from model.stream import START, Leg, extend
from model.training import Evaluation, choose_device, choose_precision, evaluate, train_step

logger = logging.getLogger("bertloom")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Trains a BERT on a data set; started again, it resumes. Presets: tiny, mini, small, base, large."""

    data: Path
    """The data set, as `bertloom preprocess` wrote it."""
    out: Path
    """The run folder: a new one, or one to go on with."""
    num_steps: int
    """Updates of the weights in all."""
    batch_size: int = 256
    """Examples in an update (the global batch). BERT had 256."""
    micro_batch_size: int = 32
    """Examples in memory at once, at most; changes no result beyond rounding, and what dropout draws."""
    max_seq_length: int | None = None
    """Which of the data set's lengths to train on, in tokens; the shortest if none is given."""
    learning_rate: float = 1e-4
    """At its peak. BERT: 1e-4 at a batch of 256; smaller models and larger batches take more."""
    warmup_ratio: float = 0.06
    """Share of the steps in which the learning rate rises; it then falls in a line. BERT: 0.01, RoBERTa: 0.06."""
    weight_decay: float = 0.01
    """AdamW's decay of matrices and embeddings. BERT: 0.01."""
    max_gradient_norm: float = 1.0
    """The gradient of the global batch is scaled down to this norm where it is larger. BERT: 1.0."""
    seed: int = 1
    """Of the order of examples, the initial weights and dropout."""
    model: BertArchitecture = BertArchitecture()
    """The shape of the model."""
    device: str = "auto"
    """cuda, cuda:1, cpu …; auto takes cuda where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16: matrix products in 16 bits, weights in 32. auto takes it on CUDA."""
    num_threads: int | None = None
    """Threads of the CPU's matrix products; torch's choice if none is given. Another number rounds differently."""
    eval_every: int = 1000
    """Steps between evaluations on the validation split; the start and the end are always evaluated."""
    num_eval_examples: int = 2048
    """Validation examples in an evaluation, at most."""
    save_every: int = 1000
    """Steps between checkpoints; the end is always saved."""
    keep_checkpoints: int = 2
    """How many checkpoints to keep; older ones are removed."""
    log_every: int = 1
    """Steps between lines in metrics.jsonl."""

    def __post_init__(self) -> None:
        sizes = ("num_steps", "batch_size", "micro_batch_size", "num_eval_examples", "keep_checkpoints")
        for name in (*sizes, "eval_every", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"num_threads={self.num_threads} must be at least 1")
        if self.learning_rate <= 0 or self.max_gradient_norm <= 0:
            raise ValueError(
                f"learning_rate={self.learning_rate:g} and max_gradient_norm={self.max_gradient_norm:g} must be above 0"
            )
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(f"warmup_ratio={self.warmup_ratio:g} must be at least 0 and below 1: a share of num_steps")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay={self.weight_decay:g} must not be below 0")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must be at least 0 and below 2^63")
        if self.max_seq_length is not None and self.max_seq_length > self.model.max_position_embeddings:
            raise ValueError(too_long(self.max_seq_length, self.model.max_position_embeddings))

    @property
    def num_warmup_steps(self) -> int:
        """Steps in which the learning rate rises."""
        return int(self.num_steps * self.warmup_ratio)


SCHEDULE = ("num_steps", "batch_size", "learning_rate", "warmup_ratio", "weight_decay", "max_gradient_norm")
"""Fields that decide the numbers and are kept in checkpoints, beside those that TrainingState names itself."""


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """How a run, or its part up to a signal, ended."""

    out: Path
    """The run folder."""
    checkpoint: Path
    """The last checkpoint."""
    step: int
    """Updates done."""
    validation: dict[str, float]
    """The last evaluation's losses and accuracies; empty if the data set has no validation split."""
    tokens_per_second: float
    """Real tokens trained on per second of this call, without evaluation; 0 if there was nothing left to do."""
    signal_number: int = 0
    """The signal that ended it early, or 0."""

    @property
    def exit_status(self) -> int:
        """0, or 128 + the signal's number."""
        return 128 + self.signal_number if self.signal_number else 0


def main(argv: Sequence[str]) -> int:
    """The exit status of `bertloom pretrain` with these words."""
    return pretrain(parse(PretrainConfig, argv, prog="bertloom pretrain")).exit_status


def pretrain(config: PretrainConfig) -> PretrainResult:
    """Trains, or goes on training, until the last step or a signal; see the top of this file."""
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    data_set = DataSet(config.data)
    examples = data_set.examples("train", config.max_seq_length)
    if examples.max_seq_length > config.model.max_position_embeddings:
        raise ValueError(too_long(examples.max_seq_length, config.model.max_position_embeddings))
    examples.check_shards()
    validation = None
    if examples.max_seq_length in data_set.max_seq_lengths("validation"):
        validation = data_set.examples("validation", examples.max_seq_length)
    else:
        logger.warning("%s has no validation split of this length: nothing will be evaluated", config.data)
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)

    model_config = BertConfig(**asdict(config.model), vocab_size=data_set.vocabulary_size)
    order = TrainingOrder(examples.rows_per_copy, config.seed, examples.max_seq_length)

    leg = Leg(
        step=0, max_seq_length=examples.max_seq_length, item=0, batch_size=config.batch_size,
        seed=config.seed, shards_digest=data_set.shards_digest,
    )  # fmt: skip

    def state_at(step: int, tokens: int, stream: str) -> TrainingState:
        items = leg.item_at(step)
        return TrainingState(
            step=step, items=items, tokens=tokens, stream=stream, legs=[asdict(leg)],
            epoch=order.epoch_of(items), epoch_items=items - order.epoch_start(order.epoch_of(items)),
            seed=config.seed, order_version=ORDER_VERSION, max_seq_length=examples.max_seq_length,
            shards_digest=data_set.shards_digest, vocabulary_sha256=data_set.vocabulary_sha256,
            model=asdict(model_config), schedule={name: getattr(config, name) for name in SCHEDULE},
        )  # fmt: skip

    with only_trainer(config.out):
        checkpoints = config.out / "checkpoints"
        found = latest_checkpoint(checkpoints)
        step, tokens, stream = 0, 0, START
        if found:
            step, tokens, stream = found[1].step, found[1].tokens, found[1].stream
            check_unchanged(found[1], state_at(0, 0, START), data_set)
        sweep(checkpoints)
        if found and step == config.num_steps:
            print(f"{config.out} is finished: {step:,} steps; its model is {found[0]}")
            return PretrainResult(
                out=config.out, checkpoint=found[0], step=step, tokens_per_second=0.0,
                validation=last_evaluation(config.out),
            )  # fmt: skip
        write_text(config.out / "config.toml", dump(config))

        model = BertForPreTraining(model_config)
        if not found:
            initialize_weights(model, config.model.initializer_range, config.seed)
        model.to(device)
        optimizer = build_optimizer(model, config.weight_decay)
        if found:
            load_checkpoint(found[0], model, optimizer)
        resumed_at = step if found else -1
        print_start(config, model, examples.rows_per_copy, step, device, precision)
        begin, busy_seconds, busy_tokens = time.monotonic(), 0.0, 0
        shown: dict[str, float] = {}  # running means, for the eye

        with (
            stop_signals() as signals,
            MetricsWriter(config.out / "metrics.jsonl", step) as metrics,
            progress_bar(config.num_steps, step) as bar,
        ):
            while True:
                done = step == config.num_steps
                if validation and (done or step % config.eval_every == 0) and not metrics.is_evaluated(step):
                    batches = validation.in_order(config.micro_batch_size, config.num_eval_examples)
                    evaluation = evaluate(model, batches, precision=precision)
                    metrics.write(step, "validation", **asdict(evaluation), seconds=time.monotonic() - begin)
                    bar.write(describe(step, evaluation), file=sys.stderr)

                save = done or signals or (step % config.save_every == 0 and step > 0)
                if save and step != resumed_at:
                    metrics.sync()
                    state = state_at(step, tokens, stream)
                    save_checkpoint(checkpoints, model, optimizer, state, config.keep_checkpoints)
                if done or signals:
                    break

                started = time.monotonic()
                batch = global_batch(examples, order, leg.item_at(step), config.batch_size, config.micro_batch_size)
                learning_rate = learning_rate_at(step, config.learning_rate, config.num_warmup_steps, config.num_steps)
                result = train_step(
                    model, optimizer, batch,
                    learning_rate=learning_rate, max_gradient_norm=config.max_gradient_norm,
                    seed=config.seed, step=step, precision=precision,
                )  # fmt: skip
                step += 1
                tokens += batch.num_tokens
                stream = extend(stream, batch.stream_sum)
                busy_tokens += batch.num_tokens
                step_seconds = time.monotonic() - started
                busy_seconds += step_seconds

                if step % config.log_every == 0 or step == config.num_steps:
                    metrics.write(
                        step, "train", **asdict(result), learning_rate=learning_rate, tokens=tokens, stream=stream,
                        seconds=time.monotonic() - begin, tokens_per_second=batch.num_tokens / step_seconds,
                    )  # fmt: skip
                shown = {name: 0.9 * shown.get(name, value) + 0.1 * value for name, value in asdict(result).items()}
                bar.set_postfix_str(
                    f"loss {shown['loss']:.3f}, mlm {shown['mlm_accuracy']:.1%}, nsp {shown['nsp_accuracy']:.1%}, "
                    f"{busy_tokens / busy_seconds:,.0f} tokens/s",
                    refresh=False,
                )
                bar.update()

    speed = busy_tokens / busy_seconds if busy_seconds else 0.0
    where = checkpoint_path(checkpoints, step)
    if signals:
        print(f"stopped by {signals[0].name} at step {step:,}, saved as {where}: to go on, start it again")
    else:
        print(f"finished {step:,} steps at {speed:,.0f} real tokens/s; the model is {where}")
    return PretrainResult(
        out=config.out, checkpoint=where, step=step, tokens_per_second=speed,
        validation=last_evaluation(config.out), signal_number=signals[0] if signals else 0,
    )  # fmt: skip


def too_long(max_seq_length: int, max_position_embeddings: int) -> str:
    """The words of that error."""
    return (
        f"max_seq_length={max_seq_length} is above model.max_position_embeddings={max_position_embeddings}: "
        f"raise that to {max_seq_length}, or train on a shorter length of the data set"
    )


def check_unchanged(saved: TrainingState, now: TrainingState, data_set: DataSet) -> None:
    """Raises ValueError if what decides the numbers is not what the run began with."""
    data_set.check_vocabulary(saved.vocabulary_sha256)
    if saved.shards_digest != now.shards_digest:
        raise ValueError(
            f"the run was trained on another data set than {data_set.directory} (sha256 of shards.parquet "
            f"{saved.shards_digest[:12]}…, now {now.shards_digest[:12]}…): give that one, or a new --out"
        )
    before, after = (
        {"seed": state.seed, "max_seq_length": state.max_seq_length, "order_version": state.order_version}
        | state.schedule
        | {f"model.{name}": value for name, value in state.model.items()}
        for state in (saved, now)
    )
    for name in before | after:
        if before.get(name) != after.get(name):
            advice = "the learning rate of every step depends on it; " if name == "num_steps" else ""
            raise ValueError(
                f"{name} is {after.get(name)}, but this run began with {before.get(name)}: {advice}"
                f"resume with {before.get(name)}, or give a new --out to begin another run"
            )


def last_evaluation(out: Path) -> dict[str, float]:
    """The losses and accuracies of the last validation line of a run's metrics."""
    lines = [line for line in read_metrics(out / "metrics.jsonl") if line["split"] == "validation"]
    names = [field.name for field in fields(Evaluation)]
    return {name: lines[-1][name] for name in names} if lines else {}


def describe(step: int, evaluation: Evaluation) -> str:
    """An evaluation in a line."""
    return (
        f"step {step:,}, validation: MLM loss {evaluation.mlm_loss:.3f}, accuracy {evaluation.mlm_accuracy:.1%}; "
        f"NSP loss {evaluation.nsp_loss:.3f}, accuracy {evaluation.nsp_accuracy:.1%}"
    )


def print_start(
    config: PretrainConfig, model: BertForPreTraining, rows: list[int], step: int, device: torch.device, precision: str
) -> None:
    """Says what is about to be trained."""
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    epochs = config.num_steps * config.batch_size / (sum(rows) / len(rows))
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    print(
        f"{num_parameters:,} parameters on {device} in {precision}{threads}; "
        f"{sum(rows):,} examples in {len(rows)} copies, to be read for {epochs:.1f} epochs of one copy each"
        + (f"; going on from step {step:,}" if step else "")
    )


def progress_bar(num_steps: int, step: int) -> "tqdm[Any]":
    """A bar on stderr; where that is a file, a line every half minute."""
    seconds = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm(
        total=num_steps, initial=step, unit="step",
        dynamic_ncols=True, mininterval=seconds, maxinterval=max(seconds, 10.0),
    )  # fmt: skip

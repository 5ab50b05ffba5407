"""One run of fine-tuning: one seed, from the first step to the best model, over any number of stops."""

import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertloom.whole_files import sweep_temporary, whole_folder, write_text
from jobs.pretrain import progress_bar
from jobs.support.config import dump
from jobs.support.finetune_config import FinetuneConfig
from model.hub.pretrained import Pretrained
from model.hub.weights import save_pretrained
from model.loading.data import read_json
from model.loading.order import TrainingOrder
from model.runs.checkpoint import latest_of, load_checkpoint, save_checkpoint
from model.runs.metrics import MetricsWriter, read_metrics
from model.schedule import Schedule
from model.step import choose_device, choose_precision
from model.tasks.data import TaskData
from model.tasks.heads import TaskModel
from model.tasks.initial_weights import load_encoder
from model.tasks.rows import Rejected
from model.tasks.task import Task
from model.tasks.training import (
    FinetuneState,
    StepResult,
    build_optimizer,
    freeze,
    micro_batches,
    predict_all,
    train_step,
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all seeds of a command have in common."""

    config: FinetuneConfig
    """What was chosen."""
    task: Task
    """The task, with all it has learnt from the training rows."""
    pretrained: Pretrained
    """The model to begin with."""
    train: TaskData
    """The training rows."""
    dev: TaskData
    """The dev rows as token ids,"""
    dev_rows: Sequence[Any]
    """and as they were read."""
    bad_train: list[Rejected]
    """Training rows that were left out."""
    bad_dev: list[Rejected]
    """Dev rows that were left out."""
    deciding: dict[str, Any]
    """What decides the numbers, beside the seed: configuration, and digests of model and data."""

    @property
    def metric(self) -> str:
        """What the best model is chosen by."""
        return self.config.metric or self.task.metrics[0]

    @property
    def num_steps(self) -> int:
        """Updates of a run that is not ended early."""
        return math.ceil(self.config.num_epochs * self.train.num_items / self.config.batch_size)


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """How a run ended."""

    seed: int
    """Its seed."""
    out: Path
    """Its folder; the best model is `model` in it."""
    step: int
    """Updates done."""
    best_step: int
    """Updates of the best model."""
    metrics: dict[str, float]
    """What was measured of it."""
    tokens_per_second: float
    """Real tokens trained on per second of this call, without measurements; 0 if nothing was left to do."""


def train_seed(job: Job, seed: int, out: Path, signals: list[signal.Signals]) -> SeedResult | None:
    """Trains, or goes on training, one run in its folder; None if a signal ended it, with all that is needed to go on."""
    config, task = job.config, job.task
    deciding = json.loads(json.dumps(job.deciding | {"seed": seed}))
    if finished := read_result(out, deciding):
        print(f"{out} is finished: {describe(finished.metrics)} at step {finished.best_step:,}")
        tidy(out)  # a kill may have come right before
        return finished
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    checkpoints, models = out / "checkpoints", out / "models"
    found = latest_of(FinetuneState, checkpoints)
    state = (
        found[1]
        if found
        else FinetuneState(step=0, tokens=0, seconds=0.0, best_step=None, best=None, num_worse=0, deciding=deciding)
    )
    check_unchanged(out, state.deciding, deciding)
    out.mkdir(parents=True, exist_ok=True)
    write_down(job)
    sweep_temporary(checkpoints)
    keep_best(models, state.best_step)

    model, drawn = build_model(job, seed)
    freeze(model.encoder, config.frozen_layers)
    model.to(device)
    optimizer = build_optimizer(model, config.weight_decay, config.layer_decay)
    if found:
        load_checkpoint(found[0], model, optimizer)
        print(f"seed {seed}: going on from step {state.step:,}", flush=True)
    else:
        print(f"seed {seed}: new weights for {', '.join(drawn)}", flush=True)
    order = TrainingOrder([job.train.num_items], seed, task.reading.max_seq_length)
    schedule = Schedule(
        unit="steps",
        total=job.num_steps,
        peak=config.learning_rate,
        warmup_ratio=config.warmup_ratio,
        shape="linear",
        decay_ratio=1.0,
        phases=(),
    )
    begun = step = state.step
    begin, tokens, train_seconds, stopping = time.monotonic() - state.seconds, 0, 0.0, False

    with MetricsWriter(out / "metrics.jsonl", step) as metrics, progress_bar(schedule, step, True) as bar:
        while True:
            is_new = step != begun  # else it was measured and saved before the stop
            is_measured = is_new and (is_over(job, step, state) or is_due(job, step))
            if is_measured:
                logits, loss = predict_all(model, job.dev, config.micro_batch_size, precision)
                values = task.measure(job.dev_rows, job.dev, logits)
                metrics.write(step, "validation", loss=loss, **values, seconds=time.monotonic() - begin)
                bar.write(f"step {step:,}, dev: loss {loss:.4f}; {describe(values)}", file=sys.stderr)
                if state.best is None or values[job.metric] > state.best:
                    save_model(models / name_of(step), model, job)
                    state = replace(state, best_step=step, best=values[job.metric], num_worse=0)
                else:
                    state = replace(state, num_worse=state.num_worse + 1)
            if is_new and (is_measured or stopping or step % config.save_every == 0):
                metrics.sync()
                state = replace(state, step=step, seconds=time.monotonic() - begin)
                save_checkpoint(checkpoints, model, optimizer, state, keep=1)
                keep_best(models, state.best_step)
            if stopping or is_over(job, step, state):
                break

            started = time.monotonic()
            _, items = order.items(step * config.batch_size, (step + 1) * config.batch_size)
            batches = micro_batches(job.train, items, config.micro_batch_size)
            learning_rate = schedule.learning_rate(step, 1)
            result = train_step(
                model,
                optimizer,
                batches,
                learning_rate=learning_rate,
                max_gradient_norm=config.max_gradient_norm,
                seed=seed,
                step=step,
                precision=precision,
            )
            if not result.is_finite:
                raise ValueError(bad_step(step + 1, result, learning_rate, out))
            step += 1
            num_tokens = sum(sum(batch.lengths) for batch in batches)
            spent = time.monotonic() - started
            tokens, train_seconds = tokens + num_tokens, train_seconds + spent
            state = replace(state, tokens=state.tokens + num_tokens)
            metrics.write(
                step,
                "train",
                loss=result.loss,
                gradient_norm=result.gradient_norm,
                learning_rate=learning_rate,
                tokens=state.tokens,
                seconds=time.monotonic() - begin,
                tokens_per_second=num_tokens / spent,
            )
            bar.set_postfix_str(f"loss {result.loss:.3f}, {tokens / train_seconds:,.0f} tokens/s", refresh=False)
            bar.update()
            stopping = bool(signals)

    if not is_over(job, step, state):
        print(f"seed {seed}: stopped by {signals[0].name} at step {step:,}, saved in {out}: to go on, start it again")
        return None
    speed = tokens / train_seconds if tokens else 0.0
    return finish(out, state, deciding, speed)


def write_down(job: Job) -> None:
    """Writes what was chosen, and which rows were left out, into the command's folder."""
    write_text(job.config.out / "config.toml", dump(job.config))
    if rejected := job.bad_train + job.bad_dev:
        lines = [json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rejected]
        write_text(job.config.out / "bad_rows.jsonl", "".join(lines))


def build_model(job: Job, seed: int) -> tuple[TaskModel, list[str]]:
    """The model before its first step, and the names of what is not from the pretrained one."""
    shape = replace(
        job.pretrained.config.shape,
        hidden_dropout_prob=job.config.dropout,
        attention_probs_dropout_prob=job.config.attention_dropout,
    )
    config = replace(job.pretrained.config, shape=shape)
    model = job.task.model_class(config, job.task.num_outputs)
    return model, load_encoder(model, job.pretrained, seed, random_weights=job.config.random_weights)


def is_over(job: Job, step: int, state: FinetuneState) -> bool:
    """Whether there is no update left to do."""
    patience = job.config.patience
    return step == job.num_steps or (patience is not None and state.num_worse >= patience)


def is_due(job: Job, step: int) -> bool:
    """Whether the dev rows are measured after so many steps: an epoch has just ended, or it is asked for."""
    if job.config.eval_every is not None:
        return step % job.config.eval_every == 0
    before, now = ((step - i) * job.config.batch_size // job.train.num_items for i in (1, 0))
    return before < now


def save_model(path: Path, model: TaskModel, job: Job) -> None:
    """Writes a model in transformers' form; it is whole, or not there under this name."""
    # A run that was killed may have come further than its last checkpoint, and have written this model before.
    with whole_folder(path, replace=True) as temporary:
        save_pretrained(model, temporary, job.pretrained.tokenizer, **job.task.configuration())


def keep_best(models: Path, best_step: int | None) -> None:
    """Removes all models but the best one, and what killed writers left."""
    for path in models.iterdir() if models.is_dir() else ():
        if best_step is None or path.name != name_of(best_step):
            shutil.rmtree(path)


def finish(out: Path, state: FinetuneState, deciding: dict[str, Any], speed: float) -> SeedResult:
    """Puts the best model in its place, and writes results.json."""
    assert state.best_step is not None, "the last step is measured"
    best = out / "models" / name_of(state.best_step)
    if best.exists():  # else a kill came behind the next line
        shutil.rmtree(out / "model", ignore_errors=True)
        os.rename(best, out / "model")
    measured = {line["step"]: line for line in read_metrics(out / "metrics.jsonl") if line["split"] == "validation"}
    values = {k: v for k, v in measured[state.best_step].items() if k not in ("step", "split", "seconds")}
    content = {"step": state.step, "best_step": state.best_step, "metrics": values, "deciding": deciding}
    write_text(out / "results.json", json.dumps(content, indent=2) + "\n")
    tidy(out)
    return SeedResult(
        seed=deciding["seed"],
        out=out,
        step=state.step,
        best_step=state.best_step,
        metrics=values,
        tokens_per_second=speed,
    )


def tidy(out: Path) -> None:
    """Removes what a finished run no longer needs to go on from."""
    for name in ("checkpoints", "models"):
        shutil.rmtree(out / name, ignore_errors=True)


def read_result(out: Path, deciding: dict[str, Any]) -> SeedResult | None:
    """What a finished run's results.json says; None if it is not finished."""
    path = out / "results.json"
    if not path.exists():
        return None
    content = read_json(path)
    check_unchanged(out, content["deciding"], deciding)
    return SeedResult(
        seed=deciding["seed"],
        out=out,
        step=content["step"],
        best_step=content["best_step"],
        metrics=content["metrics"],
        tokens_per_second=0.0,
    )


def check_unchanged(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError if what decides the numbers is no longer as the run began."""
    for name in before | now:
        old, new = before.get(name), now.get(name)
        if old != new:
            raise ValueError(
                f"{name} is {new}, but {out} began with {old}: resume with {old}, or give a new --out to begin another run"
            )


def bad_step(step: int, result: StepResult, learning_rate: float, out: Path) -> str:
    """The words about a step whose loss is no number."""
    return (
        f"at step {step} the loss is {result.loss:g} and the norm of its gradient {result.gradient_norm:g}: take a "
        f"learning_rate below {learning_rate:g} or a larger warmup_ratio, and another folder than {out}"
    )


def describe(values: dict[str, float]) -> str:
    """Metrics in a line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "loss")


def name_of(step: int) -> str:
    """The folder of the model of a step."""
    return f"step-{step:08d}"

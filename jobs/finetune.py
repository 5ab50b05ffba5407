"""Fine-tunes a pretrained BERT for a task, from a file of labelled rows.

    bertloom finetune --task classify --model RUN --train train.jsonl --dev dev.jsonl --out TUNED
    bertloom finetune --task span --model DIRECTORY --train train.json --dev dev.json --out TUNED --seeds 1 2 3

The model is a run of `bertloom pretrain` or a directory in transformers' form. Writes

    TUNED/config.toml      the complete configuration, which can be used as a preset
    TUNED/metrics.jsonl    one line per step and per evaluation on the dev rows
    TUNED/results.json     metrics of the best model, and its step; written last
    TUNED/model/           the best model, for `bertloom predict` and transformers
    TUNED/bad_rows.jsonl   skipped rows with their reasons
    TUNED/checkpoints/     to resume from; removed when the run is finished

With several seeds, each has such a folder, TUNED/seed-1, and TUNED holds the mean, the deviation and the best model.

The same command resumes a stopped run from its last checkpoint. On a CPU with the same number of threads it then gives
the same numbers, bit for bit, as an uninterrupted run. The exit status is as for `bertloom pretrain`. torchrun starts it on
several devices.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertloom.counts import counted
from bertloom.json_files import read_json, read_toml
from bertloom.whole_files import whole_folder, write_text
from jobs.support.config import parse
from jobs.support.finetune_config import FinetuneConfig, pairs
from jobs.support.messages import errors_of
from model.tasks.registry import make_task, task_class

if TYPE_CHECKING:
    import numpy as np

    from jobs.support.finetune_run import SeedResult
    from jobs.support.finetuning import FinetuneJob
    from model.distributed import Ranks
    from model.hub.pretrained import Pretrained
    from model.tasks.data import TaskData, Windowing
    from model.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """The end of a command."""

    out: Path
    """The run folder."""
    seeds: list[SeedResult]
    """The finished runs."""
    mean: dict[str, float]
    """Mean of each metric over the seeds; empty if a signal stopped the command."""
    deviation: dict[str, float]
    """Standard deviation of each metric over the seeds; empty for fewer than two seeds."""
    signal_number: int = 0
    """Number of the signal that stopped the command, or 0."""

    @property
    def exit_status(self) -> int:
        """0, or 128 + the number of the signal."""
        return 128 + self.signal_number if self.signal_number else 0


def main(argv: Sequence[str]) -> int:
    """Run `bertloom finetune` and return its exit status."""
    return finetune(parse(FinetuneConfig, argv, prog="bertloom finetune")).exit_status


def finetune(config: FinetuneConfig) -> FinetuneResult:
    """Train with every seed, until the end or a signal, from the last checkpoint if there is one."""
    from model.distributed import join_ranks
    from model.step import choose_device

    with join_ranks(choose_device(config.device)) as ranks:
        return finetune_rank(config, ranks)


def finetune_rank(config: FinetuneConfig, ranks: Ranks) -> FinetuneResult:
    """Train as one of the ranks."""
    import torch

    from jobs.support.finetune_run import train_seed
    from model.distributed import backend_errors
    from model.runs.recorder import make_recorder
    from model.runs.signals import stop_signals

    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    check_folders(config)
    job = prepare(config, ranks)
    with make_recorder(config.out, ranks).lock(), stop_signals() as signals, backend_errors():
        if ranks.is_first:
            print_start(job)
        results: list[SeedResult] = []
        for seed in config.seeds:
            out = config.out if len(config.seeds) == 1 else config.out / f"seed-{seed}"
            result = train_seed(job, seed, out, signals)
            if isinstance(result, int):
                return FinetuneResult(out=config.out, seeds=results, mean={}, deviation={}, signal_number=result)
            results.append(result)
        return summarize(job, results)


def prepare(config: FinetuneConfig, ranks: Ranks | None = None) -> FinetuneJob:
    """Open the model and read the rows; ValueError if they do not fit together.

    ranks: the processes that train together; by default this one alone.
    """
    from jobs.support.finetuning import FinetuneJob
    from model.distributed import Ranks
    from model.hub.pretrained import open_pretrained
    from model.runs.checkpoint import file_sha256
    from model.runs.heap import limit_kernels
    from model.step import choose_device, choose_precision
    from model.tasks.data import Windowing
    from model.tasks.rows import read_task

    pretrained = open_pretrained(config.model)
    windowing = Windowing(
        max_seq_length=config.max_seq_length or pretrained.max_seq_length,
        stride=config.stride,
        max_windows=config.max_windows,
    )
    check_model(config, pretrained, windowing)
    ranks = ranks or Ranks(device=choose_device(config.device))
    precision = choose_precision(config.precision, ranks.device, pretrained.config.shape, config.attention_dropout)
    limit_kernels(precision)
    task = make_task(config.task, windowing, config.labels, **task_flags(config, pretrained))
    pretrained = replace(pretrained, config=task.configured(pretrained.config))
    columns = pairs("columns", config.columns)
    with errors_of("--train"):
        train_rows, bad_train = read_task(config.train, task.forms(True), task.parse, columns, config.on_bad_row)
    task = task.learn(train_rows)
    if task.has_classes and len(task.labels) < 2:
        raise ValueError(
            f"{config.train}: all {len(train_rows):,} rows have the label {task.labels[0]!r}: expected at least two labels"
        )
    with errors_of("--dev"):
        dev_rows, bad_dev = read_task(config.dev, task.forms(True), task.parse, columns, config.on_bad_row)
        task = task.learn_dev(dev_rows)
    if config.metric is not None and config.metric not in task.metrics:
        raise ValueError(
            f"metric={config.metric!r} is not a metric of {config.task}: expected one of {', '.join(task.metrics)}"
        )
    train = task.tokenize(train_rows, pretrained.tokenizer)
    task.check_batches(train, config.batch_size)
    dev = task.tokenize(dev_rows, pretrained.tokenizer)
    for name, data in (("train", train), ("dev", dev)):
        if data.has_two_segments and not pretrained.config.shape.reads_pairs:
            raise ValueError(
                f"{config.model} has one token type, but rows of --{name} have two texts: use another model"
            )
    digests = {"model": pretrained.digest(), "train": file_sha256(config.train), "dev": file_sha256(config.dev)}
    job = FinetuneJob(
        config=config,
        ranks=ranks,
        precision=precision,
        task=task,
        pretrained=pretrained,
        dev=dev,
        dev_rows=dev_rows,
        train=replace(train, weights=target_weights(config, task, train)),
        bad_train=bad_train,
        bad_dev=bad_dev,
        settings=config.settings() | {"max_seq_length": windowing.max_seq_length} | digests,
    )
    return replace(job, settings=job.settings | {"learning_rate": job.learning_rate})


def task_flags(config: FinetuneConfig, pretrained: Pretrained) -> dict[str, Any]:
    """Return the values of the task's flags: as given, or else the pooling of a model that was trained for vectors."""
    vectors = pretrained.vectors if task_class(config.task).trains_vectors else None
    return ({"pooling": vectors.pooling} if vectors else {}) | config.task_flags()


def check_folders(config: FinetuneConfig) -> None:
    """Raise ValueError if the run folder belongs to something else."""
    if config.out.resolve() == config.model.resolve():
        raise ValueError(f"{config.out} is the model itself: give a new folder as --out")
    path = config.out / "config.toml"
    if path.exists() and "task" not in read_toml(path):
        raise ValueError(f"{config.out} is a run of another command: give a new folder as --out")
    other = config.out / "metrics.jsonl" if len(config.seeds) > 1 else next(config.out.glob("seed-*"), None)
    if other and other.exists():
        number = "one seed" if len(config.seeds) > 1 else "several seeds"
        raise ValueError(
            f"{config.out} holds {other.name}, because it was started with {number}: give {number} again, or a new --out"
        )


def check_model(config: FinetuneConfig, pretrained: Pretrained, windowing: Windowing) -> None:
    """Raise ValueError if the model does not fit the task or the settings."""
    shape = pretrained.config.shape
    if windowing.max_seq_length > shape.max_position_embeddings:
        raise ValueError(
            f"max_seq_length={windowing.max_seq_length} is more than {config.model} has positions: "
            f"give at most {shape.max_position_embeddings}"
        )
    room = windowing.max_seq_length - 2  # [CLS] and [SEP]
    if windowing.stride is not None and windowing.stride > room:
        raise ValueError(
            f"stride={windowing.stride} is above the {room} tokens of text in a window, so text between windows would be "
            f"skipped: give a smaller stride or a larger max_seq_length"
        )
    if not shape.reads_pairs and task_class(config.task).has_two_segments:
        raise ValueError(f"{config.model} has one token type, but {config.task} reads two segments: use another model")
    if config.frozen_layers > shape.num_hidden_layers:
        raise ValueError(
            f"frozen_layers={config.frozen_layers}, but {config.model} has {shape.num_hidden_layers} layers"
        )


def target_weights(config: FinetuneConfig, task: Task[Any], train: TaskData) -> np.ndarray:
    """Return the weight of each target in the loss, float32."""
    if not config.class_weights:
        return train.weights
    given = config.weights_by_label()
    if unknown := set(given) - set(task.labels):
        raise ValueError(f"class_weights: {min(unknown)!r} is not a label: expected one of {', '.join(task.labels)}")
    return task.weigh_targets(train, given)


def print_start(job: FinetuneJob) -> None:
    """Print what will be trained, and on what data."""
    config = job.config
    print(f"model: {job.pretrained.path}, a {job.pretrained.architecture}")
    for name, data, bad in (("train", job.train, job.bad_train), ("dev", job.dev, job.bad_dev)):
        num_rows = int(data.row_of[-1]) + 1
        words = [
            counted(num_rows, "row"),
            counted(len(data.starts) - 1, "sequence"),
            counted(len(data.input_ids), "token"),
        ]
        words += [f"{counted(data.num_cut, 'row')} truncated"] if data.num_cut else []
        words += [f"{len(bad):,} bad rows skipped, see {config.out / 'bad_rows.jsonl'}"] if bad else []
        print(f"{name}: {', '.join(words)}")
    if job.task.has_classes:
        counts = job.task.count_targets(job.train)
        named = ", ".join(f"{label} {count:,}" for label, count in list(zip(job.task.labels, counts))[:12])
        print(f"{len(counts)} labels: {named}{', …' if len(counts) > 12 else ''}")
        if rare := [label for label, count in zip(job.task.labels, counts) if count == 1]:
            print(f"labels that occur only once, perhaps by mistake: {', '.join(rare[:12])}")
    for remark in job.task.remarks(job.train):
        print(remark)
    width = job.pretrained.config.shape.hidden_size
    chosen = f", chosen for a width of {width}" if config.learning_rate == "auto" else ""
    print(f"peak learning rate {job.learning_rate:.2g}{chosen}")
    print(
        f"{counted(job.num_steps, 'step')} of {config.batch_size} items; {job.metric} chooses the best model",
        flush=True,
    )


def summarize(job: FinetuneJob, results: list[SeedResult]) -> FinetuneResult:
    """Return the result of all seeds. For several seeds, write results.json and copy the best model."""
    from jobs.support.finetuning import describe_metrics

    out, is_first = job.config.out, job.ranks.is_first
    best = max(results, key=lambda result: result.metrics[job.metric])
    names = list(results[0].metrics)
    mean = {name: statistics.fmean(result.metrics[name] for result in results) for name in names}
    deviation = {}
    if len(results) > 1:
        deviation = {name: statistics.stdev(result.metrics[name] for result in results) for name in names}
        content = {
            "mean": mean,
            "deviation": deviation,
            "best_seed": best.seed,
            "seeds": {str(result.seed): result.metrics for result in results},
        }
        path = out / "results.json"
        if is_first and (not path.exists() or read_json(path) != content):
            with whole_folder(out / "model", replace=True) as temporary:
                shutil.copytree(best.out / "model", temporary, dirs_exist_ok=True)
            write_text(path, json.dumps(content, indent=2) + "\n")
        spread = ", ".join(f"{name} {mean[name]:.4f} ± {deviation[name]:.4f}" for name in names if name != "loss")
        if is_first:
            print(f"{counted(len(results), 'seed')}: {spread}")
    if is_first:
        where = f"at step {best.best_step:,} of seed {best.seed}; the model is {out / 'model'}"
        print(f"{describe_metrics(best.metrics)} {where}")
    return FinetuneResult(out=out, seeds=results, mean=mean, deviation=deviation)

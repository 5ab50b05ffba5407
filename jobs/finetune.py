"""Trains a pretrained BERT for a task, from a file of labelled rows.

    bertloom finetune --task classify --model RUN --train train.jsonl --dev dev.jsonl --out TUNED
    bertloom finetune --task span --model DIRECTORY --train train.json --dev dev.json --out TUNED --seeds 1 2 3

The model is a run of `bertloom pretrain` or a directory in transformers' form. Writes

    TUNED/config.toml      all that was chosen; can be given back as a preset
    TUNED/metrics.jsonl    a line a step, and one a measurement on the dev rows
    TUNED/results.json     when it is finished: what was measured, and after which step
    TUNED/model/           the best model, as `bertloom predict` and transformers read it
    TUNED/bad_rows.jsonl   rows that were left out, and why
    TUNED/checkpoints/     to go on from; removed when it is finished

With several seeds, each has such a folder, TUNED/seed-1, and TUNED holds the mean, the deviation, and the best model.

Started again with the same flags, it goes on from the last checkpoint, and on a CPU with the same number of threads gets
the numbers, bit for bit, that it would have got without the stop. Exit status as of `bertloom pretrain`.
"""

import hashlib
import json
import os
import shutil
import statistics
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see jobs/pretrain.py; read when torch is loaded

import numpy as np
import torch

from bertloom.whole_files import whole_folder, write_text
from jobs.support.config import parse
from jobs.support.finetune_config import FinetuneConfig, pairs
from jobs.support.finetune_run import Job, SeedResult, describe, train_seed
from model.hub.pretrained import Pretrained, open_pretrained
from model.loading.data import read_json
from model.runs.folder import only_trainer, stop_signals
from model.tasks.data import Reading, TaskData
from model.tasks.registry import make_task
from model.tasks.rows import read_task
from model.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """How a command ended."""

    out: Path
    """The run folder."""
    seeds: list[SeedResult]
    """The finished runs."""
    mean: dict[str, float]
    """Of each metric over the seeds; empty if a signal ended the command."""
    deviation: dict[str, float]
    """The standard deviation of each metric over the seeds; empty for fewer than two."""
    signal_number: int = 0
    """The signal that ended it early, or 0."""

    @property
    def exit_status(self) -> int:
        """0, or 128 + the signal's number."""
        return 128 + self.signal_number if self.signal_number else 0


def main(argv: Sequence[str]) -> int:
    """The exit status of `bertloom finetune` with these words."""
    return finetune(parse(FinetuneConfig, argv, prog="bertloom finetune")).exit_status


def finetune(config: FinetuneConfig) -> FinetuneResult:
    """Trains, or goes on training, for all seeds or until a signal; see the top of this file."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("finetune runs in one process, on one device: start it without torchrun")
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    check_folders(config)
    job = prepare(config)
    with only_trainer(config.out), stop_signals() as signals:
        print_start(job)
        results: list[SeedResult] = []
        for seed in config.seeds:
            out = config.out if len(config.seeds) == 1 else config.out / f"seed-{seed}"
            result = train_seed(job, seed, out, signals)
            if result is None:
                return FinetuneResult(out=config.out, seeds=results, mean={}, deviation={}, signal_number=signals[0])
            results.append(result)
        return summarize(job, results)


def prepare(config: FinetuneConfig) -> Job:
    """Model, task and data of a command; ValueError where they do not fit together."""
    pretrained = open_pretrained(config.model)
    reading = Reading(
        max_seq_length=config.max_seq_length or pretrained.max_seq_length,
        stride=config.stride,
        max_windows=config.max_windows,
    )
    check_model(config, pretrained, reading)
    task = make_task(config.task, reading, config.labels)
    columns = pairs("columns", config.columns)
    train_rows, bad_train = read_task(config.train, task.forms(True), task.parse, columns, config.on_bad_row)
    if config.task == "regress" and train_rows[0].second is not None:
        config.check_windows()
    task = task.learn(train_rows)
    if task.has_classes and len(task.labels) < 2:
        raise ValueError(
            f"{config.train}: all {len(train_rows):,} rows have the label {task.labels[0]!r}: nothing to learn"
        )
    if config.metric is not None and config.metric not in task.metrics:
        raise ValueError(f"metric={config.metric!r} is none of {config.task}'s: expected {', '.join(task.metrics)}")
    dev_rows, bad_dev = read_task(config.dev, task.forms(True), task.parse, columns, config.on_bad_row)
    train = task.tokenize(train_rows, pretrained.tokenizer)
    dev = task.tokenize(dev_rows, pretrained.tokenizer)
    files = {"model": pretrained.digest(), "train": digest(config.train), "dev": digest(config.dev)}
    return Job(
        config=config,
        task=task,
        pretrained=pretrained,
        dev=dev,
        dev_rows=dev_rows,
        train=replace(train, weights=target_weights(config, task, train)),
        bad_train=bad_train,
        bad_dev=bad_dev,
        deciding=config.deciding() | {"max_seq_length": reading.max_seq_length} | files,
    )


def check_folders(config: FinetuneConfig) -> None:
    """Raises ValueError if the run folder is that of something else."""
    if config.out.resolve() == config.model.resolve():
        raise ValueError(f"{config.out} is the model itself: give a new folder as --out")
    path = config.out / "config.toml"
    if path.exists() and "task" not in tomllib.loads(path.read_text(encoding="utf-8")):
        raise ValueError(f"{config.out} is a run of another command: give a new folder as --out")
    of_others = config.out / "metrics.jsonl" if len(config.seeds) > 1 else next(config.out.glob("seed-*"), None)
    if of_others and of_others.exists():
        raise ValueError(
            f"{config.out} holds {of_others.name}, and was begun with {'one seed' if len(config.seeds) > 1 else 'several'}: "
            f"give that again, or a new folder as --out"
        )


def check_model(config: FinetuneConfig, pretrained: Pretrained, reading: Reading) -> None:
    """Raises ValueError if the model cannot do what is asked of it."""
    shape = pretrained.config.shape
    if reading.max_seq_length > shape.max_position_embeddings:
        raise ValueError(
            f"max_seq_length={reading.max_seq_length} is above the {shape.max_position_embeddings} positions of "
            f"{config.model}: give at most these"
        )
    room = reading.max_seq_length - 2  # [CLS] and [SEP]
    if reading.stride is not None and reading.stride > room:
        raise ValueError(
            f"stride={reading.stride} is above the {room} tokens of text that a window has room for: what lies between two "
            f"windows would not be read; give a smaller stride or a larger max_seq_length"
        )
    if shape.type_vocab_size < 2 and config.task in ("pair", "span"):
        raise ValueError(
            f"{config.model} knows one token type, and {config.task} reads two segments: take another model"
        )
    if config.frozen_layers > shape.num_hidden_layers:
        raise ValueError(
            f"frozen_layers={config.frozen_layers}, but {config.model} has {shape.num_hidden_layers} layers"
        )


def target_weights(config: FinetuneConfig, task: Task, train: TaskData) -> np.ndarray:
    """How much each target counts in the loss, float32."""
    if not config.class_weights:
        return train.weights
    counts = np.bincount(train.labels, minlength=len(task.labels))
    given = config.weights_by_label()
    if unknown := set(given) - set(task.labels):
        raise ValueError(f"class_weights: {min(unknown)!r} is none of the labels: {', '.join(task.labels)}")
    table = [given.get(label, 1.0) for label in task.labels]
    if not given:  # balanced, as scikit-learn does it
        table = [len(train.labels) / (len(task.labels) * max(int(count), 1)) for count in counts]
    return np.array(table, dtype=np.float32)[train.labels]


def print_start(job: Job) -> None:
    """Says what is about to be trained on what."""
    config = job.config
    print(f"model: {job.pretrained.path}, a {job.pretrained.architecture}")
    for name, data, bad in (("train", job.train, job.bad_train), ("dev", job.dev, job.bad_dev)):
        num_rows = int(data.row_of[-1]) + 1
        words = [f"{num_rows:,} rows", f"{len(data.starts) - 1:,} sequences", f"{len(data.input_ids):,} tokens"]
        words += [f"{data.num_cut:,} rows not read whole"] if data.num_cut else []
        words += [f"{len(bad):,} bad rows left out, see {config.out / 'bad_rows.jsonl'}"] if bad else []
        print(f"{name}: {', '.join(words)}")
    if job.task.has_classes:
        counts = np.bincount(job.train.labels, minlength=len(job.task.labels))
        named = ", ".join(f"{label} {count:,}" for label, count in list(zip(job.task.labels, counts))[:12])
        print(f"{len(counts)} labels: {named}{', …' if len(counts) > 12 else ''}")
        if rare := [label for label, count in zip(job.task.labels, counts) if count == 1]:
            print(f"labels that occur once, is it a slip? {', '.join(rare[:12])}")
    print(f"{job.num_steps:,} steps of {config.batch_size}; the best model by {job.metric}", flush=True)


def summarize(job: Job, results: list[SeedResult]) -> FinetuneResult:
    """What the seeds have given together; of several, written down, and the best model copied."""
    out = job.config.out
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
        if not path.exists() or read_json(path) != content:
            with whole_folder(out / "model", replace=True) as temporary:
                shutil.copytree(best.out / "model", temporary, dirs_exist_ok=True)
            write_text(path, json.dumps(content, indent=2) + "\n")
        spread = ", ".join(f"{name} {mean[name]:.4f} ± {deviation[name]:.4f}" for name in names if name != "loss")
        print(f"{len(results)} seeds: {spread}")
    print(f"{describe(best.metrics)} at step {best.best_step:,} of seed {best.seed}; the model is {out / 'model'}")
    return FinetuneResult(out=out, seeds=results, mean=mean, deviation=deviation)


def digest(path: Path) -> str:
    """sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

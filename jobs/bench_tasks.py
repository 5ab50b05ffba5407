"""Fine-tunes one or several models on the tasks of a file, and prints one table, next to what needs no model.

    bertloom bench-tasks tasks.toml --model RUN --model random --out BENCH
    bertloom bench-tasks tasks.toml --model small=RUN --model theirs=bert-base-uncased --out BENCH

`random` is the first of the other models with all its weights drawn anew: what pretraining was worth. The file has a table
for each task, with what `bertloom finetune` takes; what stands above the tables is for all of them:

    num_epochs = 3
    seeds = [1, 2, 3]

    [banking]
    task = "classify"
    train = "banking/train.jsonl"
    dev = "banking/dev.jsonl"

Paths are relative to the file. Writes BENCH/MODEL/TASK, run folders of `bertloom finetune`, and in the end
BENCH/results.json and BENCH/results.md. Started again, it does what is not done yet.
"""

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bertloom.whole_files import write_text
from jobs.support.config import checked_table, parse
from jobs.support.finetune_config import FinetuneConfig, pairs

RANDOM = "random"
NOT_IN_FILE = ("model", "out", "random_weights")


@dataclass(frozen=True, kw_only=True)
class BenchTasksConfig:
    """Fine-tunes models on the tasks of a file, and prints one table."""

    tasks: Annotated[Path, tyro.conf.Positional]
    """The file of tasks, TOML."""
    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """A run, or a directory in transformers' form, as PATH or NAME=PATH; or random. Can be given several times."""
    out: Path
    """The folder for all runs and the table: a new one, or one to go on with."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What was measured on a task."""

    name: str
    """Of the task, in the file."""
    metric: str
    """The one that the table shows."""
    num_rows: int
    """Dev rows."""
    mean: dict[str, dict[str, float]]
    """By baseline or model, by metric, over the seeds."""
    deviation: dict[str, dict[str, float]]
    """The same of several seeds."""


def main(argv: Sequence[str]) -> int:
    """The exit status of `bertloom bench-tasks` with these words."""
    config = parse(BenchTasksConfig, argv, prog="bertloom bench-tasks")
    models = read_models(config.model)
    results = []
    for result in bench_tasks(config):
        if isinstance(result, int):
            return 128 + result
        results.append(result)
    table = as_table(results, list(models))
    write_text(config.out / "results.json", json.dumps({r.name: vars(r) for r in results}, indent=2) + "\n")
    write_text(config.out / "results.md", table)
    print(f"\n{table}\nwritten to {config.out / 'results.md'} and results.json")
    return 0


def bench_tasks(config: BenchTasksConfig) -> Iterator[TaskResult | int]:
    """What was measured on each task; or a signal's number as the last, if one came."""
    from jobs.finetune import finetune, prepare

    models = read_models(config.model)
    tasks = read_tasks(config.tasks)
    jobs = {
        (task, model): FinetuneConfig(
            **values, model=path, random_weights=model == RANDOM, out=config.out / model / task
        )
        for task, values in tasks.items()
        for model, path in models.items()
    }
    for job in jobs.values():  # what is wrong with the last task should not show after hours
        prepare(job)
    for task in tasks:
        first, num_rows, mean = measure_baselines(jobs[task, next(iter(models))])
        deviation = {}
        for model in models:
            print(f"\n── {task}, {model}", flush=True)
            result = finetune(jobs[task, model])
            if result.signal_number:
                yield result.signal_number
                return
            mean[model], deviation[model] = result.mean, result.deviation
        yield TaskResult(name=task, metric=first, num_rows=num_rows, mean=mean, deviation=deviation)


def read_models(words: Sequence[str]) -> dict[str, Path]:
    """The models by name; ValueError if two have one name, or all are random."""
    from model.tasks.baselines import BASELINES

    models: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.rpartition("=")
        name = name if equals else Path(path).resolve().name if path != RANDOM else RANDOM
        if name in models or name in BASELINES or (equals and name == RANDOM) or not name or "/" in name:
            raise ValueError(f"model={word}: the name {name!r} cannot be taken, or is taken: give it as NAME=PATH")
        models[name] = Path(path)
    others = [path for name, path in models.items() if name != RANDOM]
    if not others:
        raise ValueError("random is the architecture of another model with new weights: give one --model more")
    return {name: others[0] if name == RANDOM else path for name, path in models.items()}


def read_tasks(path: Path) -> dict[str, dict[str, Any]]:
    """The tasks of a file by name, each with the fields of a FinetuneConfig that it sets."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from None
    common = {key: value for key, value in content.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    if not tables:
        raise ValueError(f"{path} has no task: expected a table for each, [name] with task, train and dev")
    tasks = {}
    for name, table in tables.items():
        values = common | table
        if "/" in name or name.startswith("."):
            raise ValueError(f"{path}: [{name}] names a folder too: take letters, digits and _")
        for key in NOT_IN_FILE:
            if key in values:
                raise ValueError(f"{path}: [{name}] {key}: the command gives that, take it out")
        for key in ("task", "train", "dev"):
            if key not in values:
                raise ValueError(f"{path}: [{name}] has no {key}")
        tasks[name] = checked_table(FinetuneConfig, values, str(path), f"{name}.")
        tasks[name] |= {key: path.parent / tasks[name][key] for key in ("train", "dev")}
    return tasks


def measure_baselines(config: FinetuneConfig) -> tuple[str, int, dict[str, dict[str, float]]]:
    """The first metric of a task, the number of its dev rows, and the metrics of each baseline."""
    import numpy as np

    from jobs.finetune import prepare
    from model.tasks.baselines import BASELINES
    from model.tasks.rows import read_task

    job = prepare(config)
    columns = pairs("columns", config.columns)
    rows, _ = read_task(config.train, job.task.forms(True), job.task.parse, columns, config.on_bad_row)
    measured = {}
    for name in job.task.baselines:
        found = BASELINES[name](rows, job.train.labels, job.dev_rows, len(job.dev.labels))
        logits = np.eye(job.task.num_outputs)[found] if job.task.has_classes else found[:, None]
        measured[name] = job.task.measure(job.dev_rows, job.dev, logits)
    return job.metric, len(job.dev_rows), measured


def as_table(results: Sequence[TaskResult], models: Sequence[str]) -> str:
    """The first metric of each task as a table in Markdown, the best of each line in bold."""
    from model.tasks.baselines import BASELINES

    columns = [name for name in BASELINES if any(name in result.mean for result in results)] + list(models)
    lines = [["task", "dev rows", "metric", *columns], ["---"] * (3 + len(columns))]
    for result in results:
        values = {name: metrics[result.metric] for name, metrics in result.mean.items()}
        cells = {}
        for name, value in values.items():
            spread = result.deviation.get(name, {}).get(result.metric)
            text = f"{value:.3f}" + (f" ± {spread:.3f}" if spread is not None else "")
            cells[name] = f"**{text}**" if value == max(values.values()) else text
        found = [cells.get(name, "–") for name in columns]
        lines.append([result.name, f"{result.num_rows:,}", result.metric, *found])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

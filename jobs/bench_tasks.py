"""Fine-tune one or more models on the tasks of a file, and print a table that compares them with simple baselines.

    bertloom bench-tasks tasks.toml --model RUN --model random --out BENCH
    bertloom bench-tasks tasks.toml --model small=RUN --model theirs=bert-base-uncased --out BENCH

`random` is the first of the other models with random weights, which shows the benefit of pretraining. The file has a
table for each task, with the options of `bertloom finetune`. Options above the tables apply to all tasks:

    num_epochs = 3
    seeds = [1, 2, 3]

    [banking]
    task = "classify"
    train = "banking/train.jsonl"
    dev = "banking/dev.jsonl"

Paths are relative to the file. Writes BENCH/MODEL/TASK, run folders of `bertloom finetune`, and at the end
BENCH/results.json and BENCH/results.md. The same command resumes a stopped one.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bertloom.json_files import read_toml
from bertloom.whole_files import write_text
from jobs.support.config import checked_table, parse
from jobs.support.finetune_config import FinetuneConfig, pairs
from jobs.support.messages import errors_of
from jobs.support.outputs import own_folder

RANDOM = "random"
NOT_IN_FILE = ("model", "out", "random_weights")


@dataclass(frozen=True, kw_only=True)
class BenchTasksConfig:
    """Compare models with each other and with simple baselines on several tasks."""

    tasks: Annotated[Path, tyro.conf.Positional]
    """TOML file of the tasks."""
    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """Run folder, or directory in transformers' form, as PATH or NAME=PATH; or random. Give it once for each model."""
    out: Path
    """Folder for all runs and the table: a new one, or one to resume."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """The results on a task."""

    name: str
    """Name of the task in the file."""
    metric: str
    """Metric in the table."""
    num_rows: int
    """Number of dev rows."""
    mean: dict[str, dict[str, float]]
    """Mean over the seeds of each metric, by baseline or model."""
    deviation: dict[str, dict[str, float]]
    """Standard deviation over the seeds, likewise."""


def main(argv: Sequence[str]) -> int:
    """Run `bertloom bench-tasks` and return its exit status."""
    config = parse(BenchTasksConfig, argv, prog="bertloom bench-tasks")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("bench-tasks runs in one process, on one device: start it without torchrun")
    models = read_models(config.model)
    own_folder(config.out, "bench-tasks")
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
    """Yield the results on each task; after a signal, yield its number and stop."""
    from jobs.finetune import finetune

    models, jobs = read_models(config.model), check_tasks(config)
    for task in dict.fromkeys(task for task, _ in jobs):
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


def check_tasks(config: BenchTasksConfig) -> dict[tuple[str, str], FinetuneConfig]:
    """Return the configuration of each task and model; ValueError for an error in any of them, before hours of work."""
    from jobs.finetune import prepare

    models = read_models(config.model)
    jobs = {
        (task, model): FinetuneConfig(
            **values, model=path, random_weights=model == RANDOM, out=config.out / model / task
        )
        for task, values in read_tasks(config.tasks).items()
        for model, path in models.items()
    }
    for (task, _), job in jobs.items():
        with errors_of(f"{config.tasks}: [{task}]"):
            prepare(job)
    return jobs


def read_models(words: Sequence[str]) -> dict[str, Path]:
    """Return the models by name; ValueError if two have the same name, or all are random."""
    from model.tasks.baselines import BASELINES

    models: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.rpartition("=")
        name = name if equals else Path(path).resolve().name if path != RANDOM else RANDOM
        if name in models or name in BASELINES or (equals and name == RANDOM) or not name or "/" in name:
            raise ValueError(f"model={word}: the name {name!r} is reserved, used twice or not a name: give NAME=PATH")
        models[name] = Path(path)
    others = [path for name, path in models.items() if name != RANDOM]
    if not others:
        raise ValueError("random is another model with random weights: give that model, too, with a second --model")
    return {name: others[0] if name == RANDOM else path for name, path in models.items()}


def read_tasks(path: Path) -> dict[str, dict[str, Any]]:
    """Return the tasks of a file by name, each with the fields of FinetuneConfig that it sets."""
    content = read_toml(path)
    common = {key: value for key, value in content.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    if not tables:
        raise ValueError(f"{path} has no task: expected a table [NAME] with task, train and dev for each")
    tasks = {}
    for name, table in tables.items():
        values = common | table
        if "/" in name or name.startswith("."):
            raise ValueError(f"{path}: [{name}] is also the name of a folder: use letters, digits and _")
        for key in NOT_IN_FILE:
            if key in values:
                raise ValueError(f"{path}: [{name}] {key} is set by the command: remove it")
        for key in ("task", "train", "dev"):
            if key not in values:
                raise ValueError(f"{path}: [{name}] has no {key}: add it")
        tasks[name] = checked_table(FinetuneConfig, values, str(path), f"{name}.")
        tasks[name] |= {key: path.parent / tasks[name][key] for key in ("train", "dev")}
    return tasks


def measure_baselines(config: FinetuneConfig) -> tuple[str, int, dict[str, dict[str, float]]]:
    """Return a task's first metric, the number of its dev rows, and the metrics of each baseline."""
    from jobs.finetune import prepare
    from model.tasks.baselines import BASELINES
    from model.tasks.rows import read_task

    job = prepare(config)
    columns = pairs("columns", config.columns)
    rows, _ = read_task(config.train, job.task.forms(True), job.task.parse, columns, config.on_bad_row)
    measured = {}
    for name in job.task.baselines:
        found = BASELINES[name](rows, job.train.labels, job.dev_rows, len(job.dev.labels))
        logits = job.task.logits_of(found, job.dev)
        measured[name] = job.task.calibrate(job.dev, logits).measure(job.dev_rows, job.dev, logits)
    return job.metric, len(job.dev_rows), measured


def as_table(results: Sequence[TaskResult], models: Sequence[str]) -> str:
    """Return the first metric of each task as a Markdown table, with the best of each line in bold."""
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

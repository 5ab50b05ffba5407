"""Compare models on a held-out text and on tasks, and print a table and a verdict.

    bertloom compare bert-base-uncased RUN --text held-out.jsonl --out COMPARED
    bertloom compare before=MODEL after=RUN --text 'held-out/*.txt' --tasks tasks.toml --out COMPARED

A model is a run, a checkpoint, or a directory in transformers' form. The others are compared with the first
one. Models may have different tokenizers: the same words of the text are masked for all, and the loss is per byte of them.
`--tasks` is a file of `bertloom bench-tasks`. docs/hugging-face.md explains the numbers. Writes

    COMPARED/results.md     the verdict, the table and notes
    COMPARED/results.json   all values
    COMPARED/words/         the losses of each model's tokens, for a restart
    COMPARED/tasks/         the runs of `bertloom finetune`, as in bench-tasks

The same command continues a stopped one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bertloom.counts import counted
from bertloom.whole_files import write_text
from jobs.bench_tasks import RANDOM, BenchTasksConfig, bench_tasks, check_tasks, read_models, read_tasks
from jobs.support.config import parse
from jobs.support.outputs import own_folder
from pipeline.inputs.sources import ReadConfig

if TYPE_CHECKING:
    from jobs.support.comparison import ComparedModel, TextLoss
    from jobs.support.held_out import HeldOut, Window
    from jobs.support.verdict import Comparison, Difference, TaskScores

SHORTEST = 16
"""Least number of tokens of a window: a word needs words around it."""
LONGEST = 512
"""Number of tokens of a window by default, if all models read more."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare models on a held-out text and on tasks."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(help_behavior_hint="(required)")]
    """At least two models, each as PATH or NAME=PATH: a run, a checkpoint, or a directory in transformers' form. The others
    are compared with the first."""
    text: tuple[str, ...]
    """Text that no model was trained on: files, folders, quoted globs or @LIST, in any format of `preprocess`."""
    out: Path
    """Folder for the results: a new one, or one to continue."""
    tasks: Path | None = None
    """TOML file of tasks, as for `bertloom bench-tasks`."""
    max_seq_length: int | None = None
    """Length of the windows over the text, in tokens. The default is the shortest length that one of the models was trained
    on, and at most 512."""
    max_bytes: int = 200_000
    """Bytes of the text to use. A hash decides which passages of a longer text are used. 200,000 bytes of English have about
    6,000 masked words and take a BERT of base size some ten minutes on a CPU."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1, … auto is cuda if available, otherwise cpu. For tasks, their file decides."""
    num_threads: int | None = None
    """CPU threads. The default is torch's choice. For tasks, their file decides."""
    read: Annotated[ReadConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadConfig)

    def __post_init__(self) -> None:
        if len(self.models) < 2:
            raise ValueError(f"{counted(len(self.models), 'model')}: give at least two")
        if any(word.rpartition("=")[2] == RANDOM for word in self.models):
            raise ValueError("random is a model of bench-tasks alone: random weights predict no text")
        if not self.text:
            raise ValueError("text is empty: give files of text that no model was trained on")
        if self.max_seq_length is not None and self.max_seq_length < SHORTEST:
            raise ValueError(f"max_seq_length={self.max_seq_length} must be at least {SHORTEST}")
        for name in ("max_bytes", "num_threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


def main(argv: Sequence[str]) -> int:
    """Run `bertloom compare` and return its exit status."""
    config = parse(CompareConfig, argv, prog="bertloom compare")
    found = compare(config)
    if isinstance(found, int):
        return 128 + found
    print(f"\n{found.page()}\nwritten to {config.out / 'results.md'} and results.json")
    return 0


def compare(config: CompareConfig) -> Comparison | int:
    """Measure, write and return the comparison, or the number of a signal that stopped it.

    Raises:
        ValueError: a model, the text or a task cannot be used; before anything is measured.
    """
    import torch

    from jobs.support.held_out import cut_windows, read_held_out
    from jobs.support.verdict import Comparison

    models = open_models(config)
    length = window_length(config, models)
    bench = None if config.tasks is None else bench_config(config, config.tasks)
    if bench:
        check_tasks(bench)
    held = read_held_out(config.text, config.read, length, config.max_bytes)
    windows, num_long = cut_windows(held.passages, [model.tokenizer for model in models], length)
    if not any(window.is_masked.any() for window in windows):
        raise ValueError(
            f"--text {' '.join(config.text)} has {sum(len(p.text.encode()) for p in held.passages):,} bytes, and none of "
            f"its words is masked: give more text"
        )
    own_folder(config.out, "compare")
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    text = describe_text(held, windows, num_long, length)
    values, differences, notes = measure(config, models, windows)
    tasks = measure_tasks(bench) if bench else []
    if isinstance(tasks, int):
        return tasks
    notes = [text_note(text), *held.notes, *notes]
    found = Comparison(text=text, models=values, differences=differences, tasks=tasks, notes=notes)
    write_text(config.out / "results.json", json.dumps(found.as_json(), indent=2, ensure_ascii=False) + "\n")
    write_text(config.out / "results.md", found.page())
    return found


def open_models(config: CompareConfig) -> list[ComparedModel]:
    """Open the models; ValueError if two are the same."""
    from jobs.support.comparison import is_same, look_at

    models: list[ComparedModel] = []
    for name, path in read_models(config.models).items():
        model = look_at(name, path)
        if twin := next((other for other in models if is_same(other, model)), None):
            raise ValueError(
                f"{name} and {twin.name} are the same model, with the same weights: give models that differ"
            )
        models.append(model)
    return models


def window_length(config: CompareConfig, models: Sequence[ComparedModel]) -> int:
    """Return the tokens of a window; ValueError if a model cannot read that many."""
    shortest = min(models, key=lambda model: model.max_seq_length)
    if config.max_seq_length is None:
        return min(shortest.max_seq_length, LONGEST)
    if config.max_seq_length > shortest.max_seq_length:
        raise ValueError(
            f"max_seq_length={config.max_seq_length} is above the {shortest.max_seq_length} tokens that {shortest.name} was "
            f"trained on: give at most {shortest.max_seq_length}"
        )
    return config.max_seq_length


def bench_config(config: CompareConfig, tasks: Path) -> BenchTasksConfig:
    """Return the configuration of the part that bench-tasks does."""
    return BenchTasksConfig(tasks=tasks, model=config.models, out=config.out / "tasks")


# ---- text


def describe_text(held: HeldOut, windows: Sequence[Window], num_long: int, length: int) -> dict[str, Any]:
    """Return what was read of the text."""
    from jobs.support.comparison import words_of_masks

    sizes, documents, _ = words_of_masks(windows)
    return {
        "num_documents": held.num_documents,
        "num_bytes": held.num_bytes,
        "not_used": dict(held.not_used),
        "used_bytes": sum(len(passage.text.encode()) for passage in held.passages),
        "used_documents": int(documents.max()) + 1,
        "max_seq_length": length,
        "num_windows": len(windows),
        "num_words": sum(len(window.units) for window in windows),
        "num_words_too_long": num_long,
        "masked_words": len(sizes),
        "masked_bytes": int(sizes.sum()),
    }


def text_note(text: dict[str, Any]) -> str:
    """Return a sentence about the text."""
    rejects = "".join(f", {number:,} records {reason}" for reason, number in sorted(text["not_used"].items()))
    long = counted(text["num_words_too_long"], "word")
    return (
        f"The text: {counted(text['num_documents'], 'document')}, {text['num_bytes'] / 1e6:,.2f} MB{rejects}. Used: "
        f"{text['used_bytes'] / 1e6:,.2f} MB of {counted(text['used_documents'], 'document')}, in "
        f"{counted(text['num_windows'], 'window')} of up to {text['max_seq_length']} tokens. "
        f"{counted(text['masked_words'], 'word')} of {text['num_words']:,} were masked, {text['masked_bytes']:,} bytes; "
        f"{long} did not fit in a window."
    )


def measure(
    config: CompareConfig, models: Sequence[ComparedModel], windows: Sequence[Window]
) -> tuple[dict[str, dict[str, Any]], dict[str, Difference], list[str]]:
    """Return (the values of each model, differences of the losses, notes)."""
    from jobs.support.comparison import measure_speed, text_loss, token_losses, words_of_masks

    sizes, _, _ = words_of_masks(windows)
    losses: dict[str, TextLoss] = {}
    notes = []
    for number, model in enumerate(models):
        if model.why_no_loss:
            notes.append(f"{model.name} has no loss: it is {model.why_no_loss}.")
            continue
        tokens = token_losses(model, number, windows, config.out / "words" / f"{model.name}.json", config.device)
        losses[model.name] = text_loss(model, number, windows, tokens)
    rates = measure_speed(models, windows, config.out / "speed.json", config.device)
    values = {}
    for number, (model, rate) in enumerate(zip(models, rates)):
        ids = [window.tokens[number].ids for window in windows]
        num_tokens, num_words = sum(map(len, ids)), sum(len(window.units) for window in windows)
        values[model.name] = {
            "path": str(model.path),
            **per_byte(losses.get(model.name), int(sizes.sum())),
            "tokens_per_word": num_tokens / num_words,
            "unknown_share": sum(int((part == model.tokenizer.unk_id).sum()) for part in ids) / num_tokens,
            "parameters": model.num_parameters,
            "weights_bytes": model.num_bytes,
            **rate,
        }
    differences, more = compare_losses(models[0].name, losses, windows)
    return values, differences, notes + more


def per_byte(loss: TextLoss | None, num_bytes: int) -> dict[str, Any]:
    """Return a loss in bits and nats per byte of the masked words, and its parts in bits."""
    if loss is None:
        return {"bits_per_byte": None, "nats_per_byte": None, "parts_bits_per_byte": None}
    nats = {name: float(getattr(loss, name).sum()) / num_bytes for name in ("tokens", "counts", "spelling")}
    total = sum(nats.values())
    parts = {name: value / math.log(2) for name, value in nats.items()}
    return {"bits_per_byte": total / math.log(2), "nats_per_byte": total, "parts_bits_per_byte": parts}


def compare_losses(
    first: str, losses: dict[str, TextLoss], windows: Sequence[Window]
) -> tuple[dict[str, Difference], list[str]]:
    """Return (differences to the first model in bits per byte, notes)."""
    from jobs.support.comparison import LEAST_DOCUMENTS, deviation_of_mean, words_of_masks
    from jobs.support.verdict import SURE, Difference

    if first not in losses or len(losses) < 2:
        return {}, []
    sizes, groups, numbers = words_of_masks(windows)
    notes, num_documents = [], int(groups.max()) + 1
    if num_documents < LEAST_DOCUMENTS:
        groups = numbers
        notes.append(
            f"The text used has {counted(num_documents, 'document')}, so windows were drawn for the uncertainty: other "
            f"documents may differ more."
        )
    differences = {}
    for name, loss in losses.items():
        if name != first:
            apart = (loss.total - losses[first].total) / math.log(2)
            margin = SURE * deviation_of_mean(apart, sizes, groups) if groups.max() else None
            differences[name] = Difference(value=float(apart.sum() / sizes.sum()), margin=margin)
    return differences, notes


# ---- tasks


def measure_tasks(bench: BenchTasksConfig) -> list[TaskScores] | int:
    """Return the scores on all tasks, or the number of a signal."""
    from jobs.support.verdict import TaskScores

    seeds = {name: values.get("seeds", (1,)) for name, values in read_tasks(bench.tasks).items()}
    models = read_models(bench.model)
    tasks = []
    for result in bench_tasks(bench):
        if isinstance(result, int):
            return result
        mean = {model: result.mean[model][result.metric] for model in models}
        several = all(result.deviation[model] for model in models)
        deviation = {model: result.deviation[model][result.metric] for model in models} if several else {}
        tasks.append(
            TaskScores(
                name=result.name,
                metric=result.metric,
                num_rows=result.num_rows,
                num_seeds=len(seeds[result.name]),
                mean=mean,
                deviation=deviation,
            )
        )
    return tasks

"""How well a pretrained model does on held-out examples: its losses and accuracies on masked words and sentence pairs.

    bertloom evaluate --model RUN --data DATASET
    bertloom evaluate --model DIRECTORY --data DATASET --max-examples 2048 --json

The model is a run of `bertloom pretrain`, one of its checkpoints, what `bertloom import` wrote, or a directory in
transformers' form. Each length of the data set is evaluated by itself, on the first examples of its first copy, with the
masks that are there: the same ones every time, and those that `bertloom pretrain` evaluates on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.support.config import parse
from model.loading.cache import DEFAULT_CACHE_GB

if TYPE_CHECKING:
    from model.batch import PackedBatch
    from model.step import Evaluation


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Losses and accuracies of a pretrained model on held-out examples."""

    model: Path
    """A run folder, a checkpoint of one, or a directory in transformers' form."""
    data: str
    """The data set: a folder, or s3://…, gs://…, https://…"""
    split: Literal["validation", "train"] = "validation"
    """Which examples."""
    max_examples: int | None = None
    """Examples of each length, at most; all, if none is given. `bertloom pretrain` takes 2,048."""
    batch_size: int = 32
    """Examples in memory at once. Changes no result beyond rounding."""
    json: bool = False
    """Print one JSON object instead of a table."""
    device: str = "auto"
    """cuda, cuda:1, cpu …; auto takes cuda where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16: matrix products in 16 bits. auto takes it on CUDA."""
    num_threads: int | None = None
    """Threads of the CPU's matrix products; torch's choice if none is given."""
    cache_dir: Path | None = None
    """Of data behind a URL: the folder for what is fetched; ~/.cache/bertloom if none is given."""
    cache_gb: float = DEFAULT_CACHE_GB
    """How much of it to keep, in 10^9 bytes."""

    def __post_init__(self) -> None:
        for name in ("max_examples", "batch_size", "num_threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured."""

    model: Path
    """The folder of the weights."""
    lengths: dict[int, Evaluation]
    """By max_seq_length."""
    has_pair_head: bool
    """Whether the model can tell next sentences; if not, no pair was looked at."""
    too_long: list[int]
    """Lengths of the data set that the model has no positions for."""

    @property
    def total(self) -> Evaluation:
        """Over all lengths, each masked token and each pair counting the same."""
        from model.step import Evaluation

        parts = list(self.lengths.values())
        masked, pairs = (sum(getattr(part, name) for part in parts) for name in ("num_masked", "num_pairs"))
        means = {
            name: sum(getattr(part, name) * getattr(part, count) for part in parts) / max(total, 1)
            for count, total, names in (
                ("num_masked", masked, ("mlm_loss", "mlm_accuracy")),
                ("num_pairs", pairs, ("nsp_loss", "nsp_accuracy")),
            )
            for name in names
        }
        return Evaluation(
            num_examples=sum(part.num_examples for part in parts), num_masked=masked, num_pairs=pairs, **means
        )


def main(argv: Sequence[str]) -> None:
    config = parse(EvaluateConfig, argv, prog="bertloom evaluate")
    result = evaluate_model(config)
    print(json.dumps(as_json(config, result), indent=2) if config.json else as_table(config, result))


def evaluate_model(config: EvaluateConfig) -> Result:
    """The measurements; ValueError if the model cannot be measured on this data set."""
    import torch

    from model.heads import PretrainingModel
    from model.hub.initial_weights import check_vocabulary, copy_weights
    from model.hub.pretrained import open_pretrained
    from model.loading.data import DataSet
    from model.step import choose_device, choose_precision, evaluate

    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    data_set = DataSet(config.data, config.cache_dir, config.cache_gb)
    pretrained = open_pretrained(config.model)
    check_vocabulary(pretrained, data_set)
    model = PretrainingModel(pretrained.config)
    missing = copy_weights(model, pretrained)
    if "mlm" in missing:
        raise ValueError(f"{pretrained.path} is a {pretrained.architecture}, which predicts no masked words")
    lengths = data_set.max_seq_lengths(config.split)
    if not lengths:
        raise ValueError(
            f"{config.data} has no {config.split} examples: preprocess with a --validation-fraction, or give --split train"
        )
    longest = pretrained.config.shape.max_position_embeddings
    too_long = [length for length in lengths if length > longest]
    if len(too_long) == len(lengths):
        raise ValueError(f"{pretrained.path} reads {longest} tokens, {config.data} has lengths from {min(lengths)} on")
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    model.to(device)
    evaluations = {}
    for length in lengths:
        if length in too_long:
            continue
        batches = data_set.examples(config.split, length).in_order(config.batch_size, config.max_examples)
        evaluations[length] = evaluate(model, drop_pairs(batches) if missing else batches, precision=precision)
    return Result(model=pretrained.path, lengths=evaluations, has_pair_head=not missing, too_long=too_long)


def drop_pairs(batches: Iterator[PackedBatch]) -> Iterator[PackedBatch]:
    """The batches as if no example were a pair, for a model that has no head for them."""
    import torch

    for batch in batches:
        yield replace(batch, next_sentence_label=torch.full_like(batch.next_sentence_label, -1))


def as_json(config: EvaluateConfig, result: Result) -> dict[str, Any]:
    """All that was measured; null where there are no pairs or no head for them."""
    return {
        "model": str(result.model),
        "data": config.data,
        "split": config.split,
        "lengths": {str(length): values_of(part) for length, part in result.lengths.items()},
        "all": values_of(result.total),
        "lengths_beyond_the_model": result.too_long,
        "model_has_next_sentence_head": result.has_pair_head,
    }


def values_of(evaluation: Evaluation) -> dict[str, float | None]:
    """An evaluation, with None for what was not measured."""
    return {
        name: None if name in ("nsp_loss", "nsp_accuracy") and not evaluation.num_pairs else value
        for name, value in asdict(evaluation).items()
    }


def as_table(config: EvaluateConfig, result: Result) -> str:
    """All that was measured, for people."""
    lines = [
        f"{result.model} on the {config.split} examples of {config.data}",
        f"{'length':>6} {'examples':>10} {'masks':>10} {'MLM loss':>9} {'right':>7} "
        f"{'pairs':>10} {'NSP loss':>9} {'right':>7}",
    ]
    rows = [(str(length), part) for length, part in result.lengths.items()]
    for name, part in [*rows, ("all", result.total)] if len(rows) > 1 else rows:
        line = f"{name:>6} {part.num_examples:>10,} {part.num_masked:>10,} "
        line += f"{part.mlm_loss:>9.4f} {part.mlm_accuracy:>7.2%} {part.num_pairs:>10,}"
        lines.append(line + (f" {part.nsp_loss:>9.4f} {part.nsp_accuracy:>7.2%}" if part.num_pairs else ""))
    if not result.has_pair_head:
        lines.append("the model has no next sentence head: pairs were not looked at")
    for length in result.too_long:
        lines.append(f"length {length} was not evaluated: the model has fewer positions")
    return "\n".join(lines)

"""Measure a model: the losses of a pretrained one on held-out examples, or the vectors of any model.

    bertloom evaluate --model RUN --data DATASET
    bertloom evaluate --model DIRECTORY --data DATASET --max-examples 2048 --json
    bertloom evaluate --model DIRECTORY --similarity pairs.csv
    bertloom evaluate --model DIRECTORY --retrieval queries.jsonl

The model is a run of `bertloom pretrain` or one of its checkpoints, a folder that `bertloom import` wrote, or a directory in
transformers' form. Each length of the data set is evaluated separately, on the first examples of its first copy with the
masks in the data set. These are the examples on which `bertloom pretrain` evaluates.

With --similarity, the cosines of the vectors of two texts are compared with their scores. With --retrieval, each query
searches for its relevant texts among all texts, by cosine. docs/finetuning.md shows the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.support.config import parse
from jobs.support.finetune_config import pairs
from model.loading.cache import DEFAULT_CACHE_GB
from model.pooling import Pooling
from model.precision import Precision

if TYPE_CHECKING:
    from model.batch import PackedBatch
    from model.hub.pretrained import Pretrained
    from model.step import Evaluation


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure losses and accuracies of a pretrained model on held-out examples, or the vectors of any model."""

    model: Path
    """Run folder, a checkpoint, or a directory in transformers' form."""
    data: str | None = None
    """Data set: a folder, or s3://…, gs://…, https://…"""
    similarity: Path | None = None
    """File of pairs of texts with scores (text_a, text_b, score): Spearman's and Pearson's correlation of their cosines."""
    retrieval: Path | None = None
    """Queries and their relevant texts, in a file of rows or a folder of BEIR: nDCG, MRR and recall among the first ten, and
    accuracy of the first."""
    pooling: Pooling | None = None
    """With --similarity and --retrieval: how the vector of a text is made. The default is as for `bertloom embed`."""
    max_seq_length: int | None = None
    """With --similarity and --retrieval: number of tokens to read of each text. The default is as for `bertloom embed`."""
    columns: tuple[str, ...] = ()
    """With --similarity and --retrieval: names of columns that are not found automatically: anchor=title."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """With --similarity and --retrieval: what to do about an unusable row: stop and report it, or skip and count it."""
    split: Literal["validation", "train"] = "validation"
    """Split whose examples are used."""
    max_examples: int | None = None
    """Largest number of examples of each length. The default is all. `bertloom pretrain` uses 2,048."""
    batch_size: int = 32
    """Number of examples in memory. Changes results only by rounding."""
    json: bool = False
    """Print one JSON object instead of a table."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1, … auto is cuda if available, otherwise cpu."""
    precision: Precision = "auto"
    """Precision of weights and activations. auto is bf16 on CUDA (fp16 on GPUs before Ampere), otherwise fp32."""
    num_threads: int | None = None
    """CPU threads. The default is torch's choice."""
    cache_dir: Path | None = None
    """Local folder that caches data from a URL. The default is ~/.cache/bertloom."""
    cache_gb: float = DEFAULT_CACHE_GB
    """Size limit of the cache, in 10^9 bytes."""

    def __post_init__(self) -> None:
        for name in ("max_examples", "batch_size", "num_threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        sources = ("data", "similarity", "retrieval")
        if sum(getattr(self, name) is not None for name in sources) != 1:
            raise ValueError("give one of --data, --similarity and --retrieval, to measure the model on")
        if self.data is not None and (self.pooling or self.max_seq_length or self.columns or self.on_bad_row != "stop"):
            raise ValueError(
                "--pooling, --max-seq-length, --columns and --on-bad-row are for --similarity and --retrieval: omit them"
            )
        pairs("columns", self.columns)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The evaluations of a model."""

    model: Path
    """Folder of the weights."""
    lengths: dict[int, Evaluation]
    """Evaluations by max_seq_length."""
    has_pair_head: bool
    """Whether the model has a head for next sentence prediction; without one, pairs are ignored."""
    too_long: list[int]
    """Lengths of the data set for which the model has too few positions."""

    @property
    def total(self) -> Evaluation:
        """The evaluation over all lengths, with the same weight for each masked token and for each pair."""
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
    if config.data is None:
        from jobs.support.vector_evaluation import as_lines

        values = evaluate_vectors(config)
        what = f"{config.model} on {config.similarity or config.retrieval}"
        print(json.dumps({"model": str(config.model), **values}, indent=2) if config.json else as_lines(what, values))
        return
    result = evaluate_model(config)
    print(json.dumps(as_json(config, result), indent=2) if config.json else as_table(config, result))


def evaluate_vectors(config: EvaluateConfig) -> dict[str, Any]:
    """Return metrics of the model's vectors, and counts; ValueError if the texts cannot be used."""
    import torch

    from jobs.support.vector_evaluation import measure_retrieval, measure_similarity
    from model.hub.pretrained import open_pretrained
    from model.inference.embed import Embedder

    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    embedder = Embedder(
        open_pretrained(config.model), config.pooling, config.max_seq_length, config.device, precision=config.precision
    )
    columns = pairs("columns", config.columns)
    if config.similarity is not None:
        return measure_similarity(embedder, config.similarity, columns, config.on_bad_row)
    assert config.retrieval is not None
    return measure_retrieval(embedder, config.retrieval, columns, config.on_bad_row)


def evaluate_model(config: EvaluateConfig) -> Result:
    """Return the evaluations; ValueError if the model does not fit the data set."""
    import torch

    from model.heads import PretrainingModel
    from model.hub.initial_weights import check_vocabulary, copy_weights
    from model.hub.pretrained import open_pretrained
    from model.loading.data import DataSet
    from model.mixed_precision import in_precision
    from model.step import choose_device, choose_precision, evaluate

    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    assert config.data is not None
    data_set = DataSet(config.data, config.cache_dir, config.cache_gb)
    pretrained = open_pretrained(config.model)
    check_vocabulary(pretrained, data_set)
    model = PretrainingModel(pretrained.config)
    missing = copy_weights(model, pretrained)
    if "mlm" in missing:
        raise ValueError(
            f"{pretrained.path} is a {pretrained.architecture}, which has no head for masked words: give a pretrained model"
        )
    lengths = data_set.max_seq_lengths(config.split)
    if not lengths:
        raise ValueError(
            f"{config.data} has no {config.split} examples: preprocess with a --validation-fraction, or give --split train"
        )
    longest = pretrained.config.shape.max_position_embeddings
    too_long = [length for length in lengths if length > longest]
    if len(too_long) == len(lengths):
        raise ValueError(
            f"{pretrained.path} has {longest} positions, but the shortest length of {config.data} is {min(lengths)}: "
            f"preprocess with a smaller --max-seq-length"
        )
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device, pretrained.config.shape)
    in_precision(model.to(device), precision)
    evaluations = {}
    for length in lengths:
        if length in too_long:
            continue
        examples = data_set.examples(config.split, length)
        batches = check_segments(examples.in_order(config.batch_size, config.max_examples), pretrained, config.data)
        evaluations[length] = evaluate(model, drop_pairs(batches) if missing else batches)
    return Result(model=pretrained.path, lengths=evaluations, has_pair_head=not missing, too_long=too_long)


def check_segments(batches: Iterator[PackedBatch], pretrained: Pretrained, data: str) -> Iterator[PackedBatch]:
    """Yield the batches; ValueError if one has pairs that the model cannot read."""
    for batch in batches:
        if not pretrained.config.shape.reads_pairs and batch.token_type_ids.any():
            raise ValueError(
                f"{pretrained.path} has one token type, but {data} has pairs: use another model, or preprocess with "
                f"--pairs none"
            )
        yield batch


def drop_pairs(batches: Iterator[PackedBatch]) -> Iterator[PackedBatch]:
    """Yield the batches with labels that mean "no pair", for a model without a head for pairs."""
    import torch

    for batch in batches:
        yield replace(batch, next_sentence_label=torch.full_like(batch.next_sentence_label, -1))


def as_json(config: EvaluateConfig, result: Result) -> dict[str, Any]:
    """Return the evaluations as JSON; values without pairs, or without a head for pairs, are None."""
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
    """Return the values of an evaluation, with None for those that were not measured."""
    return {
        name: None if name in ("nsp_loss", "nsp_accuracy") and not evaluation.num_pairs else value
        for name, value in asdict(evaluation).items()
    }


def as_table(config: EvaluateConfig, result: Result) -> str:
    """Return the evaluations as a table of text."""
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
        lines.append("the model has no head for next sentence prediction: pairs were not evaluated")
    for length in result.too_long:
        lines.append(f"length {length} was not evaluated: the model has fewer positions")
    return "\n".join(lines)

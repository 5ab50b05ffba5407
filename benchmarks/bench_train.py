"""Compare a training step, forward and backward, with transformers' class of the model and its fastest attention.

    python benchmarks/bench_train.py --data DATASET --preset base --max-seq-length 128 --batch-size 8
    python benchmarks/bench_train.py --preset base --short-seq-prob 0.8
    python benchmarks/bench_train.py --data DATASET --preset modern-small --max-seq-length 512
    python benchmarks/bench_train.py --data DATASET --preset base --batch-size 256 --device cuda

Both have the same weights and read the same real examples. transformers gets them padded to the longest of the batch, runs
with SDPA and with eager attention, and returns logits for every position, as its normal call does. The losses must agree.
Rounds are interleaved, and each has its own batch. The report shows the median of the rounds' ratios to the faster attention
and the ratio that the number of floating-point operations allows for these batches. On a shared CPU the ratio of CPU times
is steadier. Without --data: the shipped sample and a small model.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import bertloom  # noqa: F401  (sets OMP_WAIT_POLICY, before torch is imported)

# isort: split
import numpy as np
import torch
from presets import config_of, in_transformers, new_model, taken_by
from setting import SAMPLE, header, run_command, spread, write_report
from torch import Tensor

from model.batch import PackedBatch, StaticShape
from model.compiling import compile_model
from model.heads import PretrainingModel
from model.loading.data import DataSet, Examples
from model.loading.order import TrainingOrder
from model.loading.padding import pad_batch, static_shape
from model.mixed_precision import compute_copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: bf16 on cuda, else fp32")
    parser.add_argument("--compile", action="store_true", help="torch.compile for both")
    parser.add_argument("--name", default="train", help="name of the file in benchmarks/results/")
    run(parser, measure)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that several benchmarks of training share."""
    parser.add_argument("--data", help="data set; default: one made from the shipped sample")
    parser.add_argument(
        "--short-seq-prob", default="0.1", help="for the sample; with a larger share, examples are shorter"
    )
    parser.add_argument("--preset", default="mini")
    parser.add_argument(
        "--max-seq-length", type=int, help="default: the shortest of the data set, or 128 for the sample"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="examples in a round")
    parser.add_argument("--threads", type=int, help="CPU threads")


def run(parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace, Examples], list[str]]) -> None:
    """Measure on the examples that the arguments choose, and write the report."""
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        length = arguments.max_seq_length or 128
        data = arguments.data or sample_data_set(Path(folder), length, arguments.short_seq_prob)
        lines = measure(arguments, DataSet(data).examples("train", arguments.max_seq_length))
    write_report(arguments.name, lines, not arguments.data)


def sample_data_set(folder: Path, max_seq_length: int = 128, short_seq_prob: str = "0.1") -> Path:
    """Make a data set from the shipped sample with the real commands, and return its path."""
    vocabulary, out = str(folder / "vocab.txt"), folder / "set"
    run_command("build-vocab", "--input", SAMPLE, "--vocab-size", "8000", "--out", vocabulary)
    options = ["--max-seq-length", str(max_seq_length), "--short-seq-prob", short_seq_prob]
    run_command("preprocess", "--input", SAMPLE, "--vocab", vocabulary, "--out", str(out), *options)
    return out


def model_of(preset: str, examples: Examples) -> PretrainingModel:
    """Return a model of a preset's shape with random weights, for the vocabulary of these examples."""
    return new_model(config_of(preset, examples.data_set.vocabulary_size))


def batches_of(examples: Examples, size: int, number: int) -> list[PackedBatch]:
    """Return the first batches of training."""
    order = TrainingOrder(examples.rows_per_copy, 1, examples.max_seq_length)
    return [examples.gather(*order.items(i * size, (i + 1) * size)) for i in range(number)]


def shape_of(examples: Examples, size: int) -> StaticShape:
    """Return the shape to which batches of this size are padded for torch.compile."""
    rows = np.arange(min(1024, examples.rows_per_copy[0]))
    sample = examples.read(np.zeros_like(rows), rows, with_tokens=False)
    return static_shape(
        sample["lengths"],
        sample["num_masks"],
        max_seq_length=examples.max_seq_length,
        batch_size=size,
        micro_batch_size=size,
        num_parts=1,
    )


def measure(arguments: argparse.Namespace, examples: Examples) -> list[str]:
    device = torch.device(arguments.device)
    precision = arguments.precision or ("bf16" if device.type == "cuda" else "fp32")
    size, shape = arguments.batch_size, shape_of(examples, arguments.batch_size)
    ours = model_of(arguments.preset, examples)
    models: dict[str, Any] = {"bertloom": ours}
    for attention in ("sdpa", "eager"):
        models[f"transformers, {attention}"] = in_transformers(ours, attention)
    for model in models.values():
        model.to(device)
    copy = compute_copy(ours, precision)
    computing = models["bertloom"] = copy.model if copy else ours
    if arguments.compile:
        compile_model(computing, [shape])
        for theirs in list(models.values())[1:]:
            theirs.compile(dynamic=True)

    def step(model: Any, *arguments: Any, **inputs: Tensor) -> float:
        model.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=model is not computing and precision == "bf16"):
            loss = model(*arguments, **inputs).loss
        loss.backward()
        return loss.item()  # waits for the GPU

    timings: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    allowed, fills, tokens = [], [], 0
    for number, batch in enumerate(batches_of(examples, size, arguments.rounds + 1)):
        lengths, pairs = np.array(batch.lengths), num_pairs(batch) if ours.trains_pairs else 0
        packed = (pad_batch(batch, shape) if arguments.compile else batch).to(device), len(batch.masked_ids), pairs
        padded = {name: value.to(device) for name, value in pad(batch).items()}
        losses = {}
        for name, model in models.items():
            is_ours = model is computing
            call = partial(step, model, *packed) if is_ours else partial(step, model, **taken_by(model, padded))
            losses[name], *timing = timed(call)
            if number:  # the first round is a warm-up
                timings[name].append(tuple(timing))
        if max(losses.values()) - min(losses.values()) > (1e-4 if precision == "fp32" else 2e-2) * min(losses.values()):
            raise SystemExit(f"the losses differ: {losses}")
        longest = int(lengths.max())
        count = ours.step_flops(lengths, len(batch.masked_ids), pairs)
        their_count = ours.step_flops(np.full(size, longest), size * longest, pairs)
        if number:
            allowed.append(their_count / count)
            fills.append(lengths.sum() / (size * longest))
            tokens += int(lengths.sum())

    _, *others = models
    best = min(others, key=lambda name: statistics.median(wall for wall, _ in timings[name]))
    ratios = np.array([np.divide(theirs, mine) for theirs, mine in zip(timings[best], timings["bertloom"])])
    wall, cpu = np.median(ratios, axis=0)
    possible = statistics.mean(allowed)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    by_cpu = f" (by CPU time {cpu:.2f}: {cpu / possible:.2f})" if device.type == "cpu" else ""
    what = (
        f"{arguments.preset} at {examples.max_seq_length}, {size} examples a round, {arguments.rounds} interleaved "
        f"rounds, {precision}, {where}{', all compiled' if arguments.compile else ''}; forward and backward. "
        f"transformers gets examples padded to the longest of the batch."
    )
    seconds = {name: [wall for wall, _ in values] for name, values in timings.items()}
    return [
        *header("A training step against transformers", what, "torch", "transformers"),
        "| | median seconds [min, max] |",
        "|---|---|",
        *(f"| {name} | {spread(values)} |" for name, values in seconds.items()),
        "",
        f"Median ratio to {best}: **{wall:.2f}**; the count of operations allows {possible:.2f} at a fill of "
        f"{statistics.mean(fills):.2f}: **{wall / possible:.2f}** of it{by_cpu}. "
        f"{tokens / sum(seconds['bertloom']):,.0f} real tokens/s.",
    ]


def num_pairs(batch: PackedBatch) -> int:
    return int((batch.next_sentence_label >= 0).sum())


def pad(batch: PackedBatch) -> dict[str, Tensor]:
    """The same examples as transformers takes them."""

    def padded(values: Tensor, value: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(values.split(batch.lengths), batch_first=True, padding_value=value)

    labels = torch.full_like(batch.input_ids, -100)
    labels[batch.masked_positions] = batch.masked_ids
    return {
        "input_ids": padded(batch.input_ids, 0),
        "token_type_ids": padded(batch.token_type_ids, 0),
        "attention_mask": padded(torch.ones_like(batch.input_ids), 0),
        "labels": padded(labels, -100),
        "next_sentence_label": batch.next_sentence_label,
    }


def timed(step: Callable[[], Any]) -> tuple[Any, float, float]:
    """What the step gives back, and its seconds by the clock and of the CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = step()
    return value, time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()

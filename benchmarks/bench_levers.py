"""Measure what each optimization of a training step saves: the normal step against the step with one thing changed.

    python benchmarks/bench_levers.py --data DATASET --preset base --max-seq-length 128 --batch-size 8

A step is forward, backward and update on real examples. Rounds are interleaved, and each has its own batch. The variants
with padding and with predictions at all positions use the same model, so nothing else differs: padding tokens are computed
like others, and positions without a mask have no loss. The report shows the median of the rounds' ratios by the clock and by
CPU time, which is steadier on a shared machine. Without --data: the shipped sample and a small model.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import bertloom  # noqa: F401  (sets OMP_WAIT_POLICY, before torch is imported)

# isort: split
import numpy as np
import torch
from bench_train import add_arguments, batches_of, model_of, num_pairs, run, shape_of, timed
from setting import header

from model.batch import PackedBatch
from model.compiling import compile_model
from model.heads import PretrainingModel
from model.loading.data import Examples
from model.loading.padding import pad_batch
from model.losses import IGNORED
from model.mixed_precision import ComputeCopy, compute_copy
from model.optimizer import build_optimizer

RATE = 1e-6
Variant = tuple[
    PretrainingModel,
    torch.optim.Optimizer,
    ComputeCopy[PretrainingModel] | None,
    Callable[[PackedBatch], PackedBatch],
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="levers", help="name of the file in benchmarks/results/")
    run(parser, measure)


def measure(arguments: argparse.Namespace, examples: Examples) -> list[str]:
    size, shape = arguments.batch_size, shape_of(examples, arguments.batch_size)
    plain, compiled = (model_of(arguments.preset, examples) for _ in range(2))
    compile_model(compiled, [shape])
    fused, other = (build_optimizer(model, 0.01) for model in (plain, compiled))
    loop = torch.optim.AdamW(plain.parameters(), fused=False, foreach=False)
    for optimizer in (fused, other, loop):
        for group in optimizer.param_groups:
            group["lr"] = RATE
    normal = (plain, fused, None, lambda batch: batch)
    changed: dict[str, Variant] = {
        "examples padded to the batch's longest": (plain, fused, None, pad_examples),
        "words predicted at all positions": (plain, fused, None, predict_everywhere),
        "AdamW, one parameter at a time": (plain, loop, None, lambda batch: batch),
        "bf16": (plain, fused, compute_copy(plain, "bf16"), lambda batch: batch),
        "torch.compile": (compiled, other, None, partial(pad_batch, shape=shape)),
    }
    timings: dict[str, list[np.ndarray]] = {name: [] for name in ("normal", *changed)}
    flops: dict[str, list[float]] = {name: [] for name in timings}
    for number, batch in enumerate(batches_of(examples, size, arguments.rounds + 1)):
        counts = len(batch.masked_ids), num_pairs(batch)
        for name, (model, optimizer, copy, form) in ({"normal": normal} | changed).items():
            formed = form(batch)
            _, *timing = timed(partial(step, model, optimizer, copy, formed, *counts))
            if number:  # the first round is a warm-up
                timings[name].append(np.array(timing))
                lengths = np.array(formed.lengths if name != "torch.compile" else batch.lengths)
                words = len(formed.masked_ids) if name == "words predicted at all positions" else counts[0]
                count = plain.step_flops(lengths, words, counts[1])
                flops[name].append(count)
    what = (
        f"{arguments.preset} at {examples.max_seq_length}, {size} examples a round, {arguments.rounds} interleaved rounds, "
        f"fp32, {torch.get_num_threads()} CPU threads; forward, backward and update."
    )
    lines = [
        *header("What each optimization of a step saves", what, "torch"),
        "| step | median seconds | times the normal step | by CPU time | by the count of operations |",
        "|---|---|---|---|---|",
    ]
    for name, values in timings.items():
        wall, cpu = np.median(np.array(values) / np.array(timings["normal"]), axis=0)
        counted = np.mean(np.array(flops[name]) / np.array(flops["normal"]))
        median = np.median([value[0] for value in values])
        lines.append(f"| {name} | {median:.3f} | {wall:.2f} | {cpu:.2f} | {counted:.2f} |")
    fill = np.mean([np.mean(b.lengths) / max(b.lengths) for b in batches_of(examples, size, arguments.rounds + 1)[1:]])
    return [*lines, "", f"The batches' fill is {fill:.2f}."]


def step(
    model: PretrainingModel,
    optimizer: torch.optim.Optimizer,
    copy: ComputeCopy[PretrainingModel] | None,
    batch: PackedBatch,
    masked: int,
    pairs: int,
) -> None:
    optimizer.zero_grad()
    computing = copy.model if copy else model
    computing(batch, masked, pairs).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if copy:
        copy.update()


def pad_examples(batch: PackedBatch) -> PackedBatch:
    """Pad each example to the longest. The padding is computed and has no loss."""
    longest, number = max(batch.lengths), len(batch.lengths)

    def padded(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(values.split(batch.lengths), batch_first=True).flatten()

    starts = batch.cu_seqlens[:-1].long()
    example = torch.searchsorted(batch.cu_seqlens[1:].long(), batch.masked_positions, right=True)
    changes: dict[str, Any] = {name: padded(getattr(batch, name)) for name in ("input_ids", "token_type_ids")}
    return replace(
        batch,
        **changes,
        position_ids=torch.arange(longest).repeat(number),
        cu_seqlens=(torch.arange(number + 1) * longest).int(),
        lengths=[longest] * number,
        masked_positions=batch.masked_positions - starts[example] + example * longest,
    )


def predict_everywhere(batch: PackedBatch) -> PackedBatch:
    """Apply the head at every position; only masked positions have a loss."""
    words = torch.full_like(batch.input_ids, IGNORED)
    words[batch.masked_positions] = batch.masked_ids
    return replace(batch, masked_positions=torch.arange(len(words)), masked_ids=words)


if __name__ == "__main__":
    main()

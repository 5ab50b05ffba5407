"""What each lever of a training step brings: the step as it is, against the step with one thing changed.

    python benchmarks/bench_levers.py --data DATASET --preset base --max-seq-length 128 --batch-size 8

A step is forward, backward and update, on real examples; rounds are interleaved, each with a batch of its own. Padding and
the head at all positions go through the same model, so that nothing else differs: padding tokens are computed like others,
positions that are not masked have no loss. The median of the rounds' ratios is quoted, by the clock and by CPU time, which
is the steadier one where others use the machine too. Without --data: the shipped sample, a small model.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from bench_train import add_arguments, batches_of, model_of, num_pairs, run, shape_of, timed
from setting import header

from model.batch import PackedBatch
from model.compiling import compile_model
from model.heads import PretrainingModel
from model.loading.data import Examples
from model.loading.padding import IGNORED, pad_batch
from model.optimizer import build_optimizer
from model.step import autocast

RATE = 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="levers", help="of the file in benchmarks/results/")
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
    as_it_is = (plain, fused, "fp32", lambda batch: batch)
    changed: dict[str, tuple[PretrainingModel, torch.optim.Optimizer, str, Callable[[PackedBatch], PackedBatch]]] = {
        "examples padded to the batch's longest": (plain, fused, "fp32", pad_examples),
        "words predicted at all positions": (plain, fused, "fp32", predict_everywhere),
        "AdamW, a parameter at a time": (plain, loop, "fp32", lambda batch: batch),
        "bf16": (plain, fused, "bf16", lambda batch: batch),
        "torch.compile": (compiled, other, "fp32", partial(pad_batch, shape=shape)),
    }
    timings: dict[str, list[np.ndarray]] = {name: [] for name in ("as it is", *changed)}
    flops: dict[str, list[float]] = {name: [] for name in timings}
    for number, batch in enumerate(batches_of(examples, size, arguments.rounds + 1)):
        counts = len(batch.masked_ids), num_pairs(batch)
        for name, (model, optimizer, precision, form) in ({"as it is": as_it_is} | changed).items():
            formed = form(batch)
            _, *timing = timed(partial(step, model, optimizer, precision, formed, *counts))
            if number:  # the first one is for warming up
                timings[name].append(np.array(timing))
                lengths = np.array(formed.lengths if name != "torch.compile" else batch.lengths)
                words = len(formed.masked_ids) if name == "words predicted at all positions" else counts[0]
                count = plain.step_flops(int(lengths.sum()), int((lengths**2).sum()), words, counts[1])
                flops[name].append(count)
    what = (
        f"{arguments.preset} at {examples.max_seq_length}, {size} examples a round, {arguments.rounds} interleaved rounds, "
        f"fp32, {torch.get_num_threads()} CPU threads; forward, backward and update."
    )
    lines = [
        *header("What each lever of a step brings", what, "torch"),
        "| step | median seconds | times the step as it is | by CPU time | by the count of operations |",
        "|---|---|---|---|---|",
    ]
    for name, values in timings.items():
        wall, cpu = np.median(np.array(values) / np.array(timings["as it is"]), axis=0)
        counted = np.mean(np.array(flops[name]) / np.array(flops["as it is"]))
        median = np.median([value[0] for value in values])
        lines.append(f"| {name} | {median:.3f} | {wall:.2f} | {cpu:.2f} | {counted:.2f} |")
    fill = np.mean([np.mean(b.lengths) / max(b.lengths) for b in batches_of(examples, size, arguments.rounds + 1)[1:]])
    return [*lines, "", f"The batches' fill is {fill:.2f}."]


def step(
    model: PretrainingModel,
    optimizer: torch.optim.Optimizer,
    precision: str,
    batch: PackedBatch,
    masked: int,
    pairs: int,
) -> None:
    optimizer.zero_grad()
    with autocast(torch.device("cpu"), precision):
        output = model(batch, masked, pairs)
    output.loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def pad_examples(batch: PackedBatch) -> PackedBatch:
    """Each example as long as the longest; the padding is computed, and has no loss."""
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
    """The head at every position; the loss is that of the masked ones."""
    words = torch.full_like(batch.input_ids, IGNORED)
    words[batch.masked_positions] = batch.masked_ids
    return replace(batch, masked_positions=torch.arange(len(words)), masked_ids=words)


if __name__ == "__main__":
    main()

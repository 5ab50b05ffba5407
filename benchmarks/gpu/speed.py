"""Measure whole updates, ours and those of transformers on the same examples."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from bench_train import pad
from presets import in_transformers, taken_by
from torch import Tensor

from benchmarks.gpu.answers import Answer
from benchmarks.gpu.cases import Sizes, Speed
from benchmarks.gpu.levers import build_model, build_updates
from benchmarks.gpu.steps import Steps
from model.devices import peak_flops
from model.heads import PretrainingModel
from model.loading.batches import GlobalBatch
from model.loading.data import DataSet

GPU = torch.device("cuda")
LEARNING_RATE = 1e-4
Run = Callable[[GlobalBatch, Any, int], float]
"""Makes an update with a batch, what was prepared of it, and the number of the step; returns the loss."""


def measure_speed(case: Speed, data_set: DataSet, sizes: Sizes) -> Answer:
    """Return the speed of a case."""
    model = build_model(case.preset, data_set.vocabulary_size, sizes.is_tiny)
    with Steps(data_set, case.length, case.micro_batch, case.micro_batches, GPU) as steps:
        if case.program == "transformers":
            return time_updates(steps, model, sizes, prepare_theirs, theirs(model, "compiled" in case.name))
        is_padded = case.levers.compiled or case.levers.cuda_graphs
        shapes = steps.pad() if is_padded else []
        updates = build_updates(
            model.to(GPU),
            "bf16",
            levers=case.levers,
            shapes=shapes,
            optimizer=case.optimizer,
            learning_rate=LEARNING_RATE,
        )
        return time_updates(
            steps, model, sizes, lambda batch: None, lambda batch, _, step: updates.run(batch, step).loss
        )


def prepare_theirs(batch: GlobalBatch) -> list[dict[str, Tensor]]:
    """Return the micro-batches as transformers takes them, in pinned memory."""
    return [{name: value.pin_memory() for name, value in pad(part).items()} for part in batch.micro_batches]


def theirs(model: PretrainingModel, is_compiled: bool) -> Run:
    """Return an update of transformers' model with the same weights: SDPA, autocast, fused AdamW, clipped gradients."""
    other = in_transformers(model, "sdpa").to(GPU)
    optimizer = torch.optim.AdamW(other.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    if is_compiled:
        other.compile(dynamic=True)

    def run(batch: GlobalBatch, parts: list[dict[str, Tensor]], step: int) -> float:
        optimizer.zero_grad()
        total = torch.zeros((), device=GPU)
        for part in parts:
            inputs = {name: value.to(GPU, non_blocking=True) for name, value in taken_by(other, part).items()}
            with torch.autocast("cuda", torch.bfloat16):
                loss = other(**inputs).loss / len(parts)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        optimizer.step()
        return total.item()

    return run


def time_updates(
    steps: Steps, model: PretrainingModel, sizes: Sizes, prepare: Callable[[GlobalBatch], Any], run: Run
) -> Answer:
    """Return the medians of the updates after the first two, which compile and warm up.

    Args:
        prepare: turns a batch into another form, in time that does not count.
    """
    from torch._dynamo.utils import counters

    counters.clear()
    torch.cuda.reset_peak_memory_stats()
    peak = peak_flops(GPU, None, "bf16")
    speeds, rates, waits, losses = [], [], [], []
    start = time.perf_counter()
    started = 0.0
    for step, (batch, waited) in enumerate(steps.read(2 + sizes.num_timed_steps)):
        prepared = prepare(batch)
        begin = time.perf_counter()
        losses.append(run(batch, prepared, step))  # waits for the GPU
        end = time.perf_counter()
        seconds = end - begin + waited
        if step == 1:
            started = end - start
        if step > 1:
            flops = model.step_flops(batch.lengths, batch.num_masked, batch.num_pairs)
            speeds.append(batch.num_tokens / seconds)
            rates.append(flops / seconds)
            waits.append(waited / seconds)
    rate = statistics.median(rates)
    return Answer(
        result=f"loss {losses[0]:.3f} to {losses[-1]:.3f}",
        is_failure=not losses[-1] < losses[0] + 1,  # also NaN
        tokens_per_second=statistics.median(speeds),
        slowest=min(speeds),
        fastest=max(speeds),
        flops=rate,
        mfu=rate / peak if peak else None,
        waiting=statistics.median(waits),
        peak_gib=torch.cuda.max_memory_allocated() / 2**30,
        start_seconds=started,
        graphs=counters["stats"]["unique_graphs"],
        graph_breaks=counters["graph_break"].total(),
    )

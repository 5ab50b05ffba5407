"""Compare results on the GPU with a slower way or with the CPU, and measure the highest speeds of the GPU."""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from benchmarks.gpu.answers import Answer
from benchmarks.gpu.cases import Levers, Sizes
from benchmarks.gpu.levers import SEED, Updates, build_model, build_updates
from benchmarks.gpu.steps import Steps
from model.attention import MASKED_KERNELS, attention, flash_obstacle
from model.batch import PackedBatch
from model.loading.data import DataSet
from model.loading.order import ORDER_VERSION
from model.runs.checkpoint import load_checkpoint, snapshot, write_checkpoint
from model.runs.progress import Progress
from model.runs.state import TrainingState

GPU, CPU = torch.device("cuda"), torch.device("cpu")
HEADS = {"bf16": (12, 64), "fp16": (16, 64), "fp32": (4, 32)}
"""Number and size of the heads on which attention is compared."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
FACTOR = 2.0
"""Our attention may be this many times as far from the exact one as torch's is in the same precision."""
FP32_BOUND = 1e-4
"""Largest distance of attention in 32 bits from the exact one. That of TF32, which must not be in use, is 3e-4."""
LOSS_BOUNDS = {"fp32": 1e-3, "bf16": 3e-2}
"""Largest difference of a loss from the CPU's in 32 bits, in nats."""
EAGER = Levers(compiled=False)
LEARNING_RATE = 5e-4
MICRO_BATCH, PARTS = 16, 2
RESUMED_BOUND = 3e-2
"""Largest difference of the losses after a resumption: updates on a GPU add in no fixed order."""


def run_check(name: str, data_set: DataSet, sizes: Sizes) -> Answer:
    """Return the finding of a check of `cases.py`."""
    kind, _, precision = name.partition(", ")
    if kind == "attention":
        return check_attention(data_set, sizes, precision)
    if kind == "losses":
        return check_losses(data_set, sizes, precision)
    return check_resume(data_set, sizes) if kind == "resume" else ceilings(sizes)


# ---- attention


def check_attention(data_set: DataSet, sizes: Sizes, precision: str) -> Answer:
    """Compare attention on packed sequences, and its gradient, with SDPA on each sequence, both to 64-bit numbers.

    Once every token sees its whole sequence, once only a window.
    """
    H, D = HEADS[precision]
    generator = torch.Generator().manual_seed(SEED)
    mine, theirs = [], []
    for length, number in ((sizes.short, 64), (sizes.long, 16)):
        with Steps(data_set, length, max(number // sizes.divisor, 2), 1, GPU) as steps:
            steps.pad()  # so that there are empty sequences too
            (batch, _), *_ = steps.read(1)
        part = batch.micro_batches[0].to(GPU)
        qkv = torch.randn(len(part.input_ids), 3, H, D, generator=generator).to(GPU, DTYPES[precision])
        weight = torch.randn(len(part.input_ids), H, D, generator=generator).to(GPU, DTYPES[precision])
        for window in (None, sizes.short // 4):
            exact = with_gradient(partial(alone, window=window), qkv.double(), part, weight.double())
            mine.append(distances(with_gradient(partial(attention, window=window), qkv, part, weight), exact))
            theirs.append(distances(with_gradient(partial(alone, window=window), qkv, part, weight), exact))
    obstacle = flash_obstacle(GPU, DTYPES[precision], D, 0.0)
    way = f"padded ({obstacle})" if obstacle else "varlen_attn"
    bounds = [[FP32_BOUND if precision == "fp32" else FACTOR * value for value in values] for values in theirs]
    is_within = all(a <= b for values, limits in zip(mine, bounds) for a, b in zip(values, limits))
    worst, other = ([max(column) for column in zip(*rows)] for rows in (mine, theirs))
    return Answer(
        result=f"{way}: relative distance from 64 bits {worst[0]:.1e}, of the gradient {worst[1]:.1e}; SDPA on each "
        f"sequence {other[0]:.1e} and {other[1]:.1e}",
        is_failure=not is_within or (obstacle is None) != (precision != "fp32"),
    )


def alone(qkv: Tensor, batch: PackedBatch, window: int | None) -> Tensor:
    """Return attention (T, H, D) of qkv (T, 3, H, D), one sequence after the other."""
    outputs = []
    for part in qkv.split(batch.lengths):
        place = torch.arange(len(part), device=qkv.device)
        is_seen = None if window is None else (place[:, None] - place).abs() <= window
        query, key, value = part.permute(1, 2, 0, 3).unsqueeze(1)  # (1, H, S, D) each
        with sdpa_kernel(MASKED_KERNELS):
            outputs.append(F.scaled_dot_product_attention(query, key, value, attn_mask=is_seen)[0].transpose(0, 1))
    return torch.cat(outputs)


def with_gradient(
    function: Callable[[Tensor, PackedBatch], Tensor], qkv: Tensor, batch: PackedBatch, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the result, and the gradient of its sum with these weights."""
    leaf = qkv.clone().requires_grad_()
    result = function(leaf, batch)
    result.backward(weight)
    assert leaf.grad is not None
    return result.detach(), leaf.grad


def distances(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> list[float]:
    """Return the norms of the differences over those of the exact tensors."""
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact)]


# ---- losses


@cache
def reference(data_set: DataSet, sizes: Sizes) -> list[float]:
    """Return the losses on the CPU in 32 bits."""
    return losses_of(data_set, sizes, CPU, "fp32", EAGER)


def check_losses(data_set: DataSet, sizes: Sizes, way: str) -> Answer:
    """Compare the losses of `tiny` with the CPU's in 32 bits."""
    expected = reference(data_set, sizes)
    precision = way[:4]
    device = CPU if "CPU" in way else GPU
    levers = Levers(compiled="compiled" in way, cuda_graphs="graphs" in way)
    found = losses_of(data_set, sizes, device, precision, levers)
    difference = max(abs(a - b) for a, b in zip(found, expected))
    return Answer(
        result=f"{len(found)} updates of tiny, {expected[0]:.4f} to {expected[-1]:.4f} on the CPU in fp32: largest "
        f"difference {difference:.1e}",
        is_failure=not difference <= LOSS_BOUNDS[precision],
    )


def losses_of(data_set: DataSet, sizes: Sizes, device: torch.device, precision: str, levers: Levers) -> list[float]:
    """Return the losses of the first updates of `tiny`."""
    with Steps(data_set, sizes.short, MICRO_BATCH, PARTS, device) as steps:
        updates = tiny_updates(data_set, sizes, steps, precision, levers)
        return [updates.run(batch, step).loss for step, (batch, _) in enumerate(steps.read(sizes.num_check_steps))]


def tiny_updates(data_set: DataSet, sizes: Sizes, steps: Steps, precision: str, levers: Levers) -> Updates:
    """Return the updates of a new `tiny` model on the device of these steps."""
    model = build_model("tiny", data_set.vocabulary_size, sizes.is_tiny).to(steps.reader.ranks.device)
    shapes = steps.pad() if levers.compiled else []
    return build_updates(model, precision, levers=levers, shapes=shapes, learning_rate=LEARNING_RATE)


# ---- resume


def check_resume(data_set: DataSet, sizes: Sizes) -> Answer:
    """Stop halfway, load the checkpoint into another model, and compare the losses with those of a run that goes on."""
    half = sizes.num_check_steps // 2
    with Steps(data_set, sizes.short, MICRO_BATCH, PARTS, GPU) as steps, tempfile.TemporaryDirectory() as folder:
        first = tiny_updates(data_set, sizes, steps, "bf16", Levers())
        for step, (batch, _) in enumerate(steps.read(half)):
            first.run(batch, step)
        saved = snapshot(first.model, first.optimizer)
        path = write_checkpoint(Path(folder), *saved, state_at(half, data_set, first, steps), keep=1)
        second = tiny_updates(data_set, sizes, steps, "bf16", Levers())
        load_checkpoint(path, second.model, second.optimizer)
        assert second.copy
        second.copy.update()
        loaded = snapshot(second.model, second.optimizer)
        is_equal = all(
            before.keys() == after.keys() and all(before[name].equal(after[name]) for name in before)
            for before, after in zip(saved, loaded)
        )
        runs = [
            [updates.run(batch, half + step).loss for step, (batch, _) in enumerate(steps.read(half, half))]
            for updates in (first, second)
        ]
    difference = max(abs(a - b) for a, b in zip(*runs))
    return Answer(
        result=f"tiny, compiled, bf16, stopped after {half} updates: weights and moments "
        f"{'are equal to the last bit' if is_equal else 'DIFFER'}, the first loss after it differs by "
        f"{abs(runs[0][0] - runs[1][0]):.1e}, the largest difference of {half} losses is {difference:.1e}",
        is_failure=not is_equal or not difference <= RESUMED_BOUND,
    )


def state_at(step: int, data_set: DataSet, updates: Updates, steps: Steps) -> TrainingState:
    """Return the state for a checkpoint after a number of updates."""
    return TrainingState(
        progress=Progress(step=step, legs=(steps.leg,)),
        seed=SEED,
        order_version=ORDER_VERSION,
        shards_digest=data_set.shards_digest,
        vocabulary_sha256=data_set.vocabulary_sha256,
        model=updates.model.config.values(),
        schedule={},
        changes=[],
    )


# ---- ceilings


def ceilings(sizes: Sizes) -> Answer:
    """Measure one large product in bf16 and one large copy."""
    side, numbers = (64, 2**10) if sizes.is_tiny else (8192, 2**30)
    a, b = (torch.randn(side, side, device=GPU, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(numbers, device=GPU)
    target = torch.empty_like(source)
    product = 2 * side**3 / median_seconds(lambda: torch.mm(a, b))
    copied = 8 * numbers / median_seconds(lambda: target.copy_(source))  # bytes read and written
    return Answer(
        result=f"a product of {side}: {product / 1e12:.0f} TFLOP/s; a copy: {copied / 1e12:.2f} TB/s", flops=product
    )


def median_seconds(call: Callable[[], Any], number: int = 10) -> float:
    """Return the median seconds of a call on the GPU."""
    times = []
    for _ in range(number + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])

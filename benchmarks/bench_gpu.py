"""Measure whole updates on a GPU, next to transformers' BertForPreTraining, and compare their losses with the CPU's.

    python benchmarks/bench_gpu.py --data DATASET
    python benchmarks/bench_gpu.py --data DATASET --cases base:128:256:16 --num-steps 10

A case is PRESET:LENGTH:MICRO_BATCH:MICRO_BATCHES. Ours is the trainer's own step (`model/step.py`) on batches that its
reader prefetches from the shards, once uncompiled and once with --compile. transformers has the same weights and examples,
padded to the longest of the micro-batch, SDPA attention, autocast to bf16, fused AdamW and gradient clipping, once
uncompiled and once compiled. The script needs torch, transformers and pyarrow only, so it runs from a bare checkout.

MFU is the share of the maker's peak that the matrix products of the real tokens take (`model/devices.py`). The script also
measures what this GPU reaches in one large bf16 product and in one large copy.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from bench_train import model_of, pad
from setting import header, write_report

from model.bert_config import BertShape
from model.compiling import compile_model
from model.devices import peak_flops
from model.distributed import Ranks
from model.heads import PretrainingModel
from model.hub.weights import to_hugging_face
from model.loading.batches import BatchReader, GlobalBatch
from model.loading.data import DataSet
from model.loading.stream import Leg
from model.mixed_precision import ComputeCopy, compute_copy
from model.optimizer import build_optimizer
from model.schedule import Phase
from model.step import PretrainingResult, train_step

CASES = ["small:128:256:1", "base:128:256:4", "base:512:64:4", "large:128:128:4", "large:512:32:4"]
GPU, CPU = torch.device("cuda"), torch.device("cpu")
RATE, SEED = 1e-4, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="data set with the lengths of the cases")
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--num-steps", type=int, default=8, help="timed steps of each case, after two for warm-up")
    parser.add_argument("--name", default="gpu", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: torch finds no CUDA device")
        return
    if not arguments.data:
        parser.error("give --data: the shipped sample is too small for a GPU")
    data_set = DataSet(arguments.data)
    lines = [*parity(data_set), "", *ceilings(), "", *HEAD]
    for case in arguments.cases:
        preset, *numbers = case.split(":")
        length, micro_batch, parts = map(int, numbers)
        for name, measure in VARIANTS.items():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            torch.compiler.reset()
            lines.append(measure(name, preset, Steps(data_set, length, micro_batch, parts), arguments.num_steps))
            print(lines[-1], flush=True)
    what = f"{torch.cuda.get_device_name()}; medians of {arguments.num_steps} updates after two for warm-up."
    write_report(arguments.name, [*header("Training on a GPU", what, "torch", "transformers"), *lines], False)


class Steps:
    """The batches of consecutive steps at one length, read by the trainer's reader."""

    def __init__(self, data_set: DataSet, length: int, micro_batch: int, parts: int, device: torch.device = GPU):
        self.leg = Leg(
            step=0, max_seq_length=length, item=0, batch_size=micro_batch * parts, seed=SEED, shards_digest=""
        )
        self.phase = Phase(max_seq_length=length, share=1.0, batch_size=micro_batch * parts)
        self.reader = BatchReader(data_set, {length}, SEED, micro_batch, Ranks(device=device))

    def read(self, number: int) -> Iterator[tuple[GlobalBatch, float]]:
        """Yield batches and the seconds waited for each, and prefetch the next."""
        for step in range(number):
            start = time.perf_counter()
            batch = self.reader.read(self.leg, step)
            waited = time.perf_counter() - start
            self.reader.prefetch(self.leg, step + 1)
            yield batch, waited


def parity(data_set: DataSet) -> list[str]:
    """Train `tiny` for 20 steps on the CPU and on the GPU, and return the largest differences of the losses."""
    length = min(data_set.max_seq_lengths("train"))
    losses = {}
    for name, device, precision in [("CPU fp32", CPU, "fp32"), ("GPU fp32", GPU, "fp32"), ("GPU bf16", GPU, "bf16")]:
        steps = Steps(data_set, length, 32, 2, device)
        model = model_of("tiny", steps.reader.examples[length]).to(device)
        optimizer, copy = build_optimizer(model, 0.01), compute_copy(model, precision)
        results = [update(model, optimizer, batch, step, copy) for step, (batch, _) in enumerate(steps.read(20))]
        losses[name] = [result.loss for result in results]
    reference = losses.pop("CPU fp32")
    lines = [f"`tiny`, 20 updates at {length}: the CPU's loss goes from {reference[0]:.4f} to {reference[-1]:.4f}."]
    for name, values in losses.items():
        difference = max(abs(a - b) for a, b in zip(values, reference))
        lines.append(f"Largest difference of a loss from the CPU's, {name}: {difference:.2g}.")
    print("\n".join(lines), flush=True)
    return lines


def ceilings() -> list[str]:
    """Return what this GPU reaches in one large product and one large copy."""
    a, b = (torch.randn(8192, 8192, device=GPU, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(2**30, device=GPU)
    target = torch.empty_like(source)
    product = median_seconds(lambda: torch.mm(a, b))
    copy = median_seconds(lambda: target.copy_(source))
    lines = [f"A product of 8192: {2 * 8192**3 / product / 1e12:.0f} TFLOP/s; a copy: {2**33 / copy / 1e12:.2f} TB/s."]
    print(lines[0], flush=True)
    return lines


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


def update(
    model: PretrainingModel,
    optimizer: torch.optim.Optimizer,
    batch: GlobalBatch,
    step: int,
    copy: ComputeCopy[PretrainingModel] | None,
) -> PretrainingResult:
    return train_step(
        model, optimizer, batch, learning_rate=RATE, max_gradient_norm=1.0, seed=SEED, step=step, copy=copy
    )


def ours(name: str, preset: str, steps: Steps, number: int) -> str:
    """Measure bertloom's step."""
    model = model_of(preset, steps.reader.examples[steps.leg.max_seq_length]).to(GPU)
    optimizer, copy = build_optimizer(model, 0.01), compute_copy(model, "bf16")
    assert copy
    if "compiled" in name:
        compile_model(copy.model, steps.reader.pad_batches([steps.phase]))
    return measure(name, preset, steps, number, lambda batch, step: update(model, optimizer, batch, step, copy).loss)


def theirs(name: str, preset: str, steps: Steps, number: int) -> str:
    """Measure transformers' model in a plain loop."""
    from transformers import BertConfig, BertForPreTraining

    model = model_of(preset, steps.reader.examples[steps.leg.max_seq_length])
    config = model.config
    assert isinstance(config.shape, BertShape)
    other: Any = BertForPreTraining(BertConfig(**config.values(), hidden_act="gelu", attn_implementation="sdpa"))
    other.load_state_dict(to_hugging_face(model.state_dict(), config), strict=False)
    other.train().to(GPU)
    optimizer = torch.optim.AdamW(other.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    if "compiled" in name:
        other.compile(dynamic=True)

    def run(batch: GlobalBatch, step: int) -> float:
        optimizer.zero_grad()
        total = torch.zeros((), device=GPU)
        for part in batch.micro_batches:
            inputs = {key: value.to(GPU, non_blocking=True) for key, value in pad(part).items()}
            with torch.autocast("cuda", torch.bfloat16):
                loss = other(**inputs).loss / len(batch.micro_batches)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        optimizer.step()
        return total.item()

    return measure(name, preset, steps, number, run)


def measure(name: str, preset: str, steps: Steps, number: int, run: Callable[[GlobalBatch, int], float]) -> str:
    """Time updates and return a line of the table."""
    counter = model_of(preset, steps.reader.examples[steps.leg.max_seq_length])
    peak = peak_flops(GPU, None, "bf16") or float("nan")
    speeds, uses, waits, losses = [], [], [], []
    start = time.perf_counter()
    for step, (batch, waited) in enumerate(steps.read(number + 2)):
        begin = time.perf_counter()
        losses.append(run(batch, step))  # waits for the GPU
        seconds = time.perf_counter() - begin + waited
        if step == 1:
            started = time.perf_counter() - start
        if step > 1:
            flops = counter.step_flops(batch.num_tokens, batch.num_squared, batch.num_masked, batch.num_pairs)
            speeds.append(batch.num_tokens / seconds)
            uses.append(flops / seconds / peak)
            waits.append(waited / seconds)
    memory = torch.cuda.max_memory_allocated() / 2**30
    batch_words = f"{steps.leg.batch_size}"
    return (
        f"| {preset} | {steps.leg.max_seq_length} | {batch_words} | {name} | {statistics.median(speeds):,.0f} "
        f"| {statistics.median(uses):.1%} | {statistics.median(waits):.1%} | {memory:.1f} | {started:.1f} "
        f"| {losses[0]:.3f} | {losses[-1]:.3f} |"
    )


COLUMNS = (
    *("preset", "length", "batch", "step", "real tokens/s", "MFU", "waiting for data", "peak GiB"),
    *("first two steps, s", "first loss", "last loss"),
)
HEAD = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
VARIANTS: dict[str, Callable[[str, str, Steps, int], str]] = {
    "bertloom": ours,
    "bertloom, compiled": ours,
    "transformers": theirs,
    "transformers, compiled": theirs,
}

if __name__ == "__main__":
    main()

"""Count the bytes and FLOPs of a training step on a GPU, and the speed that they allow, on a machine without one.

    python benchmarks/roofline.py
    python benchmarks/roofline.py --cases base:128:256:1 large:512:32:4 --top 12

A case is PRESET:LENGTH:MICRO_BATCH:MICRO_BATCHES. The trainer's own step (`model/step.py`) runs on tensors that have a
shape, a type and a device, but no memory (torch's FakeTensorMode), with one sequence of ten shorter than LENGTH. Every
operator is a kernel that takes the longer of two times: its bytes by the memory's bandwidth, and its floating-point
operations by the speed of products. The compiled step is counted on the graphs of torch.compile, by the rules of fusion in
`benchmarks/traffic.py`.

All cases take several minutes; a line is printed when its case is counted.

This is a bound, not a speed. It leaves out launches, synchronisations and waiting for data. The assumptions about a GPU are
`GPUS`, `EFFICIENCY` and `DENSE_TFLOPS`.
"""

import argparse
import math
import sys
import warnings
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fake_cuda.library import load, missing

if not missing():  # no GPU is needed: the fake device of the tests, which must be there before torch
    load()
    from tests.fake_cuda.device import install

    install()

# isort: split
import numpy as np
import torch
from presets import config_of
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves
from traffic import Counter, Kernel, compiler

from model.attention import num_seen
from model.batch import PackedBatch, StaticShape
from model.bert import BertLayer
from model.bert_config import BertShape
from model.compiling import compile_model
from model.heads import PretrainingModel
from model.loading.batches import GlobalBatch
from model.loading.padding import next_multiple, pad_batch, static_shape
from model.mixed_precision import compute_copy, in_precision
from model.optimizer import build_optimizer
from model.packing import pack_sequences
from model.shape import EncoderConfig
from model.step import train_step

GPUS = {"H100": 3.35e12, "H200": 4.8e12}
"""Bytes per second that the makers of the SXM forms state."""
PEAK_TFLOPS = 989
"""The makers' peak of dense bf16 products, of both."""
DENSE_TFLOPS = 790
"""What a product of 8192 x 8192 x 8192 reached on an H200 (benchmarks/results/gpu.md)."""
EFFICIENCY = 0.85
"""Share of the bandwidth and of DENSE_TFLOPS that kernels are assumed to reach. A copy of 4 GiB reached 0.87 on an H200."""

CASES = ["small:128:256:1", "base:128:256:1", "base:128:256:4", "base:512:64:1", "large:128:128:1", "large:512:32:1"]
CASES += ["modern-base:128:256:1", "modern-base:512:64:1"]
VOCAB_SIZE = 30522
DEVICE = torch.device("cuda:0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--vocab-size", type=int, default=VOCAB_SIZE)
    parser.add_argument(
        "--top", type=int, default=0, help="also list this many kinds of kernels, the longest on an H100 first"
    )
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error(missing())
    warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # copy.deepcopy does
    print(*HEAD, sep="\n")
    regions = []
    for case in arguments.cases:
        preset, *numbers = case.split(":")
        length, micro_batch, parts = map(int, numbers)
        config = config_of(preset, arguments.vocab_size)
        batch = global_batch(length, micro_batch, parts, arguments.vocab_size)
        for is_compiled in (False, True):
            counts = count_step(config, batch, length, arguments.optimizer, is_compiled)
            print(row(case, is_compiled, counts), *slowest(counts.kernels, arguments.top), sep="\n", flush=True)
        if not isinstance(config.shape, BertShape):
            continue
        num_tokens = next_multiple(len(batch.micro_batches[0].input_ids))
        numbers = [region_bytes(config, num_tokens, merged) for merged in (False, True)]
        numbers += [
            layer_bytes(config, batch, length, arguments.optimizer, is_compiled) for is_compiled in (False, True)
        ]
        regions.append([case, *(f"{number:.1f}" for number in numbers)])
    print("", *REGION_HEAD, *(f"| {' | '.join(cells)} |" for cells in regions), sep="\n")


def global_batch(length: int, micro_batch: int, num_parts: int, vocab_size: int) -> GlobalBatch:
    """Return a batch of random words; nine examples of ten have the full length."""
    random = np.random.default_rng(0)
    parts = [random_part(random, length, micro_batch, vocab_size) for _ in range(num_parts)]
    lengths = np.concatenate([part.lengths for part in parts]).astype(np.int64)
    return GlobalBatch(
        micro_batches=parts,
        numbers=list(range(num_parts)),
        num_passes=num_parts,
        lengths=lengths,
        num_masked=sum(len(part.masked_ids) for part in parts),
        num_pairs=len(lengths),
        stream_sum=0,
    )


def random_part(random: np.random.Generator, length: int, size: int, vocab_size: int) -> PackedBatch:
    lengths = np.where(random.random(size) < 0.9, length, random.integers(8, length, size))
    ids = random.integers(0, vocab_size, lengths.sum())
    starts = np.cumsum(lengths) - lengths
    masked = np.concatenate([start + 1 + np.arange(number) for start, number in zip(starts, num_masks(lengths))])
    return PackedBatch(
        **vars(pack_sequences(ids, lengths, lengths // 2)),
        masked_positions=torch.from_numpy(masked),
        masked_ids=torch.from_numpy(ids[masked]),
        next_sentence_label=torch.from_numpy(random.integers(0, 2, size)),
        rows=np.zeros((size, 2), dtype=np.int64),
    )


def num_masks(lengths: np.ndarray) -> np.ndarray:
    """Return the number of masked positions of examples of these lengths: 15 %, rounded."""
    return np.maximum(1, np.round(lengths * 0.15)).astype(np.int64)


def count_step(config: EncoderConfig, batch: GlobalBatch, length: int, optimizer: str, is_compiled: bool) -> "Counts":
    """Run one update on tensors without memory and return its counts."""

    def attention_flops(window: int | None) -> int:
        return 4 * config.shape.hidden_size * num_seen(batch.lengths, window) // len(batch.micro_batches)

    counter = Counter(attention_flops)
    torch.compiler.reset()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, answers():
        with DEVICE:
            model = PretrainingModel(config)
        copy = compute_copy(model, "bf16")
        assert copy
        if is_compiled:
            sizes = [np.array(part.lengths) for part in batch.micro_batches]
            shape = padded_shape(np.concatenate(sizes), length, len(sizes))
            batch = replace(batch, micro_batches=[pad_batch(part, shape) for part in batch.micro_batches])
            compile_model(copy.model, [shape], fullgraph=True, backend=compiler(counter))
        batch = replace(batch, micro_batches=[without_memory(mode, part) for part in batch.micro_batches])
        update = build_optimizer(model, 0.01, optimizer)
        for step in range(2):  # the first one compiles, and makes the moments
            counter.clear()
            counter.track(
                tree_leaves([list(model.parameters()), list(copy.model.parameters()), list(update.state.values())])
            )
            counter.track(parameter.grad for parameter in model.parameters())
            with counter:
                train_step(
                    model, update, batch, learning_rate=1e-4, max_gradient_norm=1.0, seed=1, step=step, copy=copy
                )
    flops = model.step_flops(batch.lengths, batch.num_masked, batch.num_pairs)
    return Counts(
        kernels=counter.kernels,
        num_tokens=batch.num_tokens,
        num_places=sum(len(part.input_ids) for part in batch.micro_batches),
        flops=flops,
        peak_bytes=counter.peak_bytes,
    )


def region_bytes(config: EncoderConfig, num_tokens: int, merged: bool) -> float:
    """Return the bytes per token and channel of what follows attention in a layer, forward and backward, compiled.

    Matrix products count, and so do weights and their gradients.
    """
    assert isinstance(config.shape, BertShape)
    counter = Counter()
    torch.compiler.reset()
    size = (num_tokens, config.shape.hidden_size)
    with FakeTensorMode(), DEVICE:
        layer = in_precision(BertLayer(config.shape), "bf16")
        compiled = torch.compile(
            layer.after_attention, dynamic=False, fullgraph=True, backend=compiler(counter, merged)
        )
        hidden, mixed = (torch.empty(size, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
        result = compiled(hidden, mixed)
        result.backward(torch.empty_like(result))
    return counter.num_bytes / math.prod(size)


def layer_bytes(config: EncoderConfig, batch: GlobalBatch, length: int, optimizer: str, is_compiled: bool) -> float:
    """Return the bytes per token and channel that one more layer adds to a step, with those of its update."""
    counts = []
    for number in (1, 2):
        smaller = replace(config, shape=replace(config.shape, num_hidden_layers=number))
        counts.append(count_step(smaller, batch, length, optimizer, is_compiled))
    more = counts[1].num_bytes - counts[0].num_bytes
    return more / counts[0].num_places / config.shape.hidden_size


def padded_shape(lengths: np.ndarray, length: int, num_parts: int) -> StaticShape:
    """Return the size that the trainer would pad these examples to for torch.compile."""
    size = len(lengths)
    masks = num_masks(lengths)
    numbers = {
        "max_seq_length": length,
        "batch_size": size,
        "micro_batch_size": size // num_parts,
        "num_parts": num_parts,
    }
    return static_shape(lengths, masks, **numbers)


def without_memory(mode: FakeTensorMode, part: PackedBatch) -> PackedBatch:
    tensors = {name: mode.from_tensor(value) for name, value in vars(part).items() if isinstance(value, Tensor)}
    return replace(part, **tensors)  # type: ignore[arg-type]


@contextmanager
def answers() -> Iterator[None]:
    """Let tensors without memory have the value 1 where the step reads a number, and be pinned where it pins them."""
    methods = {"tolist": lambda t: [1.0] * t.numel(), "__float__": lambda t: 1.0, "pin_memory": lambda t: t}
    with ExitStack() as stack:
        for name, method in methods.items():
            stack.enter_context(mock.patch.object(FakeTensor, name, method))
        yield


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The kernels of an update."""

    kernels: Tally[Kernel]
    num_tokens: int
    num_places: int
    """Tokens and padding."""
    flops: int
    """Of the model, as MFU counts them."""
    peak_bytes: int

    @property
    def num_bytes(self) -> int:
        return sum(kernel.bytes * number for kernel, number in self.kernels.items())

    def seconds(self, bandwidth: float, *kinds: str) -> float:
        """Return the time of the kernels, or of those of some kinds, on a GPU of this bandwidth."""
        chosen = {kernel: number for kernel, number in self.kernels.items() if not kinds or kernel.kind in kinds}
        speeds = DENSE_TFLOPS * 1e12 * EFFICIENCY, bandwidth * EFFICIENCY
        return sum(number * kernel.seconds(*speeds) for kernel, number in chosen.items())


COLUMNS = ["case", "step", "kernels", "GB", "TFLOP", "peak GiB"]
for gpu in GPUS:
    COLUMNS += [f"{gpu}: tokens/s", "MFU"]
COLUMNS.append("products and attention on an H100")
REGION_COLUMNS = ["bytes per token and channel", "after attention", "the same, sums over tokens fused"]
REGION_COLUMNS += ["a whole layer, uncompiled", "compiled"]
REGION_HEAD = [f"| {' | '.join(REGION_COLUMNS)} |", f"|{'---|' * len(REGION_COLUMNS)}"]
HEAD = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]


def row(case: str, is_compiled: bool, counts: Counts) -> str:
    """Return a line of the table."""
    total = sum(counts.kernels.values())
    num_flops = sum(kernel.flops * number for kernel, number in counts.kernels.items())
    cells = [
        case,
        "compiled" if is_compiled else "uncompiled",
        f"{total:,}",
        f"{counts.num_bytes / 1e9:.1f}",
        f"{num_flops / 1e12:.2f}",
        f"{counts.peak_bytes / 2**30:.1f}",
    ]
    for bandwidth in GPUS.values():
        seconds = counts.seconds(bandwidth)
        cells += [
            f"{counts.num_tokens / seconds:,.0f}",
            f"{counts.flops / seconds / PEAK_TFLOPS / 1e12:.1%}",
        ]
    share = counts.seconds(GPUS["H100"], "products", "attention") / counts.seconds(GPUS["H100"])
    cells.append(f"{share:.0%}")
    return f"| {' | '.join(cells)} |"


def slowest(kernels: Tally[Kernel], number: int) -> list[str]:
    """Return lines about the kinds of kernels that take most of the time on an H100."""
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0, 0])
    for kernel, count in kernels.items():
        seconds = kernel.seconds(DENSE_TFLOPS * 1e12 * EFFICIENCY, GPUS["H100"] * EFFICIENCY)
        for place, value in enumerate((1, kernel.bytes / 1e9, kernel.flops / 1e12, seconds * 1e3)):
            sums[kernel.name, kernel.dtype][place] += count * value
    longest = sorted(sums.items(), key=lambda item: -item[1][3])[:number]
    return [
        f"    {' '.join(key):50} {n:5.0f} x {gb:8.2f} GB {tf:7.2f} TFLOP {ms:7.2f} ms"
        for key, (n, gb, tf, ms) in longest
    ]


if __name__ == "__main__":
    main()

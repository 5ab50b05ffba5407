"""What `bench_gpu.py` measures, the most important first. Imports no torch.

A lever is a field of `Levers`, what `levers.py` does with it, and a line of `OFF`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

CHECKS = {
    "attention, bf16": 5,
    "attention, fp16": 2,
    "attention, fp32": 2,
    "losses, fp32": 12,
    "losses, bf16": 5,
    "losses, bf16, compiled": 12,
    "losses, bf16, compiled, CUDA graphs": 6,
    "resume": 8,
    "ceilings": 3,
}
"""Seconds that each check is expected to take on an H200, by its name."""
LAST_CHECK = {"losses, bf16 on the CPU": 20}
"""What the rounding of 16 bits alone does. Slow on a processor without bf16 instructions."""


@dataclass(frozen=True, kw_only=True)
class Levers:
    """How a step is made fast. The defaults are the trainer's with --compile."""

    compiled: bool = True
    """Whether torch.compile fuses regions, at padded sizes."""
    whole_layers: bool = True
    """Whether a region is a whole layer, with attention, and not what follows attention."""
    compute_copy: bool = True
    """Whether a copy in bf16 computes, and not the model itself under autocast."""
    padded_vocabulary: bool = True
    """Whether the number of words is a multiple of 64."""
    loss_chunks: bool = True
    """Whether the logits of masked words are made in chunks."""
    bias_blocks: bool = True
    """Whether the gradients of biases are summed in the kernels that make their summands."""
    cuda_graphs: bool = False
    """Whether forward and backward are a CUDA graph, as with --cuda-graphs."""


OFF = {
    "not compiled": (3, Levers(compiled=False)),
    "compiled after attention only": (9, Levers(whole_layers=False)),
    "losses not in chunks": (6, Levers(loss_chunks=False)),
    "biases not in blocks": (9, Levers(bias_blocks=False)),
    "autocast, without copy, chunks and blocks": (
        9,
        Levers(compute_copy=False, loss_chunks=False, bias_blocks=False),
    ),
    "vocabulary not padded": (6, Levers(padded_vocabulary=False)),
}
"""The expected seconds and the step with one lever off, by what a line of the table says. Losses in chunks and biases in
blocks do not know autocast."""
Way = tuple[str, float, dict[str, Any]]
"""What a line of the table says, its expected seconds, and fields of `Speed`."""
BEFORE = Levers(whole_layers=False, compute_copy=False, padded_vocabulary=False, loss_chunks=False, bias_blocks=False)
GRAPHS = Levers(cuda_graphs=True)
ALL = "all levers"
"""The step with all levers, to which the others of its shape are compared."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A line of the table."""

    name: str
    seconds: float
    """What it is expected to take on an H200. It is not begun if less is left, and stopped after LIMIT times as much."""


@dataclass(frozen=True, kw_only=True)
class Check(Case):
    """A comparison with the CPU or with a slower way, or a ceiling of the device."""


@dataclass(frozen=True, kw_only=True)
class Speed(Case):
    """Whole updates of one shape in one way."""

    preset: str
    length: int
    micro_batch: int
    """Examples in each."""
    micro_batches: int
    levers: Levers = field(default_factory=Levers)
    optimizer: str = "adamw"
    program: str = "bertloom"
    """bertloom or transformers."""

    @property
    def shape(self) -> str:
        """The first part of the name."""
        return f"{self.preset} {self.length}"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large everything is."""

    short: int = 128
    long: int = 512
    divisor: int = 1
    """Divides the number of examples of every batch."""
    num_words: int = 30_522
    num_tokens: int = 2_000_000
    """Size of the data set."""
    num_check_steps: int = 50
    num_timed_steps: int = 6
    is_tiny: bool = False
    """Whether every model is tiny."""


REAL = Sizes()
REHEARSAL = Sizes(
    short=32,
    long=64,
    divisor=32,
    num_words=1000,
    num_tokens=20_000,
    num_check_steps=4,
    num_timed_steps=2,
    is_tiny=True,
)


def all_cases(sizes: Sizes) -> list[Case]:
    """Return all cases in their order."""
    return [*checks(CHECKS), *speeds(sizes), *checks(LAST_CHECK)]


def checks(seconds: dict[str, int]) -> Iterator[Case]:
    for name, expected in seconds.items():
        yield Check(name=name, seconds=expected)


def speeds(sizes: Sizes) -> Iterator[Case]:
    """Yield the cases with a speed."""

    def case(preset: str, length: int, micro_batch: int, parts: int, what: str, seconds: float, **fields: Any) -> Speed:
        size = max(micro_batch // sizes.divisor, 1)
        values: dict[str, Any] = {"preset": preset, "length": length, "micro_batch": size, "micro_batches": parts}
        return Speed(name=f"{preset} {length}: {what}", seconds=seconds, **values, **fields)

    base = ("base", sizes.short, 256, 4)
    others = [("large", sizes.short, 128, 4), ("base", sizes.long, 64, 4), ("small", sizes.short, 256, 1)]
    small = others[-1]
    not_compiled, *half_compiled = ((what, seconds, {"levers": levers}) for what, (seconds, levers) in OFF.items())
    theirs = ("transformers", 5, {"program": "transformers"})
    all_off = ("all off but the compiler", 10, {"levers": BEFORE})
    graphs = ("CUDA graphs", 7, {"levers": GRAPHS})

    def cases(shape: tuple[str, int, int, int], *ways: Way) -> Iterator[Case]:
        for what, seconds, options in ways:
            yield case(*shape, what, seconds, **options)

    yield from cases(base, (ALL, 12, {}), not_compiled, theirs, all_off)
    yield case("base", sizes.short, 1024, 1, "one micro-batch", 9)
    yield from cases(base, *half_compiled)
    for shape in others:
        yield from cases(shape, (ALL, 12, {}))
    yield from cases(small, graphs, ("CUDA graphs, not compiled", 5, {"levers": replace(GRAPHS, compiled=False)}))
    yield case("large", sizes.short, 512, 1, "one micro-batch", 12)
    yield from cases(base, ("transformers, compiled", 65, {"program": "transformers"}), graphs)
    yield from cases(base, *((optimizer, 6, {"optimizer": optimizer}) for optimizer in ("lamb", "muon")))
    for shape in others:
        yield from cases(shape, theirs)
    for shape in others:
        yield from cases(shape, not_compiled, all_off)
    for shape in others:
        yield from cases(shape, *half_compiled)
    yield from cases(base, (f"{ALL}, again", 6, {}))

"""What `bench_gpu.py` measures, the most important first. Imports no torch.

A lever is a field of `Levers`, the code for it in `levers.py`, and a line of `OFF`.
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
"""The rounding of 16 bits alone, without a GPU. It is slow on a processor without bf16 instructions."""


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
    cuda_graphs: bool = False
    """Whether forward and backward are a CUDA graph, as with --cuda-graphs."""


OFF = {
    "not compiled": (3, Levers(compiled=False)),
    "compiled after attention only": (9, Levers(whole_layers=False)),
    "losses not in chunks": (6, Levers(loss_chunks=False)),
    "autocast, without copy and chunks": (9, Levers(compute_copy=False, loss_chunks=False)),
    "vocabulary not padded": (6, Levers(padded_vocabulary=False)),
}
"""The expected seconds and the levers of a step with one lever off. Losses in chunks do not work under autocast, so two are
off there."""
BEFORE = Levers(whole_layers=False, compute_copy=False, padded_vocabulary=False, loss_chunks=False)
GRAPHS = Levers(cuda_graphs=True)
ALL = "all levers"
"""The step with all levers, to which the others of its shape are compared."""
WAYS: dict[str, tuple[float, dict[str, Any]]] = {
    ALL: (12, {}),
    **{name: (seconds, {"levers": levers}) for name, (seconds, levers) in OFF.items()},
    "all off but the compiler": (10, {"levers": BEFORE}),
    "CUDA graphs": (7, {"levers": GRAPHS}),
    "CUDA graphs, not compiled": (5, {"levers": replace(GRAPHS, compiled=False)}),
    "one micro-batch": (12, {}),
    "lamb": (6, {"optimizer": "lamb"}),
    "muon": (6, {"optimizer": "muon"}),
    "transformers": (5, {"program": "transformers"}),
    "transformers, compiled": (65, {"program": "transformers"}),
    f"{ALL}, again": (6, {}),
}
"""The ways to make updates: the expected seconds and the fields of `Speed`, by what the table calls them."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A line of the table."""

    name: str
    seconds: float
    """Expected time on an H200. A case is not begun if less is left, and stopped after LIMIT times as much."""


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


def checks(seconds: dict[str, int]) -> list[Case]:
    """Return checks from their names and expected seconds."""
    return [Check(name=name, seconds=expected) for name, expected in seconds.items()]


def speeds(sizes: Sizes) -> list[Case]:
    """Return the cases with a speed."""

    def cases(preset: str, length: int, micro_batch: int, micro_batches: int, *ways: str) -> Iterator[Case]:
        for way in ways:
            seconds, fields = WAYS[way]
            yield Speed(
                name=f"{preset} {length}: {way}",
                seconds=seconds,
                preset=preset,
                length=length,
                micro_batch=max(micro_batch // sizes.divisor, 1),
                micro_batches=micro_batches,
                **fields,
            )

    base, small = ("base", sizes.short, 256, 4), ("small", sizes.short, 256, 1)
    others = [("large", sizes.short, 128, 4), ("base", sizes.long, 64, 4), small]
    modern = [("modern-base", sizes.short, 256, 4), ("modern-base", sizes.long, 64, 4)]
    not_compiled, *compiled = OFF
    return [
        *cases(*base, ALL, not_compiled, "transformers", "all off but the compiler"),
        *cases("base", sizes.short, 1024, 1, "one micro-batch"),
        *cases(*base, *compiled),
        *(case for shape in (*others, *modern) for case in cases(*shape, ALL)),
        *cases(*small, "CUDA graphs", "CUDA graphs, not compiled"),
        *cases("large", sizes.short, 512, 1, "one micro-batch"),
        *cases(*base, "transformers, compiled", "CUDA graphs", "lamb", "muon"),
        *(case for shape in (*others, modern[-1]) for case in cases(*shape, "transformers")),
        *(case for shape in others for case in cases(*shape, not_compiled, "all off but the compiler")),
        *(case for shape in others for case in cases(*shape, *compiled)),
        *cases(*base, f"{ALL}, again"),
    ]

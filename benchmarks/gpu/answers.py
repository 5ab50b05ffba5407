"""What a worker answers about a case. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The numbers and words of a line of the table."""

    result: str
    """The finding in words: that of a check, or the first and the last loss; or why there is none."""
    is_failure: bool = False
    """Whether the case failed, or found a difference above its bound."""
    is_fatal: bool = False
    """Whether the process can measure nothing more, as after an error of CUDA."""
    tokens_per_second: float | None = None
    """Real tokens; the median of the updates."""
    slowest: float | None = None
    fastest: float | None = None
    """The range of the updates, in tokens per second."""
    flops: float | None = None
    """Floating-point operations per second of the real tokens' matrix products; of the check "ceilings", what a large
    product reaches."""
    mfu: float | None = None
    """Share of the maker's peak; None if it is not known."""
    waiting: float | None = None
    """Share of the time in which a step waited for its batch."""
    peak_gib: float | None = None
    """Most memory of the device in tensors."""
    start_seconds: float | None = None
    """Seconds of the first two updates, compilation included."""
    graphs: int | None = None
    """Graphs that torch.compile made."""
    graph_breaks: int = 0
    """Places at which torch.compile cut a graph, because it cannot compile what is there."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a worker says of its machine before the first case."""

    device: str
    """Name of the GPU; empty if torch finds none."""
    software: str
    is_real: bool
    """Whether the GPU is one, and not the device of the tests."""

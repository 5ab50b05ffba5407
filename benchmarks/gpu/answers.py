"""The answers of a worker. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result of a case, which becomes a line of the table."""

    result: str
    """The finding of a check, or the first and the last loss, or the reason for a missing result."""
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
    """Floating-point operations per second of the real tokens' matrix products; in the check "ceilings", those of a large
    product."""
    mfu: float | None = None
    """Share of the maker's peak; None if it is not known."""
    waiting: float | None = None
    """Share of the time in which a step waited for its batch."""
    peak_gib: float | None = None
    """Largest memory of the device that tensors took."""
    start_seconds: float | None = None
    """Seconds of the first two updates, compilation included."""
    graphs: int | None = None
    """Graphs that torch.compile made."""
    graph_breaks: int = 0
    """Places at which torch.compile cut a graph, because it cannot compile the code there."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine of a worker, sent before the first case."""

    device: str
    """Name of the GPU; empty if torch finds none."""
    software: str
    is_real: bool
    """Whether the GPU is one, and not the device of the tests."""

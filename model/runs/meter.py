"""How fast training goes, and on what it spends its time: for the progress line and metrics.jsonl."""

import resource
from dataclasses import dataclass, field

import torch

from model.heads import PretrainingModel
from model.loading.batches import GlobalBatch
from model.step import StepResult


@dataclass(kw_only=True)
class Meter:
    """Sums over the steps of this process's life, and running means for the eye."""

    model: PretrainingModel
    """The model that trains; it counts the operations of a step."""
    device: torch.device
    """Where it trains."""
    peak: float | None
    """Operations per second of all devices together, if known."""
    seconds: float = 0.0
    """Of all steps, without evaluation."""
    wait_seconds: float = 0.0
    """Of those, time waited for data."""
    tokens: int = 0
    """Real tokens."""
    slots: int = 0
    """Tokens that as many padded examples of full length would have."""
    flops: int = 0
    """Operations of matrix products."""
    shown: dict[str, float] = field(default_factory=dict)
    """Running means of the step's results."""

    def add(
        self, result: StepResult, batch: GlobalBatch, max_seq_length: int, seconds: float, wait_seconds: float
    ) -> dict[str, float]:
        """Counts a step, and gives what metrics.jsonl says of it."""
        flops = self.model.step_flops(batch.num_tokens, batch.num_squared, batch.num_masked, batch.num_pairs)
        slots = batch.num_examples * max_seq_length
        self.seconds += seconds
        self.wait_seconds += wait_seconds
        self.tokens += batch.num_tokens
        self.slots += slots
        self.flops += flops
        if result.is_finite:
            for name, value in vars(result).items():
                self.shown[name] = 0.9 * self.shown.get(name, value) + 0.1 * value
        values = {
            "fill": batch.num_tokens / slots,
            "tokens_per_second": batch.num_tokens / seconds,
            "data_wait_share": wait_seconds / seconds,
        }
        return values | ({"mfu": flops / seconds / self.peak} if self.peak else {})

    @property
    def tokens_per_second(self) -> float:
        """Real tokens per second of steps."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def describe(self) -> str:
        """The end of the progress line."""
        words = [f"loss {self.shown['loss']:.3f}", f"mlm {self.shown['mlm_accuracy']:.1%}"] if self.shown else []
        if self.shown.get("nsp_loss"):
            words.append(f"nsp {self.shown['nsp_accuracy']:.1%}")
        words.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.peak and self.seconds:
            words.append(f"MFU {self.flops / self.seconds / self.peak:.0%}")
        if self.seconds:
            words += [f"fill {self.tokens / self.slots:.0%}", f"data {self.wait_seconds / self.seconds:.0%}"]
        return ", ".join([*words, f"{memory_bytes(self.device) / 2**30:.1f} GiB"])


def memory_bytes(device: torch.device) -> int:
    """The most memory that was held at once: of the GPU, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB

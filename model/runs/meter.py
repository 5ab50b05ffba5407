"""Measures the speed of training, for the progress bar and metrics.jsonl."""

import resource
from dataclasses import dataclass, field

import torch

from model.heads import PretrainingModel
from model.loading.batches import GlobalBatch
from model.runs.sinks import numbers
from model.step import PretrainingResult, StepResult

SHOWN_WEIGHT = 0.1
"""Weight of the newest step in the running means of the progress bar."""


@dataclass(kw_only=True)
class SpeedMeter:
    """Sums over the steps of this process, and the running means that the progress bar shows."""

    seconds: float = 0.0
    """Duration of all steps, without evaluations."""
    tokens: int = 0
    """Real tokens of all steps."""
    shown: dict[str, float] = field(default_factory=dict)
    """Running means of the steps' results."""

    def add(self, result: StepResult, num_tokens: int, seconds: float) -> dict[str, float]:
        """Count a step, and return its speed for metrics.jsonl."""
        self.seconds += seconds
        self.tokens += num_tokens
        if result.is_finite:
            for name, value in numbers(vars(result)).items():
                mean = self.shown.get(name, value)
                self.shown[name] = (1 - SHOWN_WEIGHT) * mean + SHOWN_WEIGHT * value
        return {"tokens_per_second": num_tokens / seconds}

    @property
    def tokens_per_second(self) -> float:
        """Real tokens per second over all steps of this process."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def describe(self) -> str:
        """Return the text after the progress bar."""
        words = [f"loss {self.shown['loss']:.3f}"] if self.shown else []
        return ", ".join([*words, f"{self.tokens_per_second:,.0f} tokens/s"])


@dataclass(kw_only=True)
class PretrainingMeter(SpeedMeter):
    """Measures pretraining: also padding avoided, time spent waiting for data, and the use of the device."""

    model: PretrainingModel
    """The model that trains, which counts the operations of a step."""
    device: torch.device
    """Device that trains."""
    peak: float | None
    """Peak FLOP/s of all devices together, if known."""
    wait_seconds: float = 0.0
    """Time spent waiting for data."""
    slots: int = 0
    """Tokens that the same examples would have if each were padded to its full length."""
    flops: int = 0
    """Floating-point operations, of the model's matrix products."""

    def add_step(
        self,
        result: PretrainingResult,
        batch: GlobalBatch,
        max_seq_length: int,
        seconds: float,
        wait_seconds: float,
    ) -> dict[str, float]:
        """Count a step, and return its measurements for metrics.jsonl."""
        values = self.add(result, batch.num_tokens, seconds)
        flops = self.model.step_flops(batch.lengths, batch.num_masked, batch.num_pairs)
        slots = batch.num_examples * max_seq_length
        self.wait_seconds += wait_seconds
        self.slots += slots
        self.flops += flops
        values |= {"fill": batch.num_tokens / slots, "data_wait_share": wait_seconds / seconds}
        return values | ({"mfu": flops / seconds / self.peak} if self.peak else {})

    def describe(self) -> str:
        words = [f"loss {self.shown['loss']:.3f}", f"mlm {self.shown['mlm_accuracy']:.1%}"] if self.shown else []
        if self.shown.get("nsp_loss"):
            words.append(f"nsp {self.shown['nsp_accuracy']:.1%}")
        words.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.peak and self.seconds:
            words.append(f"MFU {self.flops / self.seconds / self.peak:.0%}")
        if self.seconds:
            words += [f"fill {self.tokens / self.slots:.0%}", f"data {self.wait_seconds / self.seconds:.0%}"]
        return ", ".join([*words, f"{peak_memory(self.device) / 2**30:.1f} GiB"])


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: of the GPU, or else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB

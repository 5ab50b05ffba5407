"""How far training is, and what follows from it: the learning rate, the phase, the end.

Progress is counted in steps, in real tokens, or in seconds of wall clock; the learning rate and the phases are functions
of it. By steps or tokens a run is exact; by the clock it ends on time and is not.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Shape = Literal["linear", "cosine", "wsd"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of training on examples of one length; BERT had 90 % of its steps at 128 tokens and the rest at 512."""

    max_seq_length: int
    """Of its examples, in tokens."""
    share: float
    """Of the whole training, above 0 and at most 1."""
    batch_size: int
    """Examples in a step."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate and phase as functions of progress."""

    unit: Literal["steps", "tokens", "seconds"]
    """What progress is counted in."""
    total: float
    """Progress at the end."""
    peak: float
    """The highest learning rate."""
    warmup_ratio: float
    """Share of the total in which the learning rate rises in a line."""
    shape: Shape
    """How it falls: linear and cosine from the end of the warm-up to 0; wsd (warm-up, stable, decay; Hu et al. 2024,
    MiniCPM) stays at the peak and falls in a line in the last `decay_ratio`."""
    decay_ratio: float
    """Share of the total in which wsd falls."""
    phases: tuple[Phase, ...]
    """One after the other; their shares add up to 1."""

    def learning_rate(self, progress: float, size: float) -> float:
        """Learning rate of the update that begins at `progress` and advances it by `size`, which is above 0.

        Counted in steps (size 1), the first update has peak / (steps of warm-up), the last of the warm-up and the one
        after it have the peak, and the last of all is not 0: no step is thrown away. transformers'
        `get_linear_schedule_with_warmup` differs in the warm-up only, where it is one step later.

        >>> values = {"peak": 1.0, "warmup_ratio": 0.34, "shape": "linear", "decay_ratio": 0.2, "phases": ()}
        >>> schedule = Schedule(unit="steps", total=6, **values)
        >>> [schedule.learning_rate(step, 1) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        warmup = self.total * self.warmup_ratio
        if self.unit == "steps":
            warmup = int(warmup)
        if progress < warmup:
            return self.peak * min(1.0, (progress + size) / warmup)
        left = max(0.0, (self.total - progress) / (self.total - warmup))
        if self.shape == "cosine":
            return self.peak * 0.5 * (1 - math.cos(math.pi * left))
        if self.shape == "wsd":
            return self.peak * min(1.0, max(0.0, self.total - progress) / (self.total * self.decay_ratio))
        return self.peak * left

    def phase_at(self, progress: float) -> Phase:
        """The phase of the update that begins at `progress`; behind the end, the last one."""
        end = 0.0
        for phase in self.phases:
            end += phase.share * self.total
            # Half a step or a token lower, so that a rounded sum of shares moves no border.
            if progress < (end if self.unit == "seconds" else round(end)):
                return phase
        return self.phases[-1]

    def is_over(self, progress: float) -> bool:
        """Whether there is no update left to do."""
        return progress >= self.total


def parse_phases(words: Sequence[str], batch_size: int) -> tuple[Phase, ...]:
    """Phases from `LENGTH:SHARE` or `LENGTH:SHARE:BATCH_SIZE`.

    >>> [(phase.max_seq_length, phase.share, phase.batch_size) for phase in parse_phases(["128:0.9", "512:0.1:64"], 256)]
    [(128, 0.9, 256), (512, 0.1, 64)]
    """
    phases = []
    for word in words:
        match = re.fullmatch(r"(\d+):(\d*\.?\d+)(?::(\d+))?", word)
        if not match:
            raise ValueError(
                f"phases: {word!r} is no LENGTH:SHARE or LENGTH:SHARE:BATCH_SIZE, as 128:0.9 and 512:0.1:256"
            )
        size = int(match[3]) if match[3] else batch_size
        phases.append(Phase(max_seq_length=int(match[1]), share=float(match[2]), batch_size=size))
        if not 0 < phases[-1].share <= 1 or size < 1:
            raise ValueError(f"phases: {word!r}: a share is above 0 and at most 1, a batch size at least 1")
    if abs(sum(phase.share for phase in phases) - 1) > 1e-6:
        raise ValueError(
            f"phases: the shares of {' '.join(words)} add up to {sum(p.share for p in phases):g}, expected 1"
        )
    return tuple(phases)


def parse_budget(text: str) -> float:
    """Seconds of `1h`, `90m`, `1h30m`, `45s`.

    >>> parse_budget("1h30m")
    5400.0
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    seconds = sum(float(part) * scale for part, scale in zip(match.groups("0"), (3600, 60, 1))) if match else 0.0
    if seconds <= 0:
        raise ValueError(f"budget={text!r} is no time: write 1h, 90m, 1h30m or 45s")
    return seconds

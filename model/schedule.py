"""Schedules: the learning rate, the phase and the end of training as functions of the position in it.

The position is counted in steps, real tokens or seconds of wall clock. A run counted in steps or tokens is exact. A run
counted in seconds ends on time, and is not.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

Decay = Literal["linear", "cosine", "wsd"]
PhaseDecay = Literal["constant", "linear", "cosine", "sqrt"]
MAX_LEARNING_RATE = 1.0
"""With Adam and its kin a step changes each weight by about the learning rate, and weights are far below 1."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of training with examples of one length. BERT used 128 tokens for 90% of its steps, then 512."""

    max_seq_length: int
    """Length of the examples, in tokens."""
    share: float
    """Share of the whole training, above 0 and at most 1."""
    batch_size: int
    """Examples per step."""
    data: tuple[str, ...] = ()
    """Data sets of the phase, as --data takes them. Empty: the data sets of --data."""
    temperature: float | None = None
    """Exponent that gives the shares of the data sets from their sizes; None: shares are given, or --temperature does."""
    masked_lm_prob: float | None = None
    """Share of an example's tokens to predict; None: the data set's own share."""
    decay: PhaseDecay | None = None
    """Shape of the learning rate in the phase; None, in all phases of a run: --decay applies to the whole training. sqrt
    falls steeply at first, as 1 - sqrt of the part of the phase that is over (Hagele et al. 2024; used by ModernBERT)."""
    learning_rate: float = 1.0
    """Learning rate at the beginning of the phase, as a share of the peak."""
    final_learning_rate: float = 1.0
    """Learning rate at its end, as a share of the peak."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate and phase as functions of the position."""

    unit: Literal["steps", "tokens", "seconds"]
    """Unit of positions."""
    total: float
    """Position at the end."""
    peak: float
    """Peak learning rate."""
    warmup_ratio: float
    """Share of the total that is learning-rate warm-up, which is linear."""
    warmup_steps: int | None = None
    """Number of steps of the warm-up, instead of its share; only for a total in steps."""
    shape: Decay
    """Decay after the warm-up: linear or cosine to 0; or wsd (warm-up, stable, decay; Hu et al. 2024, MiniCPM), which
    keeps the peak and decays linearly in the last `decay_ratio`."""
    decay_ratio: float
    """Share of the total that is wsd's decay."""
    phases: tuple[Phase, ...]
    """Phases in their order; their shares add up to 1."""

    def learning_rate(self, position: float, size: float) -> float:
        """Return the learning rate of the update at `position`, which advances it by `size` (above 0).

        Counted in steps (size 1), the first update has the rate peak / (warm-up steps). The last update of the warm-up
        and the one after it have the peak. The last update of all has a rate above 0, so that no step is wasted.
        transformers' `get_linear_schedule_with_warmup` is one step later during the warm-up, and equal after it.

        >>> values = {"peak": 1.0, "warmup_ratio": 0.34, "shape": "linear", "decay_ratio": 0.2, "phases": ()}
        >>> schedule = Schedule(unit="steps", total=6, **values)
        >>> [schedule.learning_rate(step, 1) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        warmup = self._warmup()
        first_peak = self.peak * (self.phases[0].learning_rate if self.phases else 1.0)
        if position < warmup:
            return first_peak * min(1.0, (position + size) / warmup)
        if self.phases and self.phases[0].decay:
            return self._rate_in_phase(position, warmup)
        left = max(0.0, (self.total - position) / (self.total - warmup))
        if self.shape == "cosine":
            return self.peak * 0.5 * (1 - math.cos(math.pi * left))
        if self.shape == "wsd":
            return self.peak * min(1.0, max(0.0, self.total - position) / (self.total * self.decay_ratio))
        return self.peak * left

    def _warmup(self) -> float:
        """Return the length of the warm-up."""
        if self.unit == "steps":
            return int(self.total * self.warmup_ratio) if self.warmup_steps is None else self.warmup_steps
        return self.total * self.warmup_ratio

    def _rate_in_phase(self, position: float, warmup: float) -> float:
        """Return the learning rate of the update at `position`, after the warm-up, by the shape of its phase.

        As in the shapes of the whole training, the first update of a phase has the rate of its beginning, and its last
        update has not quite reached the final one.
        """
        number = self._phase_number(position)
        phase, borders = self.phases[number], [warmup, *self.phase_ends()[:-1], self.total]
        left = max(0.0, (borders[number + 1] - position) / (borders[number + 1] - borders[number]))
        share = {
            "constant": 1.0,
            "linear": left,
            "cosine": 0.5 * (1 - math.cos(math.pi * left)),
            "sqrt": 1 - math.sqrt(max(0.0, 1 - left)),
        }[phase.decay or "constant"]
        return self.peak * (phase.final_learning_rate + (phase.learning_rate - phase.final_learning_rate) * share)

    def phase_at(self, position: float) -> Phase:
        """Return the phase of the update at `position`; after the end, the last phase."""
        return self.phases[self._phase_number(position)]

    def _phase_number(self, position: float) -> int:
        return min(bisect_right(self.phase_ends(), position), len(self.phases) - 1)

    def phase_ends(self) -> list[float]:
        """Return the position at which each phase has ended, and the next one begins."""
        ends = accumulate(phase.share * self.total for phase in self.phases)
        # Rounded, so that floating-point error in a sum of shares does not move a border.
        return [end if self.unit == "seconds" else round(end) for end in ends]

    def check_phases(self) -> None:
        """Raise ValueError if a phase has no step, or the warm-up ends after a first phase with its own learning rate."""
        ends = self.phase_ends()
        for number, (begin, end) in enumerate(zip([0, *ends], ends), 1):
            if self.unit == "steps" and begin == end:
                share = self.phases[number - 1].share
                raise ValueError(
                    f"phases: phase {number} has no step, because its share is {share:g} of {self.total:g} steps: give it a "
                    f"larger share, or train for at least {math.ceil(1 / share):,} steps"
                )
        if self.phases[0].decay and self._warmup() >= ends[0]:
            raise ValueError(
                f"phases: the warm-up of {self._warmup():g} {self.unit} is not over before the end of the first phase, "
                f"which has {ends[0]:g}: give a shorter warm-up, or this phase a larger share"
            )

    def is_over(self, position: float) -> bool:
        """Return whether no update is left."""
        return position >= self.total


def parse_phases(words: Sequence[str], batch_size: int) -> tuple[Phase, ...]:
    """Return the phases written as `LENGTH:SHARE` or `LENGTH:SHARE:BATCH_SIZE`.

    >>> [(phase.max_seq_length, phase.share, phase.batch_size) for phase in parse_phases(["128:0.9", "512:0.1:64"], 256)]
    [(128, 0.9, 256), (512, 0.1, 64)]
    """
    phases = []
    for word in words:
        match = re.fullmatch(r"(\d+):(\d*\.?\d+)(?::(\d+))?", word)
        if not match:
            raise ValueError(
                f"phases: {word!r} is not LENGTH:SHARE or LENGTH:SHARE:BATCH_SIZE: write 128:0.9 or 512:0.1:256"
            )
        size = int(match[3]) if match[3] else batch_size
        phases.append(Phase(max_seq_length=int(match[1]), share=float(match[2]), batch_size=size))
        if not 0 < phases[-1].share <= 1 or size < 1:
            raise ValueError(
                f"phases: {word!r}: expected a share above 0 and at most 1, and a batch size of at least 1"
            )
    check_shares([phase.share for phase in phases], " ".join(words))
    return tuple(phases)


def check_shares(shares: Sequence[float], name: str) -> None:
    """Raise ValueError unless the shares of the phases of this name add up to 1."""
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"phases: the shares of {name} add up to {sum(shares):g}, expected 1")


def check_learning_rate(rate: float, usual_exponent: int) -> None:
    """Raise ValueError for a learning rate of which an exponent, or its minus sign, was probably forgotten.

    >>> check_learning_rate(5.0, -5)
    Traceback (most recent call last):
    ValueError: learning_rate=5 must be above 0 and at most 1: was 5e-05 meant?
    """
    if 0 < rate <= MAX_LEARNING_RATE:
        return
    advice = ""
    if rate > 0:
        digits, exponent = f"{rate:e}".split("e")
        meant = -int(exponent) if 3 <= int(exponent) <= 8 else usual_exponent
        advice = f": was {float(f'{digits}e{meant}'):g} meant?"
    raise ValueError(f"learning_rate={rate:g} must be above 0 and at most {MAX_LEARNING_RATE:g}{advice}")


def parse_budget(text: str) -> float:
    """Return the seconds in `1h`, `90m`, `1h30m` or `45s`.

    >>> parse_budget("1h30m")
    5400.0
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    seconds = sum(float(part) * scale for part, scale in zip(match.groups("0"), (3600, 60, 1))) if match else 0.0
    if not 0 < seconds < 2**63:
        raise ValueError(f"budget={text!r} is not a duration: write 1h, 90m, 1h30m or 45s")
    return seconds

"""How far a training run is: one value, replaced after every step and saved in every checkpoint."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from bertloom.shapes import MAY_LACK
from model.loading.order import parse_shuffle
from model.loading.sources import MAX_NAME, MAX_SOURCES
from model.loading.stream import START, Leg, extend
from model.precision import LARGEST_LOSS_SCALE, SCALE_STEPS, first_loss_scale

Unit = Literal["steps", "tokens", "seconds"]
OLD_WEIGHT, NEW_WEIGHT = 0.98, 0.02
"""Weights of the mean so far and of the new loss in the running mean."""
LEG_LIMITS = (("max_seq_length", 1, 1 << 20), ("batch_size", 1, 1 << 24), ("item", 0, 1 << 62), ("seed", 0, 1 << 63))
"""Lowest value of each number of a leg, and the bound above it, generous enough for any run."""
SOURCE_LIMITS = (("share", 0, 1 << 20), ("mean_tokens", 1, 1 << 20), ("first", 0, 1 << 62), ("limit", 0, 1 << 62))
"""Lowest value of each number of a leg's data set, and the bound above it. The limit may also be None."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a training loop carries from step to step."""

    step: int = 0
    """Number of updates, skipped ones included."""
    tokens: int = 0
    """Real tokens read, of all lengths."""
    seconds: float = 0.0
    """Wall-clock time of training. Time between a stop and its restart does not count; a budget is measured in it."""
    loss_mean: float | None = None
    """Running mean of the training loss, which a spike is compared with; None before the first update."""
    stream: str = START
    """Stream digest after the last step, see `model/loading/stream.py`; fine-tuning has none."""
    legs: tuple[Leg, ...] = ()
    """Which rows were read from which step on; fine-tuning has none."""
    loss_scale: float | None = None
    """Factor of the loss in the next backward pass in fp16, where small gradients would be 0; None in other precisions."""
    scale_steps: int = 0
    """Number of steps since the loss scale changed."""
    tokens_by_source: dict[str, int] = field(default_factory=dict, metadata=MAY_LACK)
    """Real tokens read of each data set, by name, if the run has several."""

    def count(self, unit: Unit) -> float:
        """Return the progress in one unit, as a schedule counts it."""
        return {"steps": self.step, "tokens": self.tokens, "seconds": self.seconds}[unit]

    def in_precision(self, precision: str) -> "Progress":
        """Return the progress with a loss scale if the precision needs one, and else without."""
        scale = first_loss_scale(precision)
        return self if (scale is None) == (self.loss_scale is None) else replace(self, loss_scale=scale, scale_steps=0)

    def after_step(
        self,
        *,
        num_tokens: int,
        seconds: float,
        loss: float | None,
        rows_sum: int | None = None,
        legs: Sequence[Leg] = (),
        tokens_by_source: Sequence[int] = (),
    ) -> "Progress":
        """Return the progress after one more step.

        Args:
            num_tokens: real tokens of the global batch.
            seconds: wall-clock time of training at the end of the step.
            loss: the loss of the step; None if its update was skipped.
            rows_sum: sum of the hashes of the rows that were read; None leaves the stream digest as it is.
            legs: the legs up to and including this step.
            tokens_by_source: real tokens of the global batch, for each data set of the last leg; empty if unknown.
        """
        mean = self.loss_mean
        if loss is not None:
            mean = loss if mean is None else OLD_WEIGHT * mean + NEW_WEIGHT * loss
        scale, scale_steps = self.loss_scale, self.scale_steps + 1
        if scale is not None and loss is None:
            scale, scale_steps = max(1.0, scale / 2), 0
        elif scale is not None and scale_steps == SCALE_STEPS:
            scale, scale_steps = min(LARGEST_LOSS_SCALE, scale * 2), 0
        return Progress(
            loss_scale=scale,
            scale_steps=0 if scale is None else scale_steps,
            step=self.step + 1,
            tokens=self.tokens + num_tokens,
            seconds=seconds,
            loss_mean=mean,
            stream=self.stream if rows_sum is None else extend(self.stream, rows_sum),
            legs=tuple(legs),
            tokens_by_source=self.tokens_by_source | add_tokens(self.tokens_by_source, legs, tokens_by_source),
        )

    def check(self) -> None:
        """Raise ValueError if a value is impossible: a file may hold anything."""
        if self.step < 0 or self.tokens < 0 or self.seconds < 0:
            raise ValueError(f"step {self.step}, tokens {self.tokens} and seconds {self.seconds:g} must be at least 0")
        if not re.fullmatch("[0-9a-f]{16}", self.stream):
            raise ValueError(f"the stream digest {self.stream[:20]!r} is not 16 hexadecimal digits")
        if self.scale_steps < 0 or (self.loss_scale is not None and not 1 <= self.loss_scale <= LARGEST_LOSS_SCALE):
            raise ValueError(
                f"the loss scale {self.loss_scale} after {self.scale_steps} steps: expected 1 to {LARGEST_LOSS_SCALE:g}"
            )
        starts = [leg.step for leg in self.legs]
        if starts and (starts[0] != 0 or starts != sorted(starts)):
            raise ValueError(f"the legs begin at the steps {str(starts)[:80]}, expected 0 and then later ones")
        for leg in self.legs:
            parse_shuffle(leg.shuffle)
            for name, lowest, limit in LEG_LIMITS:
                if not lowest <= getattr(leg, name) < limit:
                    raise ValueError(
                        f"{name} of a leg is {getattr(leg, name)}: expected at least {lowest}, below {limit}"
                    )
            check_sources(leg)
            if leg.masked_lm_prob is not None and not 0 < leg.masked_lm_prob <= 1:
                raise ValueError(f"masked_lm_prob of a leg is {leg.masked_lm_prob:g}: expected above 0, at most 1")
        if sum(self.tokens_by_source.values()) > self.tokens or min(self.tokens_by_source.values(), default=0) < 0:
            raise ValueError(
                f"tokens_by_source is {str(self.tokens_by_source)[:80]}: expected numbers of at least 0, together at most "
                f"the {self.tokens} tokens of the run"
            )


def add_tokens(before: Mapping[str, int], legs: Sequence[Leg], counts: Sequence[int]) -> dict[str, int]:
    """Return the tokens of each data set of the last leg, by name, after a step that read `counts` of them."""
    sources = legs[-1].sources if counts else ()
    return {source.name: before.get(source.name, 0) + count for source, count in zip(sources, counts)}


def check_sources(leg: Leg) -> None:
    """Raise ValueError if a value of a leg's data sets is impossible."""
    if not leg.sources:
        return
    names = {source.name for source in leg.sources if 0 < len(source.name) <= MAX_NAME}
    if not len(leg.sources) == len(names) <= MAX_SOURCES:
        raise ValueError(
            f"a leg has {len(leg.sources)} data sets: expected at most {MAX_SOURCES}, with different names of 1 to "
            f"{MAX_NAME} characters"
        )
    for source in leg.sources:
        for name, lowest, limit in SOURCE_LIMITS:
            value = getattr(source, name)
            if not (lowest <= value < limit if value is not None else name == "limit"):
                raise ValueError(f"{name} of a data set of a leg is {value}: expected at least {lowest}, below {limit}")
    if not any(source.share for source in leg.sources):
        raise ValueError("a leg has no data set with a share above 0")

"""The best evaluation of a run so far, which `--patience` counts from."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best model of a run so far."""

    step: int | None = None
    """Its step; None before the first evaluation."""
    value: float | None = None
    """Its metric; more is better."""
    num_worse: int = 0
    """Number of evaluations since then."""

    def after(self, step: int, value: float) -> "Best":
        """Return the best after one more evaluation."""
        if self.value is None or value > self.value:
            return Best(step=step, value=value)
        return replace(self, num_worse=self.num_worse + 1)

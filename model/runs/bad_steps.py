"""Bad steps: the loss or the gradient is not finite, or the loss is a spike. Their update is always skipped.

RUN/bad_steps.jsonl lists the examples of each, so that they can be looked at.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bertloom.json_files import check_regular
from bertloom.whole_files import named_errors, write_text

if TYPE_CHECKING:
    from model.step import StepResult

Action = Literal["stop", "skip"]
BadExamples = list[int] | dict[str, list[int]]
"""The numbers of the examples of a step; with several data sets, by their names."""
BAD_STEPS = "bad_steps.jsonl"


@dataclass(frozen=True, kw_only=True)
class BadStepPolicy:
    """Which steps are bad, and what to do about them."""

    action: Action = "stop"
    """stop ends training with an error; skip continues."""
    spike_factor: float | None = None
    """A loss above this multiple of its running mean is a spike; None looks for none."""

    def highest_loss(self, loss_mean: float | None) -> float:
        """Return the loss above which a step is bad."""
        return self.spike_factor * loss_mean if self.spike_factor and loss_mean else math.inf


def describe_bad_step(step: int, result: StepResult) -> str:
    """Return the beginning of a message about a bad step."""
    return f"at step {step:,} the loss is {result.loss:g} and the gradient norm is {result.gradient_norm:g}"


def append_bad_step(path: Path, step: int, result: StepResult, action: Action, examples: BadExamples) -> None:
    """Add a line about a bad step to bad_steps.jsonl."""
    line = {"step": step, "loss": str(result.loss), "gradient_norm": str(result.gradient_norm)}
    with named_errors(path), open(path, "a") as file:
        file.write(json.dumps(line | {"action": action, "examples": examples}) + "\n")


def cut_back(path: Path, step: int) -> None:
    """Remove lines about steps after this one, which will be repeated, and lines that a kill left incomplete."""
    if path.exists():
        lines = re.finditer(r'^{"step": (\d+), .*\n', check_regular(path).read_text(errors="replace"), re.MULTILINE)
        write_text(path, "".join(line[0] for line in lines if int(line[1]) <= step))

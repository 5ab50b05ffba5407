"""The plan of a training, and a recommendation, as lines of text."""

import textwrap
from collections.abc import Sequence
from typing import Any

from bertloom.counts import counted
from jobs.support.preview import size
from jobs.support.text_plan import duration

WIDTH = 100


def training_lines(found: dict[str, Any]) -> list[str]:
    """Return the lines of a plan of a training."""
    lines = [f"{'steps':<18}{found['steps']:>16,}", f"{'tokens':<18}{found['tokens']:>16,}"]
    for phase in found["phases"]:
        head = f"length {phase['max_seq_length']}"
        lines.append(f"{head:<18}{phase['steps']:>16,} steps of {counted(phase['batch_size'], 'example')}")
        for name, one in phase["sources"].items():
            lines.append(f"  {name:<16}{one['tokens']:>16,} tokens, {one['epochs']:.2f} epochs at the end of the phase")
    if found["hours"] is not None:
        lines.append(f"{'time':<18}{duration(3600 * found['hours']):>16}")
    lines.append(f"{'weights':<18}{found['weights']:>16,}")
    lines.append(
        f"{'memory':<18}{size(found['state_bytes']):>16} for weights, gradients and moments; activations are more"
    )
    checkpoints = counted(found["checkpoints"], "checkpoint")
    lines.append(f"{'disk':<18}{size(found['checkpoint_bytes']):>16} for {checkpoints}")
    return [*lines, *found["notes"]]


def advice_lines(advice: Sequence[dict[str, str]]) -> list[str]:
    """Return the lines of a recommendation: each value, and under it the reason."""
    lines = []
    for one in advice:
        lines.append(f"{one['what']:<15}{one['value']}")
        lines += textwrap.wrap(one["why"], WIDTH, initial_indent=" " * 15, subsequent_indent=" " * 15)
    return lines

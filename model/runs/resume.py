"""What may differ between a run's checkpoint and the command that goes on with it."""

from collections.abc import Sequence
from typing import Any

from model.runs.checkpoint import TrainingState

CHANGEABLE = (
    "num_steps",
    "num_tokens",
    "budget",
    "batch_size",
    "phases",
    "max_seq_length",
    "learning_rate",
    "warmup_ratio",
    "decay",
    "decay_ratio",
    "optimizer",
    "weight_decay",
    "max_gradient_norm",
    "seed",
    "shuffle",
    "remask",
    "data",
    "precision",
    "spike_factor",
)
"""What can be changed on the way where it is asked for by name. Neither the model's shape nor the vocabulary can."""


def changes_between(saved: TrainingState, now: TrainingState, allowed: Sequence[str]) -> list[dict[str, Any]]:
    """What is no longer as the run began, `{"step", "name", "before", "after"}` each, for the record.

    What an older checkpoint does not tell of counts as unchanged.

    Raises:
        ValueError: something that decides the numbers has changed and is not among the allowed names.
    """
    changes = []
    before, after = _deciding(saved), _deciding(now)
    for name, old in before.items():
        new = after.get(name)
        if old == new:
            continue
        if name not in allowed:
            raise ValueError(_refusal(name, old, new))
        changes.append({"step": saved.step, "name": name, "before": old, "after": new})
    return changes


def _deciding(state: TrainingState) -> dict[str, Any]:
    values = {"data": state.shards_digest, "seed": state.seed, "order_version": state.order_version}
    values["encoder"] = state.encoder
    return values | state.schedule | {f"model.{name}": value for name, value in state.model.items()}


def _refusal(name: str, old: Any, new: Any) -> str:
    asked = f", or ask for the change by --allow-change {name}" if name in CHANGEABLE else ""
    if name == "data":
        return (
            f"the run was trained on another data set than this (sha256 of shards.parquet {old[:12]}…, now {new[:12]}…): "
            f"give that one, or a new --out{asked}"
        )
    advice = "the learning rate of every step depends on it; " if name in ("num_steps", "num_tokens", "budget") else ""
    return (
        f"{name} is {new}, but this run began with {old}: {advice}"
        f"resume with {old}, or give a new --out to begin another run{asked}"
    )

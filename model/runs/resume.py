"""Compares the settings of a checkpoint with those of the command that resumes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.runs.state import TrainingState

DECIDING = (
    "num_steps",
    "num_epochs",
    "num_tokens",
    "budget",
    "batch_size",
    "phases",
    "learning_rate",
    "warmup_ratio",
    "warmup_steps",
    "decay",
    "decay_ratio",
    "optimizer",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "patience",
    "max_gradient_norm",
    "remask",
    "shuffle",
    "spike_factor",
)
"""Settings of pretraining that decide the numbers, besides those that `TrainingState` has a field for."""
MIXTURE = ("shares", "temperature")
"""Settings of pretraining on several data sets. With one data set, checkpoints do not have them."""
CHANGEABLE = (*DECIDING, *MIXTURE, "max_seq_length", "seed", "data", "precision")
"""Settings of pretraining that `--allow-change` may name. The model's shape and the vocabulary never change."""


def changes_between(
    before: Mapping[str, Any], now: Mapping[str, Any], step: int, allowed: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return the settings that differ, each `{"step", "name", "before", "after"}`, to record them in checkpoints.

    Args:
        step: the step at which they changed.
        allowed: names that `--allow-change` gives; None for a command without this flag. Whoever permits other data sets
            permits their shares, too.

    Raises:
        ValueError: a setting that is not among the allowed names differs.
    """
    changes = []
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        follows = name in MIXTURE and "data" in (allowed or ()) and before.get("data") != now.get("data")
        if name not in (allowed or ()) and not follows:
            can_permit, is_mixture = allowed is not None and name in CHANGEABLE, "shares" in {**before, **now}
            raise ValueError(_refusal(name, old, new, can_permit=can_permit, is_mixture=is_mixture))
        changes.append({"step": step, "name": name, "before": old, "after": new})
    return changes


def settings_of(state: TrainingState) -> dict[str, Any]:
    """Return all settings of pretraining that a resumed run must match, by name."""
    values = {"data": state.shards_digest, "seed": state.seed, "order_version": state.order_version}
    return values | state.schedule | {f"model.{name}": value for name, value in state.model.items()}


def _refusal(name: str, old: Any, new: Any, *, can_permit: bool, is_mixture: bool) -> str:
    permit = f", or permit the change with --allow-change {name}" if can_permit else ""
    if name == "data" and is_mixture:
        return (
            f"the data sets are not those that this run was trained on, in their order (digest of their shards "
            f"{new[:12]}…, expected {old[:12]}…): give the original data sets, or a new --out{permit}"
        )
    if name == "data":
        return (
            f"the data set is not the one that this run was trained on (sha256 of shards.parquet is {new[:12]}…, "
            f"expected {old[:12]}…): give the original data set, or a new --out{permit}"
        )
    if name == "shares":
        old, new = (" ".join(value or ["of one data set"]) for value in (old, new))
    is_length = name in ("num_steps", "num_epochs", "num_tokens", "budget")
    reason = "the learning rate of every step depends on it; " if is_length else ""
    return (
        f"{name} is {new}, but this run began with {old}: {reason}resume with {old}, or give a new --out to start "
        f"another run{permit}"
    )

"""The plan of a training: steps, tokens, epochs of each data set, hours, memory and disk space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.support.pretrain_config import PretrainConfig
from jobs.support.recommendation import num_weights

if TYPE_CHECKING:
    from jobs.support.planned_legs import PlannedLeg
    from model.loading.data_sets import DataSets

WEIGHT_BYTES = 16
"""Bytes of a weight, its gradient and AdamW's two moments, in 32 bits."""
SAVED_BYTES = 12
"""Bytes of a weight and its two moments in a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class PlannedPhase:
    """A phase of a training."""

    max_seq_length: int
    batch_size: int
    steps: int
    tokens: float
    by_source: Mapping[str, tuple[float, float]]
    """Name of a data set -> (tokens of it in the phase, its epochs from the beginning to the end of the phase)."""


class DataPlan(NamedTuple):
    """A training on finished data sets."""

    phases: list[PlannedPhase]
    notes: list[str]
    """Where a data set is used up."""
    vocabulary_size: int
    lengths: list[int]
    """Lengths of the examples that all data sets have."""
    copy_tokens: float
    """Tokens of one copy of all data sets."""


def plan_data(config: PretrainConfig) -> DataPlan:
    """Return the plan of a training on the data sets of a configuration.

    ValueError where `pretrain` would refuse the data, too.
    """
    from jobs.support.planned_legs import announced_ends, check_limits, planned_legs
    from model.loading.stream import continue_legs
    from model.runs.progress import Progress

    data_sets = config.open_data_sets()
    schedule = config.schedule(data_sets)
    for phase in schedule.phases:
        names = [source.name for source in config.sources(phase)]
        data_sets.check_size(names, phase.max_seq_length, phase.batch_size)
    first = tuple(continue_legs([], 0, **config.leg_settings(data_sets, schedule.phases[0])))
    planned = planned_legs(config, data_sets, schedule, Progress(legs=first))
    check_limits(planned, schedule)
    notes = list(announced_ends(planned)) if data_sets.is_mixture else []
    lengths = {s.name: phase.max_seq_length for phase in reversed(schedule.phases) for s in config.sources(phase)}
    found = [data_sets.examples(name, length) for name, length in lengths.items()]
    copies = sum(one.num_tokens / len(one.rows_per_copy) for one in found)
    common = set.intersection(*(set(one.max_seq_lengths("train")) for one in data_sets.by_name.values()))
    return DataPlan(list(_phases(data_sets, planned)), notes, data_sets.vocabulary_size, sorted(common), copies)


def _phases(data_sets: DataSets, planned: Sequence[PlannedLeg]) -> Iterator[PlannedPhase]:
    from model.loading.order import TrainingOrder
    from model.loading.stream import mixture_of

    for number, part in enumerate(planned):
        leg, last = part.leg, part.last_step
        assert last is not None
        begin = leg.step if number == 0 else max(leg.step, planned[number - 1].last_step or 0)
        examples = data_sets.examples_of(leg)
        ends, begins = [leg.item_at(last)], [leg.item_at(begin)]
        firsts, names = [0], list(data_sets.by_name)[:1]
        if leg.sources:
            mixture = mixture_of(leg)
            ends, begins = mixture.num_before(ends[0]), mixture.num_before(begins[0])
            firsts, names = [source.first for source in leg.sources], [source.name for source in leg.sources]
        by_source = {}
        for name, found, start, end, first in zip(names, examples, begins, ends, firsts, strict=True):
            mean = found.num_tokens / sum(found.rows_per_copy)
            order = TrainingOrder(found.rows_per_copy, leg.seed, leg.max_seq_length)
            by_source[name] = (end - start) * mean, order.epochs_before(first + end)
        yield PlannedPhase(
            max_seq_length=leg.max_seq_length,
            batch_size=leg.batch_size,
            steps=last - begin,
            tokens=sum(tokens for tokens, _ in by_source.values()),
            by_source=by_source,
        )


def plan_estimated(config: PretrainConfig, examples: Mapping[str, Any], copies: int) -> list[PlannedPhase]:
    """Return the phases of a training on a data set that is only estimated.

    Args:
        examples: length -> its estimates, as `bertloom plan --json` has them.
        copies: of the data set.
    """
    unit, total = config.length_of_training()
    shortest = min(map(int, examples))
    phases = [replace(phase, max_seq_length=phase.max_seq_length or shortest) for phase in config.all_phases()]
    found = []
    means = {}
    for phase in phases:
        if str(phase.max_seq_length) not in examples:
            lengths = ", ".join(examples)
            raise ValueError(
                f"phases: no examples have the length {phase.max_seq_length}, only {lengths}: give "
                f"--max-seq-length with all lengths"
            )
        one = examples[str(phase.max_seq_length)]
        rows = one["train"]["value"] / copies
        held_out = one.get("validation", {}).get("value", 0) / copies
        means[phase.max_seq_length] = (rows, one["tokens_per_copy"]["value"] / max(1.0, rows + held_out))
    if unit == "epochs":
        rows, _ = means[phases[0].max_seq_length]
        unit, total = "steps", total * rows / phases[0].batch_size
    read = dict.fromkeys(means, 0.0)
    for phase in phases:
        rows, mean = means[phase.max_seq_length]
        part = phase.share * total
        steps = part if unit == "steps" else part / (phase.batch_size * mean)
        read[phase.max_seq_length] += steps * phase.batch_size / max(1.0, rows)
        tokens = steps * phase.batch_size * mean
        found.append(
            PlannedPhase(
                max_seq_length=phase.max_seq_length,
                batch_size=phase.batch_size,
                steps=round(steps),
                tokens=tokens,
                by_source={"all texts": (tokens, read[phase.max_seq_length])},
            )
        )
    return found


def about_training(
    phases: Sequence[PlannedPhase],
    config: PretrainConfig,
    vocabulary_size: int,
    notes: list[str],
    tokens_per_second: float | None,
) -> dict[str, Any]:
    """Return the plan as plain values."""
    weights = num_weights(config, vocabulary_size)
    tokens, steps = sum(phase.tokens for phase in phases), sum(phase.steps for phase in phases)
    kept = min(config.keep_checkpoints + 1, -(-steps // config.save_every))
    return {
        "steps": steps,
        "tokens": round(tokens),
        "phases": [
            {
                "max_seq_length": phase.max_seq_length,
                "batch_size": phase.batch_size,
                "steps": phase.steps,
                "tokens": round(phase.tokens),
                "sources": {
                    name: {"tokens": round(own), "epochs": round(epochs, 3)}
                    for name, (own, epochs) in phase.by_source.items()
                },
            }
            for phase in phases
        ],
        "hours": None if tokens_per_second is None else tokens / tokens_per_second / 3600,
        "weights": weights,
        "state_bytes": WEIGHT_BYTES * weights,
        "checkpoint_bytes": SAVED_BYTES * weights * max(1, kept),
        "checkpoints": max(1, kept),
        "notes": notes,
    }

"""Which rows any step of a pretraining run reads, of the past or the future.

A checkpoint has the legs of the run up to its step: ranges of steps in which the items of a step follow from its number by
arithmetic. What comes later follows from the schedule in config.toml, exactly as training itself continues the legs. Earlier
steps are not read, and torch is not needed.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bertloom.arrays import I64
from jobs.browser.run import BrowsedRun
from jobs.support.config import parse
from jobs.support.pretrain_config import PretrainConfig
from model.loading.data import Examples
from model.loading.data_sets import DataSets, LegReader
from model.loading.order import ORDER_VERSION, TrainingOrder
from model.loading.stream import Leg, continue_legs, mixture_of
from model.runs.state import TrainingState, read_state
from model.schedule import Schedule

ROWS_PER_READ = 8192
MAX_ROWS_READ = 1 << 19
"""Rows whose lengths are read to find the step at which a phase ends, in a run that counts tokens."""


class PlannedStep(NamedTuple):
    """What is known about a step."""

    leg: Leg
    """It decides the items of the step."""
    is_certain: bool
    """Whether it is known at which step each earlier phase ends. If a run counts seconds, it is not."""


class StepRows(NamedTuple):
    """Some of the rows of a step, in their order."""

    indices: list[int]
    """Their numbers among all examples, as `explain` counts."""
    copies: list[int]
    epochs: list[int]
    sources: list[int]
    """Number of each one's data set in the leg; 0 if the run has one data set."""


def plan_step(run: BrowsedRun, step: int, open_data: Callable[[], DataSets]) -> PlannedStep:
    """Return the leg of a step, and whether it is certain.

    Args:
        step: 1 for the first update.
        open_data: return the data sets that the run goes on with; only called for a step after the latest checkpoint.

    Raises:
        ValueError: the run ends before this step, or its configuration cannot be read.
    """
    state = run.state() or _state_of_other_run(run)
    if state and state.order_version != ORDER_VERSION:
        raise ValueError(f"{run.location} has order version {state.order_version}, expected {ORDER_VERSION}")
    done = state.step if state else 0
    if state and step <= done:
        return PlannedStep(next(leg for leg in reversed(state.progress.legs) if leg.step < step), True)
    config = config_of(run)
    if state and state.is_finished and state.schedule.items() >= config.settings().items():
        raise ValueError(f"step={step}: the run has ended after {done:,} steps")
    data_sets = open_data()
    schedule = config.schedule(data_sets)
    if schedule.unit == "steps" and step > schedule.total:
        raise ValueError(f"step={step}: the run ends after {math.ceil(schedule.total):,} steps")
    return _plan_ahead(state, config, schedule, data_sets, step)


def _state_of_other_run(run: BrowsedRun) -> TrainingState | None:
    """Return the state of the checkpoint that a run continues if it has none of its own."""
    other = run.settings.get("resume_from")
    return None if not isinstance(other, str) or other == "None" else read_state(Path(other), TrainingState)


def _plan_ahead(
    state: TrainingState | None, config: PretrainConfig, schedule: Schedule, data_sets: DataSets, step: int
) -> PlannedStep:
    """Return the leg of a step after a checkpoint: go from phase to phase, as training does from step to step."""
    legs: Sequence[Leg] = state.progress.legs if state else ()
    done = state.step if state else 0
    position = state.progress.count(schedule.unit) if state else 0
    while True:
        phase = schedule.phase_at(position)
        legs = continue_legs(legs, done, **config.leg_settings(data_sets, phase))
        leg = legs[-1]
        end = next((end for end in schedule.phase_ends()[:-1] if position < end), None)
        if end is None:
            return PlannedStep(leg, True)
        if schedule.unit == "steps":
            num_steps, size = int(end - position), end - position
        elif schedule.unit == "seconds":
            return PlannedStep(leg, False)
        elif step <= done + math.ceil((end - position) / (leg.batch_size * leg.max_seq_length)):
            return PlannedStep(leg, True)  # no step has more tokens, so the phase cannot end before
        else:
            found = steps_of_tokens(LegReader(data_sets.examples_of(leg), leg), done, end - position)
            data_sets.close()
            if found is None:
                return PlannedStep(leg, False)
            num_steps, size = found
        if step <= done + num_steps:
            return PlannedStep(leg, True)
        done, position = done + num_steps, position + size


def steps_of_tokens(reader: LegReader, done: int, wanted: float) -> tuple[int, int] | None:
    """Return the number of steps after `done` steps that read at least this many tokens, and how many they read.

    Whole epochs of one data set are skipped: shards.parquet has their tokens. None if too many rows would have to be read.
    """
    leg, order = reader.leg, reader.order
    first = item = leg.item_at(done)
    tokens = num_read = 0
    while True:
        end = item + ROWS_PER_READ
        if isinstance(order, TrainingOrder):
            epoch = order.epoch_of(item)
            end, whole = order.epoch_start(epoch + 1), tokens_of_epoch(reader, epoch)
            if item == order.epoch_start(epoch) and tokens + whole < wanted:
                tokens, item = tokens + whole, end
                continue
        if num_read > MAX_ROWS_READ:
            return None
        stop = min(item + ROWS_PER_READ, end)
        sums = tokens + np.cumsum(_lengths(reader, item, stop))
        num_read += stop - item
        if sums[-1] >= wanted:
            reached = item + int(np.searchsorted(sums, wanted))  # the item with which there are enough
            num_steps = -(-(reached + 1 - first) // leg.batch_size)
            last = first + num_steps * leg.batch_size
            rest = int(_lengths(reader, reached + 1, last).sum()) if last > reached + 1 else 0
            return num_steps, int(sums[reached - item]) + rest
        tokens, item = int(sums[-1]), stop


def tokens_of_epoch(reader: LegReader, epoch: int) -> int:
    """Return the tokens of an epoch of a leg with one data set."""
    assert isinstance(reader.examples, Examples)
    shards = reader.examples.shards
    return int(shards.tokens[shards.copies == epoch % len(reader.examples.rows_per_copy)].sum())


def _lengths(reader: LegReader, start: int, stop: int) -> I64:
    copies, rows = reader.order.items(start, stop)
    lengths: I64 = reader.examples.read(copies, rows, with_tokens=False)["lengths"]
    return lengths


def rows_of_step(data_sets: DataSets, leg: Leg, step: int, first: int, count: int) -> StepRows:
    """Return some rows of a step: `count` ones from place `first` of its batch on, fewer at its end."""
    reader = LegReader(data_sets.examples_of(leg), leg)
    start = leg.item_at(step - 1)
    span = start + first, start + min(first + count, leg.batch_size)
    copies, rows = reader.order.items(*span)
    indices, sources = reader.examples.indices(copies, rows), reader.examples.sources_of(copies)
    data_sets.close()
    return StepRows(
        indices.tolist(),
        reader.examples.own_copies(copies).tolist(),
        reader.order.epochs(*span).tolist(),
        [0] * len(rows) if sources is None else sources.tolist(),
    )


def num_of_sources(leg: Leg, step: int) -> list[int]:
    """Return the number of examples of each data set in a step, in the order of the leg."""
    if not leg.sources:
        return [leg.batch_size]
    before, after = (mixture_of(leg).num_before(leg.item_at(number)) for number in (step - 1, step))
    return [end - start for start, end in zip(before, after)]


def config_of(run: BrowsedRun) -> PretrainConfig:
    """Return the configuration of a pretraining run; ValueError if config.toml is damaged."""
    path = run.path / "config.toml"
    return _parse_config(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _parse_config(path: Path, _: int) -> PretrainConfig:
    try:
        return parse(PretrainConfig, [str(path)], prog="bertloom pretrain")
    except SystemExit:
        raise ValueError(f"{path} is not the whole configuration of a pretraining run") from None

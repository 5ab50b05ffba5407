"""What a pretraining run will read of each data set: its legs to come, epochs, and where a data set is used up."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from bertloom.counts import counted
from jobs.support.pretrain_config import PretrainConfig
from model.loading.data_sets import DataSets
from model.loading.order import TrainingOrder
from model.loading.stream import Leg, continue_legs, mixture_of
from model.runs.progress import Progress
from model.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class PlannedLeg:
    """A leg with the steps that it will have."""

    leg: Leg
    last_step: int | None
    """Number of updates after its last one: exact for a schedule in steps, about right for one in tokens, None for one in
    seconds."""


def planned_legs(
    config: PretrainConfig, data_sets: DataSets, schedule: Schedule, progress: Progress
) -> list[PlannedLeg]:
    """Return the legs from the progress to the end of training, the one that the progress is in first.

    If the schedule counts seconds, only the first one is known.
    """
    planned = []
    legs: Sequence[Leg] = progress.legs
    step, position = progress.step, progress.count(schedule.unit)
    for end in [end for end in schedule.phase_ends() if end > position]:
        settings = config.leg_settings(data_sets, schedule.phase_at(position))
        legs = continue_legs(legs, step, **settings)
        if schedule.unit == "seconds":
            return [PlannedLeg(leg=legs[-1], last_step=None)]
        per_step = 1.0 if schedule.unit == "steps" else legs[-1].batch_size * mean_tokens(data_sets, legs[-1])
        step, position = step + math.ceil((end - position) / per_step), end
        planned.append(PlannedLeg(leg=legs[-1], last_step=step))
    return planned


def mean_tokens(data_sets: DataSets, leg: Leg) -> float:
    """Return the mean number of tokens of the items of a leg, before any data set of it is used up."""
    if not leg.sources:
        [examples] = data_sets.examples_of(leg)
        return examples.num_tokens / sum(examples.rows_per_copy)
    stretches = mixture_of(leg).stretches
    counts = (
        stretches[0].counts if stretches else [1] * len(leg.sources)
    )  # without examples, which check_limits refuses
    return sum(count * source.mean_tokens for count, source in zip(counts, leg.sources)) / sum(counts)


def check_limits(planned: Sequence[PlannedLeg], schedule: Schedule) -> None:
    """Raise ValueError if training needs more examples than the data sets have within their limits."""
    for part in planned:
        available = mixture_of(part.leg).num_items if part.leg.sources else None
        if available is None:
            continue
        names = ", ".join(source.name for source in part.leg.sources if source.share)
        if schedule.unit != "steps" or part.last_step is None:
            raise ValueError(
                f"data: {names} all have limits of epochs, and with a length in {schedule.unit} it is not known when they "
                f"are used up: give --num-steps, or leave out a limit"
            )
        needed = part.leg.item_at(part.last_step)
        if needed > available:
            steps = part.leg.step + available // part.leg.batch_size
            raise ValueError(
                f"data: {names} have {available:,} examples of length {part.leg.max_seq_length} within their limits of "
                f"epochs, enough up to step {steps:,}, and training needs {needed:,}: train for fewer steps, raise a limit, "
                f"or leave one out"
            )


def described_data(
    data_sets: DataSets, schedule: Schedule, legs: Sequence[Leg], planned: Sequence[PlannedLeg]
) -> Iterator[str]:
    """Yield the lines about the data at the start of training.

    Args:
        legs: a leg for each phase.
        planned: the legs to come.
    """
    if data_sets.is_mixture:
        yield from described_sources(data_sets, planned)
        yield from announced_ends(planned)
        return
    for length in sorted({leg.max_seq_length for leg in legs}):
        [examples] = data_sets.examples_of(next(leg for leg in legs if leg.max_seq_length == length))
        rows, epochs = examples.rows_per_copy, ""
        if schedule.unit == "steps":
            phases = [phase for phase in schedule.phases if phase.max_seq_length == length]
            items = sum(phase.share * schedule.total * phase.batch_size for phase in phases)
            epochs = f", read for {items / (sum(rows) / len(rows)):.1f} epochs of one copy each"
        yield f"length {length}: {counted(sum(rows), 'example')} in {counted(len(rows), 'copy', 'copies')}{epochs}"


def described_sources(data_sets: DataSets, planned: Sequence[PlannedLeg]) -> Iterator[str]:
    """Yield a line for each data set of each leg: its examples, its share, and the epochs at the end of the leg."""
    for part in planned:
        leg = part.leg
        total = sum(source.share for source in leg.sources)
        for number, (source, examples) in enumerate(zip(leg.sources, data_sets.examples_of(leg))):
            rows = examples.rows_per_copy
            line = (
                f"length {leg.max_seq_length}, {source.name}: {counted(sum(rows), 'example')} in "
                f"{counted(len(rows), 'copy', 'copies')}, share of the tokens {source.share / total:.4g}"
            )
            if part.last_step is not None:
                end = source.first + mixture_of(leg).num_before(leg.item_at(part.last_step))[number]
                order = TrainingOrder(rows, leg.seed, leg.max_seq_length)
                line += f", read for {order.epochs_before(end):.1f} epochs of one copy each"
                line += f" by step {part.last_step:,}" if len(planned) > 1 else ""
            yield line


def announced_ends(planned: Sequence[PlannedLeg]) -> Iterator[str]:
    """Yield a line for each data set that its limit ends before or during training, and the shares of the others then."""
    for part in planned:
        leg = part.leg
        ended = {number for number, source in enumerate(leg.sources) if source.num_left == 0}
        for number in sorted(ended):
            if leg.sources[number].share:
                yield f"{leg.sources[number].name} is used up before step {leg.step + 1:,}{shares_without(leg, ended)}"
        for number, item in mixture_of(leg).used_up() if leg.sources else ():
            step = leg.step + item // leg.batch_size
            ended.add(number)
            if part.last_step is not None and step >= part.last_step:
                break
            since = f" since step {leg.step:,}" if leg.step else ""
            yield (
                f"{leg.sources[number].name} is used up at about step {step:,}, after {item:,} examples of all data sets"
                f"{since}{shares_without(leg, ended)}"
            )


def shares_without(leg: Leg, ended: Collection[int]) -> str:
    """Return the end of a line about a data set that is used up: the shares of those without these numbers, if any."""
    left = [source for number, source in enumerate(leg.sources) if number not in ended and source.share]
    total = sum(source.share for source in left)
    shares = ", ".join(f"{source.name} {source.share / total:.4g}" for source in left)
    return f"; its share then goes to the others: {shares}" if left else ""

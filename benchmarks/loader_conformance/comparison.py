"""Compare the global batches of an interrupted training with those of an uninterrupted one.

A step of a run is a `Step`: the rows of each rank, in its micro-batches. Loaders do not say how the rows of ranks form one
ordered list. So a run is put together in three ways, and the best outcome counts. A loader that knows the place of each
row in its global batch is put together by these places alone.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest


@dataclass(frozen=True, kw_only=True)
class Step:
    """The rows of a step."""

    epoch: int
    rows: Sequence[Sequence[Sequence[int]]]
    """Row numbers by rank, micro-batch and place in it."""
    places: Sequence[Sequence[Sequence[int]]] | None = None
    """Place of each of these rows in the global batch, if the loader knows it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run compares with the uninterrupted one."""

    kind: str
    """A key of `KINDS`."""
    num_lost: int = 0
    num_repeated: int = 0
    message: str = ""
    """The first line of a refusal, or the reason why the loader has no such feature."""


KINDS = ("exact", "batch order", "epoch order", "lost", "refused", "hangs", "not offered")
"""From the best to the worst: the same ordered global batches; each global batch has the same rows in another order; each
epoch has the same rows in other global batches; rows are lost or repeated in an epoch; an error; the time limit passed; the
loader has no such feature."""

BatchOfStep = Callable[[Step], list[int]]


def by_rank(step: Step) -> list[int]:
    """Return the rows of a step: the micro-batches of rank 0, then those of rank 1."""
    return [row for rank in step.rows for part in rank for row in part]


def by_pass(step: Step) -> list[int]:
    """Return the rows of a step: the first micro-batch of each rank, then the second one of each."""
    return [row for parts in zip_longest(*step.rows, fillvalue=()) for part in parts for row in part]


def by_turns(step: Step) -> list[int]:
    """Return the rows of a step: in each pass a row of each rank in turn."""
    rows: list[int] = []
    for parts in zip_longest(*step.rows, fillvalue=()):
        for turn in zip_longest(*parts):
            rows += [row for row in turn if row is not None]
    return rows


def by_places(step: Step) -> list[int]:
    """Return the rows of a step in the order of their places."""
    assert step.places is not None
    flat = [chain.from_iterable(chain.from_iterable(nested)) for nested in (step.places, step.rows)]
    return [row for _, row in sorted(zip(*flat))]


def compare(expected: Sequence[Step], found: Sequence[Step]) -> Outcome:
    """Return the best outcome over the ways to put the rows of ranks together."""
    ways: Sequence[BatchOfStep] = (by_rank, by_pass, by_turns)
    if any(step.places is not None for step in (*expected, *found)):
        ways = (by_places,)
    outcomes = [compare_batches(batches_of(expected, way), batches_of(found, way)) for way in ways]
    return min(outcomes, key=lambda outcome: KINDS.index(outcome.kind))


def batches_of(steps: Sequence[Step], way: BatchOfStep) -> list[tuple[int, list[int]]]:
    """Return the epoch and the ordered rows of each global batch."""
    return [(step.epoch, way(step)) for step in steps]


def compare_batches(
    expected: Sequence[tuple[int, Sequence[int]]], found: Sequence[tuple[int, Sequence[int]]]
) -> Outcome:
    """Compare global batches, each with its epoch.

    >>> compare_batches([(0, [1, 2]), (0, [3])], [(0, [1, 3]), (0, [3])])
    Outcome(kind='lost', num_lost=1, num_repeated=1, message='')
    """
    ours, theirs = ([(epoch, list(rows)) for epoch, rows in batches] for batches in (expected, found))
    if ours == theirs:
        return Outcome(kind="exact")
    if [(epoch, sorted(rows)) for epoch, rows in ours] == [(epoch, sorted(rows)) for epoch, rows in theirs]:
        return Outcome(kind="batch order")
    counts = [Counter((epoch, row) for epoch, rows in batches for row in rows) for batches in (ours, theirs)]
    num_lost, num_repeated = (counts[0] - counts[1]).total(), (counts[1] - counts[0]).total()
    if not num_lost and not num_repeated:
        return Outcome(kind="epoch order")
    return Outcome(kind="lost", num_lost=num_lost, num_repeated=num_repeated)

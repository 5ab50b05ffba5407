"""The stream digest: which rows training has read, in which order, in one number.

Each step sums, modulo 2^64, a hash of every row of its global batch: of the row's place in the batch and of its values as
read. The sum does not depend on which rank or micro-batch read a row, so every layout gives the same number. The sums of
all steps are chained. `docs/training.md`, section "The stream digest", is the definition;
`model/runs/verify.py` recomputes it from the data set.

Dimensions in the comments: T real tokens, N examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertloom.draws import draw, fold, fold_int


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A range of steps in which the items of a step follow from its number by plain arithmetic."""

    step: int
    """Number of updates before its first one."""
    max_seq_length: int
    """Length of the examples that it reads."""
    item: int
    """First item, in the order of that length."""
    batch_size: int
    """Number of examples per step."""
    seed: int
    """Seed of the order."""
    shuffle: str = "global"
    """Kind of order: `global` or `window:K`."""
    shards_digest: str
    """sha256 of the data set's shards.parquet."""

    def item_at(self, step: int) -> int:
        """Return the first item of the update after `step` updates."""
        return self.item + (step - self.step) * self.batch_size


def continue_legs(
    legs: Sequence[Leg],
    step: int,
    *,
    max_seq_length: int,
    batch_size: int,
    seed: int,
    shuffle: str,
    shards_digest: str,
) -> list[Leg]:
    """Return the legs of a run that continues at `step` with these settings: the same legs, or one more.

    A new leg begins at the item after the last leg over the same examples, or at item 0.

    >>> fixed = {"seed": 1, "shuffle": "global", "shards_digest": ""}
    >>> legs = continue_legs([], 0, max_seq_length=128, batch_size=4, **fixed)
    >>> legs = continue_legs(legs, 9, max_seq_length=512, batch_size=2, **fixed)
    >>> legs = continue_legs(legs, 10, max_seq_length=128, batch_size=2, **fixed)
    >>> [(leg.max_seq_length, leg.step, leg.item) for leg in legs]
    [(128, 0, 0), (512, 9, 0), (128, 10, 36)]
    """
    examples = (max_seq_length, seed, shuffle, shards_digest)
    if legs and (*examples, batch_size) == (*_examples_of(legs[-1]), legs[-1].batch_size):
        return list(legs)
    ends = [leg.step for leg in legs[1:]] + [step]
    item = max((leg.item_at(end) for leg, end in zip(legs, ends) if _examples_of(leg) == examples), default=0)
    new = Leg(
        step=step,
        max_seq_length=max_seq_length,
        item=item,
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        shards_digest=shards_digest,
    )
    return [*legs, new]


def _examples_of(leg: Leg) -> tuple[int, int, str, str]:
    return leg.max_seq_length, leg.seed, leg.shuffle, leg.shards_digest


def extend(digest: str, total: int) -> str:
    """Return the digest after a step whose row hashes sum to `total`. Before the first step it is `START`."""
    return f"{fold_int(int(digest, 16), total):016x}"


START = f"{0:016x}"


def rows_sum(columns: Mapping[str, np.ndarray], places: np.ndarray) -> int:
    """Return the sum of the rows' hashes modulo 2^64.

    Args:
        columns: from `Examples.read`, with tokens.
        places: int64 (N,), each row's place in its global batch.
    """
    return int(row_hashes(columns, places).sum())


def row_hashes(columns: Mapping[str, np.ndarray], places: np.ndarray) -> np.ndarray:
    """Return one hash per row, uint64 (N,)."""
    scalars = [columns[name] for name in ("lengths", "segment_b_start", "num_masks", "labels")]
    return fold(places, *scalars, *columns["list_sums"])


def list_sums(column: int, lists: np.ndarray) -> np.ndarray:
    """Return the sum of value times weight of each list, modulo 2^64. Odd weights detect every change of one value.

    Args:
        column: 1, 2, …
        lists: (N, longest), of any unsigned type, padded with zeros.

    Returns:
        uint64 (N,)
    """
    weights = list_weights(column, lists.shape[1])[: lists.shape[1]]
    return np.einsum("ij,j->i", lists.astype(np.uint64), weights)  # products and sums wrap


_weights: dict[int, np.ndarray] = {}


def list_weights(column: int, size: int) -> np.ndarray:
    """Return the weights of at least the first `size` values of a list, uint64: draw(column, j) made odd."""
    known = _weights.get(column)
    if known is None or len(known) < size:
        count = 1 << max(size, 512).bit_length()
        known = _weights[column] = draw(np.array([column], np.uint64), np.arange(count)) | np.uint64(1)
    return known

"""The stream digest: which rows training has read, in which order, in one number.

Each step adds up, modulo 2^64, a hash of every row of its global batch, made of the row's place in that batch and of
the values as they were read. A sum does not depend on which rank or micro-batch read a row, so any layout gets the same
number; the sums of all steps are chained. `docs/training.md`, section "The stream digest", is the definition;
`model/runs/verify.py` computes it again from the data set.

Dimensions in the comments: T real tokens, N examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertloom.draws import draw, fold, fold_int


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A stretch of training in which the place of a step's examples in the order is plain arithmetic."""

    step: int
    """Updates done when it begins."""
    max_seq_length: int
    """Of the examples that it reads."""
    item: int
    """The item of that length's order that it begins with."""
    batch_size: int
    """Examples in a step."""
    seed: int
    """Of the order."""
    shuffle: str = "global"
    """Which order: `global` or `window:K`."""
    shards_digest: str
    """sha256 of the data set's shards.parquet."""

    def item_at(self, step: int) -> int:
        """The first item of the update after `step` of them."""
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
    """The legs of a run that goes on at `step` in this way: the same ones, or one more.

    A new leg begins where the last one over the same examples ended, or at item 0.

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
    """The digest behind a step whose rows add up to `total`. Before the first step it is `START`."""
    return f"{fold_int(int(digest, 16), total):016x}"


START = f"{0:016x}"


def rows_sum(columns: Mapping[str, np.ndarray], places: np.ndarray) -> int:
    """Sum of the rows' hashes modulo 2^64.

    Args:
        columns: what `Examples.read` gives, with tokens.
        places: int64 (N,), each row's place in its global batch.
    """
    return int(row_hashes(columns, places).sum())


def row_hashes(columns: Mapping[str, np.ndarray], places: np.ndarray) -> np.ndarray:
    """One hash a row, uint64 (N,)."""
    scalars = [columns[name] for name in ("lengths", "segment_b_start", "num_masks", "labels")]
    return fold(places, *scalars, *columns["list_sums"])


def list_sums(column: int, lists: np.ndarray) -> np.ndarray:
    """Of each list the sum of value times weight, modulo 2^64; weights are odd, so no change of one value is missed.

    Args:
        column: 1, 2, …
        lists: (N, longest), of any unsigned type, with zeros behind the shorter ones.

    Returns:
        uint64 (N,)
    """
    weights = list_weights(column, lists.shape[1])[: lists.shape[1]]
    return np.einsum("ij,j->i", lists.astype(np.uint64), weights)  # products and sums wrap


_weights: dict[int, np.ndarray] = {}


def list_weights(column: int, size: int) -> np.ndarray:
    """The weights of the first `size` values of a list or more, uint64: draw(column, j) made odd."""
    known = _weights.get(column)
    if known is None or len(known) < size:
        count = 1 << max(size, 512).bit_length()
        known = _weights[column] = draw(np.array([column], np.uint64), np.arange(count)) | np.uint64(1)
    return known

"""The stream digest: which rows training has read, in which order, in one number.

Each step sums, modulo 2^64, a hash of every row of its global batch: of the row's place in the batch and of its values as
read. The sum does not depend on which rank or micro-batch read a row, so every layout gives the same number. The sums of
all steps are chained. `docs/training.md`, section "The stream digest", is the definition;
`model/runs/verify.py` recomputes it from the data set.

Dimensions in the comments: T real tokens, N examples.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np

from bertloom.draws import MIXTURE_ORDER, draw, fold, fold_int
from bertloom.shapes import MAY_LACK
from model.loading.mixture import Mixture


@dataclass(frozen=True, kw_only=True)
class LegSource:
    """A data set of a leg that reads several."""

    name: str
    shards_digest: str
    """sha256 of its shards.parquet."""
    share: float
    """Its share of the tokens, in proportion to the shares of the other sources."""
    mean_tokens: float
    """Mean number of tokens of its examples."""
    first: int = 0
    """Item in its own order that is its first one in this leg."""
    limit: int | None = None
    """Item in its own order at which it is used up; None if it has no limit."""

    @property
    def num_left(self) -> int | None:
        """Number of items that it has in this leg; None if it has no limit."""
        return None if self.limit is None else max(0, self.limit - self.first)


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A range of steps in which the items of a step follow from its number by plain arithmetic."""

    step: int
    """Number of updates before its first one."""
    max_seq_length: int
    """Length of the examples that it reads."""
    item: int
    """First item, in the order of that length; 0 with several data sets, whose items count from the first step."""
    batch_size: int
    """Number of examples per step."""
    seed: int
    """Seed of the order."""
    shuffle: str = "global"
    """Kind of order: `global` or `window:K`."""
    shards_digest: str
    """sha256 of the data set's shards.parquet; with several data sets see `digest_of_all`."""
    sources: tuple[LegSource, ...] = field(default=(), metadata=MAY_LACK)
    """The data sets, if the run has several."""
    masked_lm_prob: float | None = field(default=None, metadata=MAY_LACK)
    """Share of the tokens that new masks are drawn for; None for the data set's own share."""

    def digests(self) -> dict[str, str]:
        """Return the sha256 of the shards.parquet of each data set by its name, which is empty if the run has one."""
        return {source.name: source.shards_digest for source in self.sources} or {"": self.shards_digest}

    def item_at(self, step: int) -> int:
        """Return the first item of the update after `step` updates."""
        return self.item + (step - self.step) * self.batch_size


@lru_cache(maxsize=8)
def mixture_of(leg: Leg) -> Mixture:
    """Return the sources of the items of a leg with several data sets."""
    weights = [Fraction(str(source.share)) / Fraction(str(source.mean_tokens)) for source in leg.sources]
    return Mixture(
        weights, [source.num_left for source in leg.sources], leg.seed, MIXTURE_ORDER, leg.max_seq_length, leg.step
    )


def continue_legs(
    legs: Sequence[Leg],
    step: int,
    *,
    max_seq_length: int,
    batch_size: int,
    seed: int,
    shuffle: str,
    shards_digest: str,
    sources: Sequence[LegSource] = (),
    masked_lm_prob: float | None = None,
) -> list[Leg]:
    """Return the legs of a run that continues at `step` with these settings: the same legs, or one more.

    A new leg begins at the item after the last leg over the same examples, or at item 0. With several data sets it begins
    so in each of them.

    >>> fixed = {"seed": 1, "shuffle": "global", "shards_digest": ""}
    >>> legs = continue_legs([], 0, max_seq_length=128, batch_size=4, **fixed)
    >>> legs = continue_legs(legs, 9, max_seq_length=512, batch_size=2, **fixed)
    >>> legs = continue_legs(legs, 10, max_seq_length=128, batch_size=2, **fixed)
    >>> [(leg.max_seq_length, leg.step, leg.item) for leg in legs]
    [(128, 0, 0), (512, 9, 0), (128, 10, 36)]
    """
    new = Leg(
        step=step,
        max_seq_length=max_seq_length,
        item=0,
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        shards_digest=shards_digest,
        sources=tuple(sources),
        masked_lm_prob=masked_lm_prob,
    )
    if legs and without_place(legs[-1]) == without_place(new):
        return list(legs)
    ends: dict[str, int] = {}
    for leg, following in zip(legs, [leg.step for leg in legs[1:]] + [step]):
        if (leg.max_seq_length, leg.seed, leg.shuffle) == (max_seq_length, seed, shuffle):
            for digest, end in _ends(leg, following):
                ends[digest] = max(end, ends.get(digest, 0))
    if not sources:
        return [*legs, replace(new, item=ends.get(shards_digest, 0))]
    begun = tuple(replace(source, first=ends.get(source.shards_digest, 0)) for source in sources)
    return [*legs, replace(new, sources=begun)]


def without_place(leg: Leg) -> Leg:
    """Return a leg over the same examples, at item 0."""
    return replace(leg, step=0, item=0, sources=tuple(replace(source, first=0) for source in leg.sources))


def _ends(leg: Leg, step: int) -> Iterator[tuple[str, int]]:
    """Yield the digest of each data set that a leg reads, and the item in its order after the last one before `step`."""
    if not leg.sources:
        yield leg.shards_digest, leg.item_at(step)
    else:
        for source, count in zip(leg.sources, mixture_of(leg).num_before(leg.item_at(step))):
            yield source.shards_digest, source.first + count


def digest_of_all(shards_digests: Sequence[str]) -> str:
    """Return the digest of several data sets: the sha256 of theirs, a line each; with one data set, its own.

    Args:
        shards_digests: sha256 of the shards.parquet of each.
    """
    if len(shards_digests) == 1:
        return shards_digests[0]
    return hashlib.sha256("".join(f"{digest}\n" for digest in shards_digests).encode()).hexdigest()


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

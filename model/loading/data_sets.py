"""The data sets of a run: one, or several that are read as a mixture.

Several must have the same tokenizer, and examples of all lengths that are trained on. In a mixture the copies of all data
sets are numbered one after the other, so that a row is still a (copy, row).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64
from model.loading.cache import DEFAULT_CACHE_GB
from model.loading.data import DataSet, Examples
from model.loading.mixture import MixedOrder
from model.loading.order import ItemsAhead, TrainingOrder
from model.loading.sources import Source, token_shares
from model.loading.stream import Leg, LegSource, digest_of_all, mixture_of

if TYPE_CHECKING:
    from model.batch import PackedBatch


class DataSets:
    """The data sets of a run by name.

    Raises:
        ValueError: two of them are the same one, or have different tokenizers.
    """

    def __init__(self, by_name: Mapping[str, DataSet]) -> None:
        self.by_name = dict(by_name)
        self.first = next(iter(self.by_name.values()))
        """The data set whose tokenizer files are used. The other data sets have the same tokenizer."""
        self.vocabulary_sha256, self.vocabulary_size = self.first.vocabulary_sha256, self.first.vocabulary_size
        self.shards_digest = digest_of_all([data_set.shards_digest for data_set in self.by_name.values()])
        known: dict[str, str] = {}
        for name, data_set in self.by_name.items():
            self._check_tokenizer(name, data_set)
            if (other := known.setdefault(data_set.shards_digest, name)) != name:
                raise ValueError(
                    f"data: {name} ({data_set.folder}) and {other} ({self.by_name[other].folder}) have the same shards: "
                    f"give the data set once, with the sum of the shares"
                )
            data_set.num_sharing = len(self.by_name)
        self._examples: dict[tuple[str, int], Examples] = {}

    def _check_tokenizer(self, name: str, data_set: DataSet) -> None:
        if data_set.vocabulary_sha256 != self.first.vocabulary_sha256:
            first = next(iter(self.by_name))
            raise ValueError(
                f"data: the tokenizer of {name} ({data_set.folder}, {data_set.vocabulary_size:,} words, sha256 "
                f"{data_set.vocabulary_sha256[:12]}…) differs from the tokenizer of {first} ({self.first.folder}, "
                f"{self.first.vocabulary_size:,} words, sha256 {self.first.vocabulary_sha256[:12]}…): preprocess both with "
                f"the same vocabulary, which `bertloom build-vocab` builds from all texts"
            )

    @property
    def is_mixture(self) -> bool:
        """Whether there are several."""
        return len(self.by_name) > 1

    def examples(self, name: str, max_seq_length: int) -> Examples:
        """Return the training examples of a data set, which are opened once."""
        found = self._examples.get((name, max_seq_length)) or self.by_name[name].examples("train", max_seq_length)
        return self._examples.setdefault((name, max_seq_length), found)

    def of(self, sources: Sequence[Source]) -> list[DataSet]:
        """Return the data sets of these sources."""
        return [self.by_name[source.name] for source in sources]

    def examples_of(self, leg: Leg) -> list[Examples]:
        """Return the training examples of each data set of a leg; a run without a mixture has one."""
        names = [source.name for source in leg.sources] or list(self.by_name)[:1]
        return [self.examples(name, leg.max_seq_length) for name in names]

    def close(self) -> None:
        """Stop fetching ahead."""
        for examples in self._examples.values():
            examples.close()

    def find(self, shards_digest: str) -> DataSet | None:
        """Return the data set whose shards.parquet has this sha256."""
        return next((found for found in self.by_name.values() if found.shards_digest == shards_digest), None)

    def shortest_length(self, names: Iterable[str]) -> int:
        """Return the shortest length of the training examples of these data sets, or of the only one.

        Raises:
            ValueError: it is not the same in all of them.
        """
        chosen = names if self.is_mixture else self.by_name
        lengths = {name: self.by_name[name].shortest_length("train") for name in chosen}
        if len(set(lengths.values())) > 1:
            (first, a), *others = lengths.items()
            other, b = next((name, length) for name, length in others if length != a)
            raise ValueError(
                f"data: the shortest examples of {first} have max_seq_length={a}, and the shortest of {other} {b}: give "
                f"--max-seq-length, or max_seq_length in a phase, a length that all of them have, or preprocess one of them "
                f"again"
            )
        return lengths[next(iter(lengths))]

    def check_size(self, names: Iterable[str], max_seq_length: int, batch_size: int) -> None:
        """Raise ValueError if one of several data sets has fewer examples than a batch."""
        for name in names if self.is_mixture else ():
            rows = min(filter(None, self.examples(name, max_seq_length).rows_per_copy), default=0)
            if rows < batch_size:
                raise ValueError(
                    f"data: {name} ({self.by_name[name].folder}) has {rows:,} training examples of length {max_seq_length} "
                    f"in a copy, fewer than a batch of {batch_size:,}: give a smaller --batch-size, preprocess it together "
                    f"with another data set, or leave it out"
                )

    def leg_sources(
        self, sources: Sequence[Source], max_seq_length: int, seed: int, temperature: float | None = None
    ) -> tuple[LegSource, ...]:
        """Return the data sets of a leg of a mixture, each from its first item on; none if the run has one data set."""
        if not self.is_mixture:
            return ()
        found = [self.examples(source.name, max_seq_length) for source in sources]
        orders = [TrainingOrder(examples.rows_per_copy, seed, max_seq_length) for examples in found]
        sizes = [examples.num_tokens // sum(map(bool, examples.rows_per_copy)) for examples in found]
        return tuple(
            LegSource(
                name=source.name,
                shards_digest=self.by_name[source.name].shards_digest,
                share=float(share),
                mean_tokens=examples.num_tokens / sum(examples.rows_per_copy),
                limit=None if source.epochs is None else order.items_in(source.epochs),
            )
            for source, examples, order, share in zip(sources, found, orders, token_shares(sources, sizes, temperature))
        )


def open_data_sets(
    sources: Iterable[Source], cache_dir: str | os.PathLike[str] | None = None, cache_gb: float = DEFAULT_CACHE_GB
) -> DataSets:
    """Return the data sets of these sources; ValueError if one cannot be opened, or they do not fit together."""
    paths: dict[str, str] = {}
    names: dict[str, str] = {}
    for source in sources:
        if (name := names.setdefault(source.path, source.name)) != source.name:
            raise ValueError(
                f"data: {source.path} has the names {name!r} and {source.name!r}: give it the same name in all phases"
            )
        if paths.setdefault(source.name, source.path) != source.path:
            raise ValueError(
                f"data: the name {source.name!r} is given to {paths[source.name]} and to {source.path}: give each data set "
                f"its own name, as in web=PATH"
            )
    return DataSets({name: DataSet(path, cache_dir, cache_gb) for name, path in paths.items()})


class MixedExamples:
    """The rows of several data sets of one length, addressed by (copy, row)."""

    def __init__(self, sources: Sequence[Examples]) -> None:
        self.sources = sources
        sizes = np.array([len(examples.rows_per_copy) for examples in sources])
        self._source_of_copy: I64 = np.repeat(np.arange(len(sources)), sizes)
        self._first_copies: I64 = np.cumsum(sizes) - sizes

    def sources_of(self, copies: I64) -> I64:
        """Return the number of the data set of each of these rows, int64 (N,)."""
        return self._source_of_copy[copies]

    def own_copies(self, copies: I64) -> I64:
        """Return the copies as their data sets number them."""
        return copies - self._first_copies[self.sources_of(copies)]

    def read(self, copies: I64, rows: I64, with_tokens: bool = True) -> dict[str, NDArray[Any]]:
        """Return the columns of these rows, in their order, as `Examples.read`."""
        groups = list(self._by_source(copies))
        parts = [self.sources[source].read(own, rows[chosen], with_tokens) for source, chosen, own in groups]
        if len(parts) == 1:
            return parts[0]
        return merge_columns(parts, [chosen for _, chosen, _ in groups])

    def pack(self, columns: dict[str, NDArray[Any]], copies: I64, rows: I64) -> PackedBatch:
        """Return the packed batch of the columns that `read` returned for these rows."""
        import torch

        batch = self.sources[0].pack(columns, copies, rows)
        return replace(batch, sources=torch.from_numpy(self.sources_of(copies)))

    def expect(self, copies: I64, rows: I64) -> None:
        """Start to fetch rows that will be read soon, in this order, if they are remote."""
        for source, chosen, own in self._by_source(copies):
            self.sources[source].expect(own, rows[chosen])

    def indices(self, copies: I64, rows: I64) -> I64:
        """Return the numbers of these rows among all rows of their data sets, int64 (N,)."""
        indices = np.zeros(len(rows), np.int64)
        for source, chosen, own in self._by_source(copies):
            indices[chosen] = self.sources[source].indices(own, rows[chosen])
        return indices

    @property
    def is_remote(self) -> bool:
        """Whether any of the data sets is in a store."""
        return any(examples.is_remote for examples in self.sources)

    def _by_source(self, copies: I64) -> Iterable[tuple[int, I64, I64]]:
        """Yield, for each data set of these copies: its number, their places, and the copies as it numbers them."""
        sources = self.sources_of(copies)
        for source in np.unique(sources).tolist():
            chosen = np.flatnonzero(sources == source)
            yield source, chosen, copies[chosen] - self._first_copies[source]


def merge_columns(parts: Sequence[Mapping[str, NDArray[Any]]], places: Sequence[I64]) -> dict[str, NDArray[Any]]:
    """Return the columns of `Examples.read` of several data sets as one, in the order of their places.

    Args:
        places: of the rows of each part, which are all integers from 0 together.
    """
    order = np.argsort(np.concatenate(places), kind="stable")
    joined = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    sizes = {"input_ids": joined["lengths"], "positions": joined["num_masks"], "masked_ids": joined["num_masks"]}
    return {
        name: _reordered_lists(values, sizes[name], order) if name in sizes else values[..., order]
        for name, values in joined.items()
    }


def _reordered_lists(values: NDArray[Any], sizes: I64, order: I64) -> NDArray[Any]:
    """Return lists that are end to end in another order."""
    sizes_after = sizes[order]
    starts = (np.cumsum(sizes) - sizes)[order] - (np.cumsum(sizes_after) - sizes_after)
    return values[np.repeat(starts, sizes_after) + np.arange(len(values))]


class LegReader:
    """The rows of a leg and their order."""

    def __init__(self, sources: Sequence[Examples], leg: Leg) -> None:
        """sources: the examples of each data set of the leg, of its length."""
        self.leg = leg
        self.examples: Examples | MixedExamples
        self.order: TrainingOrder | MixedOrder
        orders = [examples.order(leg.seed, leg.shuffle) for examples in sources]
        if leg.sources:
            self.examples = MixedExamples(sources)
            self.order = MixedOrder(mixture_of(leg), orders, [source.first for source in leg.sources])
        else:
            [self.examples], [self.order] = sources, orders
        self.items = ItemsAhead(self.order, self.examples.expect if self.examples.is_remote else None)
        self._keys = np.array([int(source.shards_digest[:16], 16) for source in leg.sources], np.uint64)

    def keys_of(self, copies: I64) -> tuple[U64, ...]:
        """Return what keeps the data sets of rows apart in keys of draws, uint64 (N,); nothing with one data set."""
        sources = self.examples.sources_of(copies)
        return () if sources is None else (self._keys[sources],)

"""From shards to packed batches, without a Python object per token or row on the hot path.

The shards of a local folder are mapped into memory. Members of a data set in a store come through a local cache and are
mapped from there. In both cases rows are found by index arithmetic (`model/loading/members.py`).

Torch is imported by what makes batches alone, so that pages about runs and data sets open at once.

Dimensions in the comments: T real tokens, N examples, M masked positions of a batch.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bertloom.json_files import Damaged, parse_json
from bertloom.manifest import parse_manifest, parse_shards, what_it_is
from bertloom.tokenizer_files import TokenizerFile, parse_tokenizer, split_words
from model.loading.cache import DEFAULT_CACHE_GB, MemberCache, default_directory
from model.loading.folder import RemoteFolder, open_folder
from model.loading.members import Files, LocalShards, Members, ShardTable
from model.loading.order import ItemsAhead, TrainingOrder, WindowOrder, parse_shuffle
from model.loading.remote import RemoteMembers

if TYPE_CHECKING:
    from model.batch import PackedBatch


class DataSet:
    """A finished data set: its manifest, its table of shards, and its rows through `examples`.

    `manifest` is the content of manifest.json, and `shards` the pyarrow table of shards.parquet (docs/shard-format.md).

    Examples:
        >>> data_set = bertloom.DataSet("DATASET")
        >>> data_set.manifest["counters"]["documents_used"]
        >>> examples = data_set.examples("train", max_seq_length=128)
        >>> batch = examples.gather(np.array([0, 0]), np.array([0, 1]))  # rows 0 and 1 of copy 0, a PackedBatch
    """

    def __init__(
        self,
        location: str | os.PathLike[str],
        cache_dir: str | os.PathLike[str] | None = None,
        cache_gb: float = DEFAULT_CACHE_GB,
    ) -> None:
        """
        Args:
            location: a local folder, or a URL that fsspec knows.
            cache_dir: folder that caches data from a URL. The default is ~/.cache/bertloom.
            cache_gb: largest size of the cache, in 10^9 bytes.

        Raises:
            ValueError: the data set is missing or unfinished, has another format version, or was changed.
        """
        if not 0 < cache_gb < 2**63:
            raise ValueError(f"cache_gb={cache_gb:g} must be above 0 and below 2^63: it is in 10^9 bytes")
        self.folder = open_folder(location)
        self._cache_dir = Path(cache_dir or default_directory())
        self._cache_bytes = int(cache_gb * 1e9)
        self._cache: MemberCache | None = None
        manifest_path, shards_path = f"{self.folder}/manifest.json", f"{self.folder}/shards.parquet"
        try:
            self.manifest = self.folder.parse("manifest.json", lambda content: parse_manifest(content, manifest_path))
        except FileNotFoundError:
            raise ValueError(
                f"{self.folder} has no manifest.json: it is not a data set, or `bertloom preprocess` has not finished it; "
                f"start that command again with the same flags to finish it{what_it_is(str(self.folder))}"
            ) from None
        try:
            self.shards = self.folder.parse(
                "shards.parquet", lambda content: parse_shards(content, shards_path, self.manifest)
            )
        except FileNotFoundError:
            raise ValueError(f"{shards_path} is missing: copy the whole data set again") from None
        self.shards_digest = str(self.manifest["shards_parquet"]["sha256"])
        self.vocabulary_sha256 = str(self.manifest["vocabulary"]["sha256"])
        self.vocabulary_size = int(self.manifest["vocabulary"]["size"])
        self.num_copies = int(self.manifest["configuration"]["dupe_factor"])
        self.num_sharing = 1
        """Number of data sets that read at the same time. They share the cache and the mappings of the process."""

    @property
    def tokenizer_files(self) -> tuple[str, str]:
        """The names of the files of its tokenizer; the digest of the first is `vocabulary_sha256`."""
        is_bert = "file" not in self.manifest["vocabulary"]
        return ("vocab.txt", "tokenizer.json") if is_bert else ("tokenizer.json", "special_tokens_map.json")

    def tokenizer(self) -> TokenizerFile:
        """Return the tokenizer that the data set was made with."""
        first, second = (self.read(name) for name in self.tokenizer_files)
        paths = [f"{self.folder}/{name}" for name in self.tokenizer_files]
        if "file" in self.manifest["vocabulary"]:
            return parse_tokenizer(first, paths[0], parse_json(second, paths[1]))
        found = parse_tokenizer(second, paths[1])
        if list(found.tokens) != split_words(first, paths[0]):
            raise ValueError(f"{paths[0]} and {paths[1]} have different words; copy the whole data set again")
        return found

    def read(self, name: str) -> bytes:
        """Return a file of the tokenizer; ValueError if it is missing or not that of the manifest."""
        listed = {self.tokenizer_files[0]: self.vocabulary_sha256, **self.manifest["files"]}

        def checked(content: bytes) -> bytes:
            if hashlib.sha256(content).hexdigest() != listed.get(name):
                raise Damaged(f"{self.folder}/{name}: its sha256 is not that of manifest.json; copy it again")
            return content

        try:
            return self.folder.parse(name, checked)
        except FileNotFoundError:
            raise ValueError(f"{self.folder}/{name} is missing: copy the whole data set again") from None

    def cache(self) -> MemberCache:
        """Return the cache of remote members, which is opened at the first call."""
        self._cache = self._cache or MemberCache(self._cache_dir, self._cache_bytes)
        return self._cache

    def max_seq_lengths(self, split: str) -> list[int]:
        """Return the lengths of a split's examples, shortest first."""
        shards = self.shards.select(["split", "max_seq_length"]).to_pylist()
        return sorted({shard["max_seq_length"] for shard in shards if shard["split"] == split})

    def shortest_length(self, split: str) -> int:
        """Return the shortest length of a split's examples; ValueError if it has none."""
        lengths = self.max_seq_lengths(split)
        if not lengths:
            raise ValueError(f"{self.folder} has no {split} split: no shard of it is listed in shards.parquet")
        return lengths[0]

    def examples(self, split: str, max_seq_length: int | None = None) -> Examples:
        """Return the rows of one split and length.

        Args:
            split: train or validation.
            max_seq_length: length of the examples, by default the shortest one.

        Raises:
            ValueError: the data set has no such examples.
        """
        shortest = self.shortest_length(split)
        if max_seq_length is None:
            max_seq_length = shortest
        lengths = self.max_seq_lengths(split)
        if max_seq_length not in lengths:
            raise ValueError(
                f"{self.folder} has no {split} examples of max_seq_length={max_seq_length}: "
                f"it has {', '.join(map(str, lengths))}"
            )
        return Examples(self, split, max_seq_length)

    def check_vocabulary(self, sha256: str) -> None:
        """Raise ValueError unless the data set's vocabulary has this digest, which is a checkpoint's."""
        if sha256 != self.vocabulary_sha256:
            raise ValueError(
                f"the vocabulary of {self.folder} (sha256 {self.vocabulary_sha256[:12]}…) is not the checkpoint's "
                f"({sha256[:12]}…): its ids mean other words; preprocess with the tokenizer in the checkpoint's run folder"
            )


class Examples:
    """The rows of one split and length in all copies, addressed by (copy, row).

    `rows_per_copy` is the number of rows of each copy, and `num_tokens` the number of tokens of all of them. T is the number
    of tokens of all rows that are read, N the number of these rows, M the number of their masked positions.
    """

    def __init__(self, data_set: DataSet, split: str, max_seq_length: int) -> None:
        self.data_set = data_set
        self.split = split
        self.max_seq_length = max_seq_length
        self.shards = ShardTable.from_arrow(
            data_set.shards, split, max_seq_length, data_set.vocabulary_sha256, data_set.vocabulary_size
        )
        copies = self.shards.copies
        self.rows_per_copy = [int(self.shards.examples[copies == copy].sum()) for copy in range(data_set.num_copies)]
        self.num_tokens = int(self.shards.tokens.sum())
        self._copy_starts = np.concatenate([[0], np.cumsum(self.rows_per_copy)])
        self._member_starts = np.concatenate([[0], np.cumsum(self.shards.member_examples)])
        self.is_remote = isinstance(data_set.folder, RemoteFolder)
        files: Files
        if isinstance(data_set.folder, RemoteFolder):
            files = remote = RemoteMembers(data_set.folder, self.shards, data_set.cache(), data_set.num_sharing)
            self._end_transfers = weakref.finalize(self, remote.close)
        else:
            files = LocalShards(data_set.folder, self.shards)
        self._members = Members(self.shards, files, data_set.num_sharing)

    def sources_of(self, copies: np.ndarray) -> None:
        """Return None: these rows are from one data set. `MixedExamples` returns its number for each row."""

    def own_copies(self, copies: np.ndarray) -> np.ndarray:
        """Return the copies. `MixedExamples` returns them as their data sets number them."""
        return copies

    def order(self, seed: int, shuffle: str) -> TrainingOrder:
        """Return the order in which training reads the rows. shuffle: `global` or `window:K`."""
        members_per_window = parse_shuffle(shuffle)
        if members_per_window is None:
            return TrainingOrder(self.rows_per_copy, seed, self.max_seq_length)
        copy_of_member = self.shards.copies[self.shards.shard_of_member]
        members = [self.shards.member_examples[copy_of_member == copy] for copy in range(len(self.rows_per_copy))]
        return WindowOrder(members, seed, self.max_seq_length, members_per_window)

    def sample(self) -> dict[str, np.ndarray]:
        """Return sizes and labels of the first thousand examples; a shard is in random order."""
        copy = next(copy for copy, size in enumerate(self.rows_per_copy) if size)
        rows = np.arange(min(1024, self.rows_per_copy[copy]))
        return self.read(np.full_like(rows, copy), rows, with_tokens=False)

    def check_shards(self) -> None:
        """Raise ValueError if a shard is missing or its size differs from shards.parquet, before training starts."""
        self._members.files.check()

    def expect(self, copies: np.ndarray, rows: np.ndarray) -> None:
        """Start to fetch rows that will be read soon, in this order, if they are remote."""
        members = self._find(copies, rows)[0]
        _, firsts = np.unique(members, return_index=True)
        self._members.expect(members[np.sort(firsts)])

    def close(self) -> None:
        """Stop fetching ahead. Dropping the last reference to the examples does the same."""
        if self.is_remote:
            self._end_transfers()

    def items_ahead(self, order: TrainingOrder) -> ItemsAhead:
        """Return the items of an order of these rows. Remote rows are fetched ahead of the items."""
        return ItemsAhead(order, self.expect if self.is_remote else None)

    def note_on_cache(self, shuffle: str) -> str | None:
        """Return a warning if rows will be fetched repeatedly because the cache is too small, else None."""
        largest = max(
            int(self.shards.bytes[self.shards.copies == copy].sum()) for copy in range(len(self.rows_per_copy))
        )
        if not self.is_remote or shuffle != "global" or largest <= self.data_set.cache().max_bytes:
            return None
        room, member = self.data_set.cache().max_bytes, int(self.shards.member_bytes.mean())
        return (
            f"a copy of length {self.max_seq_length} has {largest / 1e9:.3g} GB, the cache has room for {room / 1e9:.3g}: "
            f"in global order {1 - room / largest:.0%} of the examples will fetch {member / 1e3:,.0f} KB each; "
            f"take --cache-gb {largest * 1.1 / 1e9:.3g}, or from a new run on --shuffle window:64"
        )

    def indices(self, copies: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the numbers of these rows among all rows in the order of shards.parquet: int64 (N,)."""
        table = self.data_set.shards.select(["split", "max_seq_length", "copy", "examples"]).to_pylist()
        firsts: dict[tuple[str, int, int], int] = {}
        count = 0
        for row in table:
            firsts.setdefault((row["split"], row["max_seq_length"], row["copy"]), count)
            count += row["examples"]
        starts = [firsts.get((self.split, self.max_seq_length, copy), 0) for copy in range(len(self.rows_per_copy))]
        return np.array(starts)[copies] + rows

    def read(self, copies: np.ndarray, rows: np.ndarray, with_tokens: bool = True) -> dict[str, np.ndarray]:
        """Return the columns of these rows, in their order.

        Returns:
            `lengths`, `num_masks`, `labels` and `segment_b_start`, int64 (N,). With tokens also `input_ids` (T,),
            `positions` within the example (M,) and `masked_ids` (M,), in the types of the shards, and `list_sums` of these
            three, uint64 (3, N), for the stream digest.
        """
        return self._members.read(*self._find(copies, rows), with_tokens)

    def _find(self, copies: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return members and rows within them, int64 (N,) each."""
        numbers = self._copy_starts[copies] + rows
        members = np.searchsorted(self._member_starts, numbers, side="right") - 1
        return members, numbers - self._member_starts[members]

    def gather(self, copies: np.ndarray, rows: np.ndarray) -> PackedBatch:
        """Return the packed batch of these rows, in their order."""
        return self.pack(self.read(copies, rows), copies, rows)

    def pack(self, columns: dict[str, np.ndarray], copies: np.ndarray, rows: np.ndarray) -> PackedBatch:
        """Return the packed batch of the columns that `read` returned for these rows."""
        import torch

        from model.batch import PackedBatch
        from model.packing import pack_sequences

        lengths, num_masks, ids = columns["lengths"], columns["num_masks"], columns["input_ids"]
        if max(ids.max(), columns["masked_ids"].max(initial=0)) >= self.data_set.vocabulary_size:
            raise ValueError(
                f"{self.data_set.folder} has token ids beyond its vocabulary of {self.data_set.vocabulary_size} words: "
                f"run `bertloom verify` on it"
            )
        starts = np.cumsum(lengths) - lengths
        return PackedBatch(
            **vars(pack_sequences(ids, lengths, columns["segment_b_start"])),
            masked_positions=torch.from_numpy(columns["positions"] + np.repeat(starts, num_masks)),
            masked_ids=torch.from_numpy(columns["masked_ids"].astype(np.int64)),
            next_sentence_label=torch.from_numpy(columns["labels"]),
            rows=np.stack([copies, rows], axis=1),
        )

    def in_order(
        self, batch_size: int, limit: int | None = None, rank: int = 0, num_ranks: int = 1
    ) -> Iterator[PackedBatch]:
        """Yield batches of copy 0 from its first row, at most `limit` rows: the same examples each time, for validation.

        Each of several ranks gets every num_ranks-th batch.
        """
        stop = self.rows_per_copy[0] if limit is None else min(limit, self.rows_per_copy[0])
        for start in range(rank * batch_size, stop, batch_size * num_ranks):
            rows = np.arange(start, min(start + batch_size, stop))
            yield self.gather(np.zeros_like(rows), rows)

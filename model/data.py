"""From shards to packed batches, without a Python object for a token or a row of the hot path.

A local shard is mapped into memory once. Its members are Arrow files inside a tar; opening one with pyarrow copies
nothing and tells where in the shard each column lies, and from then on a row is index arithmetic on views of the whole
shard: `take_lists` reads any rows of any members in a few NumPy calls. What is kept is a small table of addresses for
each member of the shards in use. `docs/shard-format.md` is the contract.

Dimensions in the comments: T real tokens, N examples, M masked positions of a batch; K members of a shard.
"""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from model.packing import PackedSequences, pack_sequences, take_lists

FORMAT = "bertloom-dataset"
FORMAT_VERSION = 1
MAX_OPEN_SHARDS = 4096
"""A mapped shard holds no file descriptor; the kernel's usual limit is 65,530 mappings."""

ADDRESSES = (
    "input_ids offsets", "input_ids", "segment_b_start", "masked_lm_positions offsets", "masked_lm_positions",
    "masked_lm_ids offsets", "masked_lm_ids", "next_sentence_label",
)  # fmt: skip
"""The columns of a shard's table of addresses: where in the file a member's buffers begin."""


@dataclass(frozen=True, kw_only=True)
class PackedBatch(PackedSequences):
    """Examples end to end, without padding, and what is to be predicted of them."""

    masked_positions: Tensor
    """int64 (M,), indices into the T tokens"""
    masked_ids: Tensor
    """int64 (M,), the true ids there"""
    next_sentence_label: Tensor
    """int64 (N,), 0: B follows A, 1: B is random, -1: no pair"""
    rows: np.ndarray
    """int64 (N, 2), copy and row of each example"""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, or a ValueError that names the file."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): it was damaged or written by something else") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value


class DataSet:
    """What a finished data set says of itself; `examples` gives its rows.

    Raises:
        ValueError: `directory` is no data set, is not finished, has another format version, or was changed.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        manifest_path, shards_path = self.directory / "manifest.json", self.directory / "shards.parquet"
        if not self.directory.is_dir():
            raise ValueError(f"{self.directory} is not a data set: there is no such folder")
        if not manifest_path.exists():
            raise ValueError(
                f"{self.directory} has no manifest.json: it is no data set, or `bertloom preprocess` has not finished "
                f"it; start that again with the same flags, it does the rest"
            )
        self.manifest = read_json(manifest_path)
        if self.manifest.get("format") != FORMAT:
            raise ValueError(f"{manifest_path}: format is {self.manifest.get('format')!r}, expected {FORMAT!r}")
        if self.manifest.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{manifest_path}: format_version is {self.manifest.get('format_version')!r}, this program reads "
                f"{FORMAT_VERSION}: preprocess again, or use the bertloom that wrote it"
            )
        if not shards_path.exists():
            raise ValueError(f"{shards_path} is missing: copy the data set again, all of it")
        content = shards_path.read_bytes()
        self.shards_digest = hashlib.sha256(content).hexdigest()
        if self.shards_digest != self.manifest["shards_parquet"]["sha256"]:
            raise ValueError(
                f"{shards_path} has sha256 {self.shards_digest[:12]}…, manifest.json says "
                f"{self.manifest['shards_parquet']['sha256'][:12]}…: the data set was changed or copied in part"
            )
        self.shards = pq.read_table(pa.BufferReader(content))
        self.vocabulary_sha256 = str(self.manifest["vocabulary"]["sha256"])
        self.vocabulary_size = int(self.manifest["vocabulary"]["size"])
        self.num_copies = int(self.manifest["configuration"]["dupe_factor"])

    def max_seq_lengths(self, split: str) -> list[int]:
        """The lengths that a split has examples of, shortest first."""
        shards = self.shards.select(["split", "max_seq_length"]).to_pylist()
        return sorted({shard["max_seq_length"] for shard in shards if shard["split"] == split})

    def examples(self, split: str, max_seq_length: int | None = None) -> "Examples":
        """The rows of one split ("train" or "validation") and length; the shortest length if none is given."""
        lengths = self.max_seq_lengths(split)
        if not lengths:
            raise ValueError(f"{self.directory} has no {split} split: no shard of it is listed in shards.parquet")
        if max_seq_length is None:
            max_seq_length = lengths[0]
        if max_seq_length not in lengths:
            raise ValueError(
                f"{self.directory} has no {split} examples of max_seq_length={max_seq_length}: "
                f"it has {', '.join(map(str, lengths))}"
            )
        return Examples(self, split, max_seq_length)

    def check_vocabulary(self, sha256: str) -> None:
        """Raises ValueError unless the data set's vocabulary is the one with this digest, a checkpoint's."""
        if sha256 != self.vocabulary_sha256:
            raise ValueError(
                f"the vocabulary of {self.directory} (sha256 {self.vocabulary_sha256[:12]}…) is not the checkpoint's "
                f"({sha256[:12]}…): its ids mean other words; preprocess with the checkpoint's vocab.txt"
            )


class Shard:
    """One local shard, mapped into memory, and where the buffers of its members lie."""

    def __init__(self, data_set: DataSet, row: dict[str, Any]) -> None:
        self.path = data_set.directory / row["path"]
        if not self.path.exists():
            raise ValueError(f"shard {self.path} is missing: run `bertloom verify {data_set.directory}`")
        size = self.path.stat().st_size
        if size != row["bytes"]:
            raise ValueError(
                f"shard {self.path} has {size} bytes, shards.parquet says {row['bytes']}: it was truncated or changed; "
                f"run `bertloom verify {data_set.directory}`"
            )
        # numpy.memmap and pyarrow.memory_map keep a file descriptor for each file, torch.from_file closes it.
        mapped = torch.from_file(str(self.path), shared=False, size=size, dtype=torch.uint8).numpy()
        mapped.flags.writeable = False
        self.views = {np.dtype(kind): mapped.view(kind) for kind in ("u1", "i1", "u2", "i4", "u4")}  # sizes: k x 512
        self.row = row
        self.vocabulary_sha256 = data_set.vocabulary_sha256
        self.id_type = np.dtype("u2")
        self.addresses = np.full((len(row["member_offsets"]), len(ADDRESSES)), -1, dtype=np.int64)  # (K, 8), in bytes

    def open_member(self, member: int) -> None:
        """Reads a member's Arrow header and notes where its buffers lie."""
        offset, size = self.row["member_offsets"][member], self.row["member_bytes"][member]
        view = self.views[np.dtype("u1")]
        payload = pa.py_buffer(view[offset : offset + size])
        try:
            reader = pa.ipc.open_file(payload)
            batch = reader.get_batch(0)
        except (pa.ArrowInvalid, OSError) as error:
            raise self.damaged(member, str(error)) from None
        metadata = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
        expected = {name: str(self.row[name]) for name in ("max_seq_length", "copy")}
        expected |= {"format_version": str(FORMAT_VERSION), "vocabulary_sha256": self.vocabulary_sha256}
        for name, value in expected.items():
            if metadata.get(name) != value:
                raise self.damaged(member, f"its {name} is {metadata.get(name)!r}, expected {value!r}")
        if batch.num_rows != self.row["member_examples"][member] or reader.num_record_batches != 1:
            raise self.damaged(
                member, f"it has {batch.num_rows} examples, shards.parquet says {self.row['member_examples'][member]}"
            )
        self.id_type = np.dtype("u4" if "uint32" in str(batch.schema.field("input_ids").type) else "u2")
        types = {"input_ids": self.id_type, "masked_lm_ids": self.id_type, "masked_lm_positions": np.dtype("u2")}
        buffers = []
        for name in ("input_ids", "segment_b_start", "masked_lm_positions", "masked_lm_ids", "next_sentence_label"):
            column = batch.column(name)
            if name in types:
                if not pa.types.is_list(column.type) or column.type.value_type != pa.from_numpy_dtype(types[name]):
                    raise self.damaged(member, f"its column {name} has type {column.type}")
                _, offsets, _, values = column.buffers()
                buffers += [offsets, values]
            else:
                if column.type != (pa.uint16() if name == "segment_b_start" else pa.int8()):
                    raise self.damaged(member, f"its column {name} has type {column.type}")
                buffers.append(column.buffers()[1])
        begin = view.ctypes.data  # a buffer of nothing, as of no masks in any row, may lie anywhere
        found = np.array([buffer.address - begin if buffer and buffer.size else offset for buffer in buffers])
        if (found < offset).any() or (found > offset + size).any() or (found % 4).any():
            raise self.damaged(member, "its buffers are compressed or not aligned")
        self.addresses[member] = found

    def damaged(self, member: int, what: str) -> ValueError:
        """The error for a member that is not as shards.parquet and the contract say."""
        return ValueError(f"member {member} of shard {self.path} cannot be read: {what}; run `bertloom verify`")

    def lists(self, name: str, members: np.ndarray, rows: np.ndarray, kind: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Where the lists of a column begin, in items of `kind` from the start of the file, and their lengths."""
        column = ADDRESSES.index(name)
        places = (self.addresses[members, column - 1] >> 2) + rows
        offsets = self.views[np.dtype("i4")]
        starts = offsets[places].astype(np.int64)
        return starts + self.addresses[members, column] // kind.itemsize, offsets[places + 1] - starts

    def scalars(self, name: str, members: np.ndarray, rows: np.ndarray, kind: np.dtype) -> np.ndarray:
        """Items of a column, int64 (N,)."""
        places = self.addresses[members, ADDRESSES.index(name)] // kind.itemsize + rows
        return self.views[kind][places].astype(np.int64)

    def read(self, members: np.ndarray, rows: np.ndarray, with_tokens: bool) -> dict[str, np.ndarray]:
        """The columns of the given rows of members; see `Examples.read`."""
        for member in np.unique(members[self.addresses[members, 0] < 0]):
            self.open_member(int(member))
        uint16 = np.dtype("u2")
        try:
            token_starts, lengths = self.lists("input_ids", members, rows, self.id_type)
            mask_starts, num_masks = self.lists("masked_lm_positions", members, rows, uint16)
            columns = {"lengths": lengths, "num_masks": num_masks}
            columns["labels"] = self.scalars("next_sentence_label", members, rows, np.dtype("i1"))
            if with_tokens:
                id_starts, num_ids = self.lists("masked_lm_ids", members, rows, self.id_type)
                if (num_ids != num_masks).any():
                    raise IndexError
                columns["segment_b_start"] = self.scalars("segment_b_start", members, rows, uint16)
                columns["input_ids"] = take_lists(self.views[self.id_type], token_starts, lengths)
                columns["positions"] = take_lists(self.views[uint16], mask_starts, num_masks)
                columns["masked_ids"] = take_lists(self.views[self.id_type], id_starts, num_masks)
        except (IndexError, ValueError):  # offsets that lead out of the file, or backwards
            raise self.damaged(int(members[0]), "its offsets make no sense") from None
        return columns


class Examples:
    """The rows of one split and length, all copies: a row is found by (copy, row)."""

    def __init__(self, data_set: DataSet, split: str, max_seq_length: int) -> None:
        self.data_set = data_set
        self.split = split
        self.max_seq_length = max_seq_length
        wanted = (split, max_seq_length)
        chosen = [row for row in data_set.shards.to_pylist() if (row["split"], row["max_seq_length"]) == wanted]
        self.shard_rows = sorted(chosen, key=lambda row: (row["copy"], row["number"]))
        self.rows_per_copy = [0] * data_set.num_copies
        for row in chosen:
            if not 0 <= row["copy"] < data_set.num_copies:
                raise ValueError(f"shard {row['path']} is of copy {row['copy']}, dupe_factor is {data_set.num_copies}")
            self.rows_per_copy[row["copy"]] += row["examples"]
        self.num_tokens = sum(row["tokens"] for row in chosen)
        members = [row["member_examples"] for row in self.shard_rows]
        self._copy_starts = np.concatenate([[0], np.cumsum(self.rows_per_copy)])
        self._member_starts = np.concatenate([[0], np.cumsum(np.concatenate([*members, []]), dtype=np.int64)])
        self._shard_starts = np.concatenate([[0], np.cumsum([len(counts) for counts in members], dtype=np.int64)])
        if self._member_starts[-1] != self._copy_starts[-1]:
            raise ValueError(f"{data_set.directory}/shards.parquet: member_examples do not add up to examples")
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def _shard(self, index: int) -> Shard:
        if index not in self._open:
            while len(self._open) >= MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
            self._open[index] = Shard(self.data_set, self.shard_rows[index])
        self._open.move_to_end(index)
        return self._open[index]

    def check_shards(self) -> None:
        """Raises ValueError if a shard is missing or has another size than shards.parquet says: now, not at night."""
        for row in self.shard_rows:
            path = self.data_set.directory / row["path"]
            if not path.exists() or path.stat().st_size != row["bytes"]:
                Shard(self.data_set, row)

    def indices(self, copies: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The numbers of these rows among all rows of the data set, in the order of shards.parquet: int64 (N,)."""
        table = self.data_set.shards.select(["split", "max_seq_length", "copy", "examples"]).to_pylist()
        firsts: dict[tuple[str, int, int], int] = {}
        count = 0
        for row in table:
            firsts.setdefault((row["split"], row["max_seq_length"], row["copy"]), count)
            count += row["examples"]
        starts = [firsts.get((self.split, self.max_seq_length, copy), 0) for copy in range(len(self.rows_per_copy))]
        return np.array(starts)[copies] + rows

    def read(self, copies: np.ndarray, rows: np.ndarray, with_tokens: bool = True) -> dict[str, np.ndarray]:
        """The columns of the given rows, in their order.

        Returns:
            `lengths`, `num_masks` and `labels`, int64 (N,); with the tokens also `segment_b_start` (N,), `input_ids`
            (T,), `positions` within the example (M,) and `masked_ids` (M,), in the types that the shards have.
        """
        numbers = self._copy_starts[copies] + rows
        members = np.searchsorted(self._member_starts, numbers, side="right") - 1
        shards = np.searchsorted(self._shard_starts, members, side="right") - 1
        places = np.argsort(shards, kind="stable")
        pieces = []
        for chunk in np.split(places, np.flatnonzero(np.diff(shards[places])) + 1):
            index = int(shards[chunk[0]])
            local = members[chunk] - self._shard_starts[index], numbers[chunk] - self._member_starts[members[chunk]]
            pieces.append(self._shard(index).read(*local, with_tokens))
        if len(pieces) == 1:  # one shard: already in order
            return pieces[0]
        joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        back = np.empty_like(places)
        back[places] = np.arange(len(places))
        for names, lengths in ((("input_ids",), joined["lengths"]), (("positions", "masked_ids"), joined["num_masks"])):
            starts = np.cumsum(lengths) - lengths
            for name in names if with_tokens else ():
                joined[name] = take_lists(joined[name], starts[back], lengths[back])
        return {name: value[back] if name in SCALARS else value for name, value in joined.items()}

    def gather(self, copies: np.ndarray, rows: np.ndarray) -> PackedBatch:
        """The packed batch of the given rows, in their order."""
        return self.pack(self.read(copies, rows), copies, rows)

    def pack(self, columns: dict[str, np.ndarray], copies: np.ndarray, rows: np.ndarray) -> PackedBatch:
        """The packed batch of columns that `read` gave for these rows."""
        lengths, num_masks, ids = columns["lengths"], columns["num_masks"], columns["input_ids"]
        if lengths.min() < 1 or lengths.max() > self.max_seq_length:
            raise ValueError(
                f"{self.data_set.directory} holds an example of {lengths.min()} or {lengths.max()} tokens, expected "
                f"1 to {self.max_seq_length}: run `bertloom verify` on it"
            )
        if max(ids.max(), columns["masked_ids"].max(initial=0)) >= self.data_set.vocabulary_size:
            raise ValueError(
                f"{self.data_set.directory} holds ids beyond its vocabulary of {self.data_set.vocabulary_size} words: "
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
        """Copy 0 from its first row on, at most `limit` rows: the same examples every time, for validation.

        Of several ranks each gets every num_ranks-th batch.
        """
        stop = self.rows_per_copy[0] if limit is None else min(limit, self.rows_per_copy[0])
        for start in range(rank * batch_size, stop, batch_size * num_ranks):
            rows = np.arange(start, min(start + batch_size, stop))
            yield self.gather(np.zeros_like(rows), rows)


SCALARS = ("lengths", "num_masks", "labels", "segment_b_start")
"""Columns of `Examples.read` with one number a row."""

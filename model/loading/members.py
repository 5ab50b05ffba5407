"""The members of shards: Arrow files in which rows are found by index arithmetic.

Opening a member with pyarrow copies nothing and tells where each column lies. These places go into a table, and from
then on any rows of any members are read in a few NumPy calls on one array that covers all files
(`model/loading/mapping.py`). What is kept is a line of that table for each member. `docs/shard-format.md` is the contract.

Dimensions in the comments: N rows, T tokens, M masked positions; K members.
"""

import os
import time
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bertloom.shards import FORMAT_VERSION
from model.loading.folder import LocalFolder
from model.loading.mapping import MappedFiles
from model.loading.stream import list_sums

MAX_MAPPED = 16_384
"""Files mapped at once. The kernel's usual limit is 65,530 mappings, and each of these may take two."""
ROWS_AT_ONCE = 8192
"""Rows read in one go; fewer than MAX_MAPPED, so that the files of all of them can be mapped."""

TIDY_SECONDS = 1.0
"""Between the times when those who keep the files are told which are in use."""

UINT16, UINT32, INT8, INT32 = np.dtype("u2"), np.dtype("u4"), np.dtype("i1"), np.dtype("i4")
LISTS = ("input_ids", "masked_lm_positions", "masked_lm_ids")
"""Columns of lists. Of list i, columns i, 3 + i and 6 + i of the table of places say where its offsets begin, where its
items begin and how many items there are."""
SCALARS = ("segment_b_start", "next_sentence_label")
"""Columns with one number a row. Of scalar i, column 9 + i of the table says where it begins."""
NUM_PLACES = 3 * len(LISTS) + len(SCALARS)


@dataclass(frozen=True, kw_only=True)
class ShardTable:
    """What shards.parquet says of the shards of one split and length, in the order of training."""

    max_seq_length: int
    vocabulary_sha256: str
    paths: list[str]
    """In the data set."""
    copies: np.ndarray
    """int64, of each shard, and so are the next three"""
    examples: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    sha256: list[str]
    shard_of_member: np.ndarray
    """int64 (K,), and so are the next three"""
    member_offsets: np.ndarray
    """Where in its shard each member begins."""
    member_bytes: np.ndarray
    member_examples: np.ndarray

    @classmethod
    def from_arrow(cls, shards: pa.Table, split: str, max_seq_length: int, vocabulary_sha256: str) -> "ShardTable":
        """The rows of shards.parquet of this split and length."""
        chosen = pc.and_(pc.equal(shards["split"], split), pc.equal(shards["max_seq_length"], max_seq_length))
        table = shards.filter(chosen).sort_by([("copy", "ascending"), ("number", "ascending")]).combine_chunks()

        def integers(name: str) -> np.ndarray:
            column = table[name].combine_chunks()
            return (column.flatten() if pa.types.is_list(column.type) else column).to_numpy().astype(np.int64)

        num_members = pc.list_value_length(table["member_offsets"]).to_numpy()
        return cls(
            max_seq_length=max_seq_length,
            vocabulary_sha256=vocabulary_sha256,
            paths=table["path"].to_pylist(),
            sha256=table["sha256"].to_pylist(),
            copies=integers("copy"),
            examples=integers("examples"),
            tokens=integers("tokens"),
            bytes=integers("bytes"),
            shard_of_member=np.repeat(np.arange(len(num_members)), num_members),
            member_offsets=integers("member_offsets"),
            member_bytes=integers("member_bytes"),
            member_examples=integers("member_examples"),
        )


class Files(Protocol):
    """Where members lie: in whole shards, or each in a file of its own."""

    sizes: np.ndarray
    """int64, bytes of each file"""
    file_of_member: np.ndarray
    """int64 (K,)"""
    offsets: np.ndarray
    """int64 (K,), where in its file each member begins"""

    def name(self, number: int) -> str:
        """The path or URL of the shard that the file is, or belongs to."""

    def open(self, number: int) -> BinaryIO:
        """A file of this size, brought to a local disk if it is not there."""

    def expect(self, members: np.ndarray) -> None:
        """Told which members will be read soon, the soonest first."""

    def check(self) -> None:
        """Raises ValueError if a shard is missing or has another size than shards.parquet says, as far as that can be
        known without reading it."""

    def tidy(self, used: np.ndarray, idle: np.ndarray) -> np.ndarray:
        """Told from time to time which files were used of late, and which are mapped but not in use right now; answers
        which of the latter to let go of."""


class LocalShards:
    """Shards in a local folder; members lie inside them."""

    def __init__(self, folder: LocalFolder, shards: ShardTable) -> None:
        self.folder = folder
        self.shards = shards
        self.sizes = shards.bytes
        self.file_of_member = shards.shard_of_member
        self.offsets = shards.member_offsets

    def name(self, number: int) -> str:
        """The path of a shard."""
        return str(self.folder.path / self.shards.paths[number])

    def open(self, number: int) -> BinaryIO:
        """A shard."""
        self._check(number)
        return open(self.name(number), "rb")

    def expect(self, members: np.ndarray) -> None:
        """They are there already."""

    def check(self) -> None:
        """Raises ValueError unless every shard is there and has the size that shards.parquet says."""
        for number in range(len(self.sizes)):
            self._check(number)

    def tidy(self, used: np.ndarray, idle: np.ndarray) -> np.ndarray:
        """None of them: they stay where they are."""
        return idle[:0]

    def _check(self, number: int) -> None:
        try:
            size = os.stat(self.name(number)).st_size
        except FileNotFoundError:
            raise ValueError(f"shard {self.name(number)} is missing: run `bertloom verify {self.folder}`") from None
        if size != self.sizes[number]:
            raise ValueError(
                f"shard {self.name(number)} has {size} bytes, shards.parquet says {self.sizes[number]}: it was "
                f"truncated or changed; run `bertloom verify {self.folder}`"
            )


class Members:
    """Reads rows of members."""

    def __init__(self, table: ShardTable, files: Files) -> None:
        self.table = table
        self.files = files
        self._mapped = MappedFiles(files.sizes, slack=4 * table.max_seq_length)
        self._views = {kind: self._mapped.bytes.view(kind) for kind in (UINT16, UINT32, INT8, INT32)}
        self._places = np.full((len(table.member_bytes), NUM_PLACES), -1, dtype=np.int64)
        self._last_use = np.zeros(len(files.sizes), dtype=np.int64)
        self._reads = self._reads_at_tidying = 0
        self._tidied_at = time.monotonic()
        self._id_type: np.dtype | None = None

    def read(self, members: np.ndarray, rows: np.ndarray, with_tokens: bool) -> dict[str, np.ndarray]:
        """The columns of the given rows of members; see `model.loading.data.Examples.read`."""
        if len(members) > ROWS_AT_ONCE:
            pieces = [
                self.read(members[start : start + ROWS_AT_ONCE], rows[start : start + ROWS_AT_ONCE], with_tokens)
                for start in range(0, len(members), ROWS_AT_ONCE)
            ]
            return {name: np.concatenate([piece[name] for piece in pieces], axis=-1) for name in pieces[0]}
        self._reads += 1
        self._last_use[self.files.file_of_member[members]] = self._reads
        if (self._places[members, 0] < 0).any():
            self._open(np.unique(members))
        places = self._places.take(members, axis=0).T.copy()  # (11, N): the rest is faster so
        num_lists = len(LISTS) if with_tokens else 2
        starts, sizes = self._lists(places, rows, members, num_lists)
        columns = {"lengths": sizes[0], "num_masks": sizes[1], "labels": self._scalars(1, places, rows, INT8)}
        if with_tokens:
            assert self._id_type
            columns["segment_b_start"] = self._scalars(0, places, rows, UINT16)
            if (columns["segment_b_start"] > sizes[0]).any():
                member = int(members[columns["segment_b_start"] > sizes[0]][0])
                raise self.damaged(member, "a segment_b_start is beyond its example")
            columns["list_sums"] = np.empty((len(LISTS), len(members)), dtype=np.uint64)
            kinds = {"input_ids": self._id_type, "positions": UINT16, "masked_ids": self._id_type}
            for number, (name, kind) in enumerate(kinds.items()):
                padded, is_real = take_padded(self._views[kind], starts[number], sizes[number])
                columns[name] = padded[is_real]
                columns["list_sums"][number] = list_sums(number + 1, padded * is_real)
        return columns

    def _lists(
        self, places: np.ndarray, rows: np.ndarray, members: np.ndarray, num_lists: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the rows' lists begin, in items from the start of the array, and their lengths: (num_lists, N) each."""
        offsets_begin, begin, size = (places[first : first + num_lists] for first in (0, 3, 6))
        where = offsets_begin + rows
        starts = self._views[INT32].take(where).astype(np.int64)
        lengths = self._views[INT32].take(where + 1) - starts
        wrong = (starts | lengths | size - starts - lengths) < 0
        if wrong.any():  # they would lead out of the member, or backwards
            number, row = np.argwhere(wrong)[0]
            raise self.damaged(int(members[row]), f"its offsets of {LISTS[number]} make no sense")
        wrong = (lengths[0] < 1) | (lengths[1] != lengths[-1])
        if wrong.any() or lengths.max() > self.table.max_seq_length:
            row = np.argmax(wrong | (lengths.max(axis=0) > self.table.max_seq_length))
            found = ", ".join(f"{number} {name}" for number, name in zip(lengths[:, row].tolist(), LISTS))
            raise self.damaged(
                int(members[row]),
                f"an example has {found}; expected 1 to {self.table.max_seq_length} input_ids, and a true id for each "
                f"position",
            )
        return begin + starts, lengths

    def _scalars(self, number: int, places: np.ndarray, rows: np.ndarray, kind: np.dtype) -> np.ndarray:
        return self._views[kind].take(places[9 + number] + rows).astype(np.int64)

    def expect(self, members: np.ndarray) -> None:
        """Told which members will be read soon, the soonest first: their files may be brought meanwhile."""
        self.files.expect(members[~self._mapped.is_mapped[self.files.file_of_member[members]]])

    def _open(self, members: np.ndarray) -> None:
        """Maps the files of those of these members that are not open, and notes where their columns lie."""
        members = members[self._places[members, 0] < 0]
        files = self.files.file_of_member[members]
        for number in np.unique(files[~self._mapped.is_mapped[files]]).tolist():
            with self.files.open(number) as file:
                self._mapped.map(number, file)
        for member in members.tolist():
            self._places[member] = self._find_columns(member)
        num_mapped = int(self._mapped.is_mapped.sum())
        if num_mapped > MAX_MAPPED:  # the longest unused, many at once so that this is rare
            idle = self._idle()
            idle = idle[np.argsort(self._last_use[idle], kind="stable")]
            self._close(idle[: num_mapped - MAX_MAPPED + MAX_MAPPED // 8])
        if time.monotonic() > self._tidied_at + TIDY_SECONDS:
            used = np.flatnonzero(self._mapped.is_mapped & (self._last_use > self._reads_at_tidying))
            self._close(self.files.tidy(used, self._idle()))
            self._tidied_at, self._reads_at_tidying = time.monotonic(), self._reads

    def _idle(self) -> np.ndarray:
        """Files that are mapped, but not for what is being read."""
        return np.flatnonzero(self._mapped.is_mapped & (self._last_use < self._reads))

    def _close(self, files: np.ndarray) -> None:
        """Unmaps these files; what is read of them next is opened again."""
        for number in files.tolist():
            self._mapped.unmap(number)
        self._places[np.isin(self.files.file_of_member, files)] = -1

    def _find_columns(self, member: int) -> list[int]:
        """Reads a member's Arrow header: a line of the table of places."""
        begin = int(self._mapped.starts[self.files.file_of_member[member]] + self.files.offsets[member])
        size = int(self.table.member_bytes[member])
        payload = pa.py_buffer(self._mapped.bytes[begin : begin + size])
        try:
            reader = pa.ipc.open_file(payload)
            batch = reader.get_batch(0)
        except (pa.ArrowInvalid, OSError) as error:
            raise self.damaged(member, str(error)) from None
        metadata = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
        for name, value in self._expected_metadata(member).items():
            if metadata.get(name) != value:
                raise self.damaged(member, f"its {name} is {metadata.get(name)!r}, expected {value!r}")
        num_rows = int(self.table.member_examples[member])
        if batch.num_rows != num_rows or reader.num_record_batches != 1:
            raise self.damaged(member, f"it has {batch.num_rows} examples, shards.parquet says {num_rows}")
        id_type = batch.schema.field("input_ids").type
        if self._id_type is None:
            self._id_type = UINT32 if "uint32" in str(id_type) else UINT16
        types = {"input_ids": self._id_type, "masked_lm_ids": self._id_type, "masked_lm_positions": UINT16}
        places, first = [0] * NUM_PLACES, self._mapped.bytes.ctypes.data

        def place(name: str, buffer: pa.Buffer | None, kind: np.dtype, num_items: int) -> int:
            """Where a buffer of at least so many items begins, in items from the start of the array."""
            if not num_items:  # a buffer of nothing, as of no masks in any row, may lie anywhere
                return 0
            found = buffer.address - first if buffer else -1
            if not buffer or not begin <= found <= begin + size - buffer.size or found % 4:
                raise self.damaged(member, f"its column {name} is compressed or not aligned")
            if buffer.size < num_items * kind.itemsize:
                raise self.damaged(member, f"its column {name} is too short")
            return found // kind.itemsize

        for column, name in enumerate(LISTS):
            array, kind = batch.column(name), types[name]
            if not pa.types.is_list(array.type) or array.type.value_type != pa.from_numpy_dtype(kind):
                raise self.damaged(member, f"its column {name} has type {array.type}")
            _, offsets, _, values = array.buffers()
            count = values.size // kind.itemsize if values else 0
            places[column], places[3 + column] = (
                place(name, offsets, INT32, num_rows + 1),
                place(name, values, kind, count),
            )
            places[6 + column] = count
        for column, name in enumerate(SCALARS, 9):
            array, kind = batch.column(name), UINT16 if name == "segment_b_start" else INT8
            if array.type != pa.from_numpy_dtype(kind):
                raise self.damaged(member, f"its column {name} has type {array.type}")
            places[column] = place(name, array.buffers()[1], kind, num_rows)
        return places

    def _expected_metadata(self, member: int) -> dict[str, str]:
        values: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "max_seq_length": self.table.max_seq_length,
            "copy": self.table.copies[self.table.shard_of_member[member]],
            "vocabulary_sha256": self.table.vocabulary_sha256,
        }
        return {name: str(value) for name, value in values.items()}

    def damaged(self, member: int, what: str) -> ValueError:
        """The error for a member that is not as shards.parquet and the contract say."""
        ordinal = member - int(np.searchsorted(self.table.shard_of_member, self.table.shard_of_member[member]))
        shard = self.files.name(int(self.files.file_of_member[member]))
        return ValueError(f"member {ordinal} of shard {shard} cannot be read: {what}; run `bertloom verify`")


def take_padded(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lists values[starts[i] : starts[i] + lengths[i]] as rows of one length, what follows in the array being their
    padding, and a mask of what belongs to the lists: (N, longest) each. Behind each start there must be room.

    A row is copied in one piece, from a view whose row i begins at item i: in half the time of an index for each item.
    """
    width = int(lengths.max(initial=0))
    view = np.ndarray((len(values) - width + 1, width), values.dtype, values, strides=values.strides * 2)
    return view[starts], np.arange(width, dtype=np.int32) < lengths.astype(np.int32)[:, None]

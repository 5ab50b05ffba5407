"""The members of shards: Arrow files in which rows are found by index arithmetic.

Opening a member with pyarrow copies nothing and gives the address of each column. A member is checked whole when it is
opened (`bertloom/members.py`). The places of its columns go into a table with one line per member. From then on a few
NumPy calls on one array over all files (`model/loading/mapping.py`) read any rows of any members. `docs/shard-format.md` is
the contract.

Dimensions in the comments: N rows, T tokens, M masked positions; K members.
"""

import os
import time
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bertloom.json_files import check_regular
from bertloom.members import check_ids, check_values, metadata_of, read_member
from bertloom.shards import FORMAT_VERSION
from model.loading.folder import LocalFolder
from model.loading.mapping import MappedFiles
from model.loading.stream import list_sums

MAX_MAPPED = 16_384
"""Largest number of mapped files, of all data sets that read at the same time. The kernel's usual limit is 65,530 mappings,
and a file may take two."""
ROWS_AT_ONCE = 8192
"""Rows read in one call; fewer than MAX_MAPPED, so that the files of all rows can be mapped."""

TIDY_SECONDS = 1.0
"""Interval at which `Files.tidy` is called."""

UINT16, UINT32, INT8, INT32 = np.dtype("u2"), np.dtype("u4"), np.dtype("i1"), np.dtype("i4")
LISTS = ("input_ids", "masked_lm_positions", "masked_lm_ids")
"""Columns of lists. For list i, columns i, 3 + i and 6 + i of the table of places hold the start of its offsets, the start
of its items and the number of items."""
SCALARS = ("segment_b_start", "next_sentence_label")
"""Columns with one number per row. For scalar i, column 9 + i of the table holds its start."""
NUM_PLACES = 3 * len(LISTS) + len(SCALARS)


@dataclass(frozen=True, kw_only=True)
class ShardTable:
    """The shards of one split and length from shards.parquet, in the order of training."""

    max_seq_length: int
    vocabulary_sha256: str
    vocabulary_size: int
    paths: list[str]
    """Paths relative to the data set."""
    copies: np.ndarray
    """int64, one per shard, like the next three"""
    examples: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    sha256: list[str]
    shard_of_member: np.ndarray
    """int64 (K,), like the next three"""
    member_offsets: np.ndarray
    """Byte offset of each member in its shard."""
    member_bytes: np.ndarray
    member_examples: np.ndarray

    @classmethod
    def from_arrow(
        cls, shards: pa.Table, split: str, max_seq_length: int, vocabulary_sha256: str, vocabulary_size: int
    ) -> "ShardTable":
        """Return the rows of shards.parquet of this split and length."""
        chosen = pc.and_(pc.equal(shards["split"], split), pc.equal(shards["max_seq_length"], max_seq_length))
        table = shards.filter(chosen).sort_by([("copy", "ascending"), ("number", "ascending")]).combine_chunks()

        def integers(name: str) -> np.ndarray:
            column = table[name].combine_chunks()
            return (column.flatten() if pa.types.is_list(column.type) else column).to_numpy().astype(np.int64)

        num_members = pc.list_value_length(table["member_offsets"]).to_numpy()
        return cls(
            max_seq_length=max_seq_length,
            vocabulary_sha256=vocabulary_sha256,
            vocabulary_size=vocabulary_size,
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
    """The files that hold members: whole shards, or one file per member."""

    sizes: np.ndarray
    """int64, bytes of each file"""
    file_of_member: np.ndarray
    """int64 (K,)"""
    offsets: np.ndarray
    """int64 (K,), byte offset of each member in its file"""

    def name(self, number: int) -> str:
        """Return the path or URL of the file's shard."""

    def open(self, number: int) -> BinaryIO:
        """Open a file, after fetching it to a local disk if necessary."""

    def expect(self, members: np.ndarray) -> None:
        """Start to fetch members that will be read soon, in this order."""

    def check(self) -> None:
        """Raise ValueError if a shard is missing or its size, if known, differs from shards.parquet."""

    def tidy(self, used: np.ndarray, idle: np.ndarray) -> np.ndarray:
        """Take note of the files used since the last call, and return those of the mapped but idle ones to unmap."""


class LocalShards:
    """Shards in a local folder, each a file with all its members."""

    def __init__(self, folder: LocalFolder, shards: ShardTable) -> None:
        self.folder = folder
        self.shards = shards
        self.sizes = shards.bytes
        self.file_of_member = shards.shard_of_member
        self.offsets = shards.member_offsets

    def name(self, number: int) -> str:
        """Return the path of a shard."""
        return str(self.folder.path / self.shards.paths[number])

    def open(self, number: int) -> BinaryIO:
        """Open a shard."""
        self._check(number)
        return open(check_regular(self.name(number)), "rb")

    def expect(self, members: np.ndarray) -> None:
        """Do nothing: the files are local."""

    def check(self) -> None:
        """Raise ValueError unless every shard exists with the size in shards.parquet."""
        for number in range(len(self.sizes)):
            self._check(number)

    def tidy(self, used: np.ndarray, idle: np.ndarray) -> np.ndarray:
        """Return no files: local ones stay mapped."""
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

    def __init__(self, table: ShardTable, files: Files, num_sharing: int = 1) -> None:
        """num_sharing: number of data sets that read at the same time."""
        self.max_mapped = MAX_MAPPED // num_sharing
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
        """Return the columns of these rows of members; see `model.loading.data.Examples.read`."""
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
        columns["segment_b_start"] = self._scalars(0, places, rows, UINT16)
        if (columns["segment_b_start"] > sizes[0]).any():
            member = int(members[columns["segment_b_start"] > sizes[0]][0])
            raise self.damaged(member, "a segment_b_start is beyond its example")
        if with_tokens:
            assert self._id_type
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
        """Return the starts of the rows' lists, in items of the array, and their lengths: (num_lists, N) each."""
        offsets_begin, begin, size = (places[first : first + num_lists] for first in (0, 3, 6))
        where = offsets_begin + rows
        starts = self._views[INT32].take(where).astype(np.int64)
        lengths = self._views[INT32].take(where + 1) - starts
        wrong = (starts | lengths | size - starts - lengths) < 0
        if wrong.any():  # they would lead out of the member, or backwards
            number, row = np.argwhere(wrong)[0]
            raise self.damaged(
                int(members[row]), f"its offsets of {LISTS[number]} lead outside the member or backwards"
            )
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
        """Start to fetch the files of members that will be read soon, in this order."""
        self.files.expect(members[~self._mapped.is_mapped[self.files.file_of_member[members]]])

    def _open(self, members: np.ndarray) -> None:
        """Map the files of those of these members that are not open, and store the places of their columns."""
        members = members[self._places[members, 0] < 0]
        files = self.files.file_of_member[members]
        for number in np.unique(files[~self._mapped.is_mapped[files]]).tolist():
            with self.files.open(number) as file:
                self._mapped.map(number, file)
        for member in members.tolist():
            self._places[member] = self._find_columns(member)
        num_mapped = int(self._mapped.is_mapped.sum())
        if num_mapped > self.max_mapped:  # the least recently used, many in one go so that this is rare
            idle = self._idle()
            idle = idle[np.argsort(self._last_use[idle], kind="stable")]
            self._close(idle[: num_mapped - self.max_mapped + self.max_mapped // 8])
        if time.monotonic() > self._tidied_at + TIDY_SECONDS:
            used = np.flatnonzero(self._mapped.is_mapped & (self._last_use > self._reads_at_tidying))
            self._close(self.files.tidy(used, self._idle()))
            self._tidied_at, self._reads_at_tidying = time.monotonic(), self._reads

    def _idle(self) -> np.ndarray:
        """Return the mapped files that the current read does not use."""
        return np.flatnonzero(self._mapped.is_mapped & (self._last_use < self._reads))

    def _close(self, files: np.ndarray) -> None:
        """Unmap files; the next read opens them again."""
        for number in files.tolist():
            self._mapped.unmap(number)
        self._places[np.isin(self.files.file_of_member, files)] = -1

    def _find_columns(self, member: int) -> list[int]:
        """Check a member whole and return its line of the table of places. Only rows of checked members are read."""
        begin = int(self._mapped.starts[self.files.file_of_member[member]] + self.files.offsets[member])
        size = int(self.table.member_bytes[member])
        payload = pa.py_buffer(self._mapped.bytes[begin : begin + size])
        try:
            batch = read_member(payload)
            metadata = metadata_of(batch.schema)
            for name, value in self._expected_metadata(member).items():
                if metadata[name] != value:
                    raise ValueError(f"its {name} is {metadata[name]!r}, expected {value!r}")
            check_values(batch, self.table.max_seq_length)
            check_ids(batch, self.table.vocabulary_size)
        except ValueError as error:
            raise self.damaged(member, str(error)) from None
        num_rows = int(self.table.member_examples[member])
        if batch.num_rows != num_rows:
            raise self.damaged(member, f"it has {batch.num_rows} examples, shards.parquet says {num_rows}")
        id_type = UINT32 if pa.types.is_uint32(batch.schema.field("input_ids").type.value_type) else UINT16
        self._id_type = self._id_type or id_type
        if self._id_type != id_type:
            raise self.damaged(member, f"its ids have the type {id_type}, those of other members {self._id_type}")
        types = {"input_ids": id_type, "masked_lm_ids": id_type, "masked_lm_positions": UINT16}
        places, first = [0] * NUM_PLACES, self._mapped.bytes.ctypes.data

        def place(name: str, buffer: pa.Buffer | None, kind: np.dtype, num_items: int) -> int:
            """Return the start of a buffer of at least num_items items, in items of the array."""
            if not num_items:  # an empty buffer, as without masks in any row, has no valid address
                return 0
            found = buffer.address - first if buffer else -1
            if not buffer or not begin <= found <= begin + size - buffer.size or found % 4:
                raise self.damaged(member, f"its column {name} is not aligned")
            if buffer.size < num_items * kind.itemsize:
                raise self.damaged(member, f"its column {name} is too short")
            return found // kind.itemsize

        for column, name in enumerate(LISTS):
            array, kind = batch.column(name), types[name]
            _, offsets, _, values = array.buffers()
            count = values.size // kind.itemsize if values else 0
            places[column], places[3 + column] = (
                place(name, offsets, INT32, num_rows + 1),
                place(name, values, kind, count),
            )
            places[6 + column] = count
        for column, name in enumerate(SCALARS, 9):
            item = UINT16 if name == "segment_b_start" else INT8
            places[column] = place(name, batch.column(name).buffers()[1], item, num_rows)
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
        """Return the error for a member that differs from shards.parquet or the shard format."""
        ordinal = member - int(np.searchsorted(self.table.shard_of_member, self.table.shard_of_member[member]))
        shard = self.files.name(int(self.files.file_of_member[member]))
        return ValueError(f"member {ordinal} of shard {shard} cannot be read: {what}; run `bertloom verify`")


def take_padded(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lists values[starts[i] : starts[i] + lengths[i]] as rows of one length, and a mask of the items that belong
    to them: (N, longest) each. Rows are padded with what follows in the array, so there must be room after each start.

    Each row is copied in one piece, from a view whose row i begins at item i. This takes half the time of one index per
    item.
    """
    width = int(lengths.max(initial=0))
    view = np.ndarray((len(values) - width + 1, width), values.dtype, values, strides=values.strides * 2)
    return view[starts], np.arange(width, dtype=np.int32) < lengths.astype(np.int32)[:, None]

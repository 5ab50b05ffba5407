"""A data set as the pages read it: examples by number, members within a limit of memory, tables and vocabulary.

A member or a table is read when a page needs it, checked, and kept while there is room. Members of a data set at a URL come
through the trainer's cache (`model/loading/cache.py`). All methods may be called by several threads at once.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from bertloom import storage
from bertloom.arrays import I64
from bertloom.json_files import Damaged
from bertloom.manifest import DAMAGED, read_dataset
from bertloom.members import check_ids, check_values, metadata_of, read_member
from bertloom.shards import FORMAT_VERSION
from jobs.browser.lru import LruCache

if TYPE_CHECKING:
    from jobs.explain import Explainer
    from model.loading.remote import RemoteMembers
    from pipeline.job import JobConfig
    from pipeline.vocabulary import Vocabulary

MEMBER_BYTES = 64 << 20
"""Bytes of the members that are kept. One of 512 tokens has about 1 MB."""
DOCUMENT_BYTES = 32 << 20
"""Bytes of the pages of documents/ that are kept."""
SHOWN_FAULTS = 3
"""Faults of a shard in one message."""
_PAGE = re.compile(r"documents/(train|validation)/([0-9]{5,})\.parquet")


class DamagedFile(ValueError):
    """A shard or a page of documents/ that is missing or damaged. The text has what `bertloom verify` prints about it."""


class Place(NamedTuple):
    """Where an example is."""

    shard: int
    """Row of shards.parquet."""
    member: int
    """Number of the member in the shard."""
    row: int
    """Row in the member."""


class BrowsedDataSet:
    """A finished data set, in a folder or a store."""

    def __init__(self, location: str, cache_dir: Path | None, cache_gb: float) -> None:
        self.location = location
        self.name = location.rstrip("/").rpartition("/")[2]
        self._version = _version(location)
        self.manifest: dict[str, Any]
        self.shards: pa.Table
        self.manifest, self.shards = read_dataset(location)
        self.rows: list[dict[str, Any]] = self.shards.to_pylist()
        self.firsts: I64 = np.cumsum([0, *(row["examples"] for row in self.rows)])
        """The number of the first example of each shard, then the number of all: (shards + 1,)."""
        self.first_members: I64 = np.cumsum([0, *(len(row["member_examples"]) for row in self.rows)])
        """The number of members before each shard, then the number of all: (shards + 1,)."""
        self.member_firsts: I64 = np.cumsum([0, *(n for row in self.rows for n in row["member_examples"])])
        """The number of the first example of each member, then the number of all: (members + 1,)."""
        self.pages: dict[str, list[int]] = {"train": [], "validation": []}
        """The numbers of the buckets of each split that have a page in documents/, in order."""
        for name in self.manifest["documents"]:
            if found := _PAGE.fullmatch(name):
                self.pages[found[1]].append(int(found[2]))
        for numbers in self.pages.values():
            numbers.sort()
        is_local = storage.is_local(location)
        self._stored = None if is_local else _StoredMembers(location, self.manifest, self.shards, cache_dir, cache_gb)
        self._members = LruCache[pa.RecordBatch](MEMBER_BYTES, lambda batch: batch.nbytes)
        self._documents = LruCache[pa.Table](DOCUMENT_BYTES, lambda table: table.nbytes)
        self._edges: dict[tuple[str, int], tuple[int, int]] = {}
        self._faults: dict[int, list[str]] = {}
        self.made: dict[object, Any] = {}
        """What pages keep of it (`jobs/browser/per_data_set.py`)."""
        self._explainer_lock = threading.Lock()

    @property
    def num_examples(self) -> int:
        return int(self.firsts[-1])

    @property
    def is_replaced(self) -> bool:
        """Whether its folder was removed, or another data set is there. Of a data set in a store this is not known."""
        return _version(self.location) != self._version

    @cached_property
    def vocabulary(self) -> Vocabulary:
        from pipeline.dataset import vocabulary_of

        return vocabulary_of(self.location, self.manifest)

    @cached_property
    def job(self) -> JobConfig:
        """The configuration of the job that made it."""
        from pipeline.job import JobConfig

        return JobConfig.from_manifest(self.manifest)

    @property
    def labels(self) -> Mapping[int, str]:
        """The name of each value of next_sentence_label."""
        return self.job.examples.objective.labels

    def label_of(self, row: Mapping[str, Any]) -> str:
        """Return the name of an example's label; the number if it has no name."""
        return self.labels.get(row["next_sentence_label"], str(row["next_sentence_label"]))

    # ---- examples

    def locate(self, index: int) -> Place:
        """Return where an example is. index: its number among all examples, in the order of shards.parquet."""
        if not 0 <= index < self.num_examples:
            raise ValueError(f"{self.name} has no example {index}: expected 0 to {self.num_examples - 1}")
        number = int(np.searchsorted(self.member_firsts, index, side="right")) - 1
        return Place(*self.member_place(number), index - int(self.member_firsts[number]))

    def member_place(self, number: int) -> tuple[int, int]:
        """Return (shard, number in the shard) of a member. number: its number among all members."""
        shard = int(np.searchsorted(self.first_members, number, side="right")) - 1
        return shard, number - int(self.first_members[shard])

    def example(self, index: int) -> dict[str, Any]:
        """Return the columns of an example as plain values."""
        place = self.locate(index)
        row: dict[str, Any] = self.member(place.shard, place.member).slice(place.row, 1).to_pylist()[0]
        return row

    def member(self, shard: int, member: int) -> pa.RecordBatch:
        """Return a checked member. shard: row of shards.parquet.

        Raises:
            DamagedFile: it is damaged or missing.
            ValueError, StoreError: the store does not answer.
        """
        return self._members.get((shard, member), lambda: self._read_member(shard, member))

    def columns(self, shard: int, member: int, names: Sequence[str]) -> pa.RecordBatch:
        """Return some columns of a member. The others are neither read nor checked, and nothing is kept.

        Raises:
            DamagedFile, ValueError, StoreError: as `member`.
        """
        row = self.rows[shard]
        with self._reading(shard, member):
            if self._stored:
                return _read_columns(pa.py_buffer(self._stored.payload(row, member)), row, member, names)
            with pa.memory_map(storage.file_below(self.location, row["path"])) as file:
                _check_end(row, member, file.size())
                file.seek(row["member_offsets"][member])
                return _read_columns(file.read_buffer(row["member_bytes"][member]), row, member, names)

    def _read_member(self, shard: int, member: int) -> pa.RecordBatch:
        row = self.rows[shard]
        with self._reading(shard, member):
            payload = self._stored.payload(row, member) if self._stored else self._local_payload(row, member)
            batch = read_member(pa.py_buffer(payload))
            self._check(batch, row, member)
            return batch

    @contextmanager
    def _reading(self, shard: int, member: int) -> Iterator[None]:
        """Replace the errors of reading a member by what `bertloom verify` prints about it."""
        try:
            yield
        except (OSError, ValueError) as error:
            if self._stored and not isinstance(error.__cause__, Damaged | None):
                raise  # the store did not answer
            raise DamagedFile(self._message(shard, member, error)) from error

    def _check(self, batch: pa.RecordBatch, row: Mapping[str, Any], member: int) -> None:
        """Raise ValueError unless a member agrees with shards.parquet and the manifest. row: of its shard."""
        expected = {
            "format_version": str(FORMAT_VERSION),
            "max_seq_length": str(row["max_seq_length"]),
            "copy": str(row["copy"]),
            "vocabulary_sha256": self.manifest["vocabulary"]["sha256"],
        }
        if (found := metadata_of(batch.schema)) != expected:
            raise ValueError(f"its metadata are {found}, expected {expected}")
        check_values(batch, row["max_seq_length"])
        check_ids(batch, self.manifest["vocabulary"]["size"])
        _check_rows(batch, row, member)

    def _message(self, shard: int, member: int, error: Exception) -> str:
        """Return what `bertloom verify` prints about a member. If it finds no fault, return the error of reading it."""
        from pipeline.checks.verify import faults_of_shard

        row = self.rows[shard]
        if shard not in self._faults:
            self._faults[shard] = faults_of_shard(self.location, row, self.manifest)
        others = re.compile(rf"{re.escape(row['path'])}: member (?!{member} )")
        found = [fault for fault in self._faults[shard] if not others.match(fault)]
        place = f"{row['path']}: member {member} at byte {row['member_offsets'][member]}"
        return f"{'; '.join(found[:SHOWN_FAULTS]) or f'{place}: cannot be read ({error})'}; {DAMAGED}"

    def _local_payload(self, row: Mapping[str, Any], member: int) -> bytes:
        """Return the content of a member. It is read: mapped pages would count as memory of the process."""
        path, size = storage.file_below(self.location, row["path"]), row["member_bytes"][member]
        payload = storage.read_range(path, row["member_offsets"][member], size)
        _check_end(row, member, row["member_offsets"][member] + len(payload))
        return payload

    # ---- documents

    def documents(self, split: str, number: int) -> pa.Table:
        """Return the page of documents/ of a bucket: one row per document, in id order (docs/shard-format.md).

        Raises:
            DamagedFile: it is damaged or missing.
        """
        return self._documents.get((split, number), lambda: self._read_documents(split, number))

    def _read_documents(self, split: str, number: int) -> pa.Table:
        from pipeline.dataset import parse_documents, read_listed

        name = f"documents/{split}/{number:05d}.parquet"
        try:
            return parse_documents(read_listed(self.location, name, self.manifest["documents"]), name).combine_chunks()
        except FileNotFoundError:
            raise DamagedFile(f"{name}: is missing; {DAMAGED}") from None
        except ValueError as error:
            raise DamagedFile(f"{error}; {DAMAGED}") from error

    def bucket_of(self, document: int) -> tuple[str, int] | None:
        """Return (split, number) of the bucket of a document, None if documents/ does not hold it."""
        place = self._place_of(document)
        return place and place[0]

    def document(self, document: int) -> dict[str, Any] | None:
        """Return the row of a document in documents/, None if there is none."""
        place = self._place_of(document)
        if place is None:
            return None
        (split, number), row = place
        found: dict[str, Any] = self.documents(split, number).slice(row, 1).to_pylist()[0]
        return found

    def _place_of(self, document: int) -> tuple[tuple[str, int], int] | None:
        """Return (bucket, row in its page). A bucket is a range of ids, so few pages are read."""
        for split, numbers in self.pages.items():
            low, high = 0, len(numbers)
            middle = document * high >> 64  # ids are uniform
            while low < high:
                first, last = self._edges_of(split, numbers[middle])
                if first <= document <= last:
                    ids = self.documents(split, numbers[middle])["id"].to_numpy()
                    row = int(np.searchsorted(ids, np.uint64(document)))
                    if int(ids[row]) == document:
                        return (split, numbers[middle]), row
                    break
                low, high = (low, middle) if document < first else (middle + 1, high)
                middle = (low + high) // 2
        return None

    def _edges_of(self, split: str, number: int) -> tuple[int, int]:
        """Return the first and the last id of a bucket."""
        if (split, number) not in self._edges:
            ids = self.documents(split, number)["id"].to_numpy()
            self._edges[split, number] = (int(ids[0]), int(ids[-1])) if len(ids) else (0, -1)
        return self._edges[split, number]

    @contextmanager
    def explainer(self) -> Iterator[Explainer]:
        """Lend the explainer of the data set to one thread at a time."""
        with self._explainer_lock:
            yield self._explainer

    @cached_property
    def _explainer(self) -> Explainer:
        from jobs.explain import Explainer

        return Explainer(self.location)


def _version(location: str) -> tuple[int, int, int] | None:
    """Return what is another after a data set was made again in a folder."""
    if not storage.is_local(location):
        return None
    try:
        found = os.stat(os.path.join(location, "manifest.json"))
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read_columns(payload: pa.Buffer, row: Mapping[str, Any], member: int, names: Sequence[str]) -> pa.RecordBatch:
    batch = read_member(payload, names)
    _check_rows(batch, row, member)
    return batch


def _check_end(row: Mapping[str, Any], member: int, size: int) -> None:
    """Raise ValueError if a shard ends before the end of a member. row: of the shard."""
    if (missing := row["member_offsets"][member] + row["member_bytes"][member] - size) > 0:
        raise ValueError(f"the shard ends {missing} bytes early")


def _check_rows(batch: pa.RecordBatch, row: Mapping[str, Any], member: int) -> None:
    """Raise ValueError unless a member has the number of examples that shards.parquet has. row: of its shard."""
    if batch.num_rows != row["member_examples"][member]:
        raise ValueError(f"{batch.num_rows} examples, expected {row['member_examples'][member]}")


class _StoredMembers:
    """Members of a data set at a URL, through the trainer's cache."""

    def __init__(
        self, location: str, manifest: Mapping[str, Any], shards: pa.Table, cache_dir: Path | None, cache_gb: float
    ) -> None:
        from model.loading.cache import MemberCache, default_directory
        from model.loading.folder import RemoteFolder
        from model.loading.members import ShardTable
        from model.loading.remote import RemoteMembers

        if not 0 < cache_gb < 2**63:
            raise ValueError(f"--cache-gb {cache_gb:g} must be above 0 and below 2^63: it is in 10^9 bytes")
        cache, folder = MemberCache(cache_dir or default_directory(), int(cache_gb * 1e9)), RemoteFolder(location)
        vocabulary = manifest["vocabulary"]["sha256"], manifest["vocabulary"]["size"]
        kinds = dict.fromkeys(zip(shards["split"].to_pylist(), shards["max_seq_length"].to_pylist()))
        self._files: dict[tuple[str, int], RemoteMembers] = {
            kind: RemoteMembers(folder, ShardTable.from_arrow(shards, *kind, *vocabulary), cache) for kind in kinds
        }

    def payload(self, row: Mapping[str, Any], member: int) -> bytes:
        """Return the content of a member, after fetching it to the cache if necessary."""
        files = self._files[row["split"], row["max_seq_length"]]
        first = int(np.searchsorted(files.shards.shard_of_member, files.shards.paths.index(row["path"])))
        with files.open(first + member) as file:
            file.seek(0)
            return file.read()

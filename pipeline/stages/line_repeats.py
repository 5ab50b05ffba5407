"""The stage of repeated lines, such as menus and notices: they are counted over all input, to be left out of the texts.

    list  : group  -> lists     the hash of every line of its splits and the id of its document, sorted, in files
    plan  : lists  -> ranges    of hashes, of about 2^22 entries each
    count : range  -> counts    the lines of the range that are in more documents than allowed
    join  : counts -> REPEATED  the list that every worker reads before it cleans texts

A line counts once per document, and equal documents count as one. The bulk goes through files, so a worker's memory holds
one list, or one range, or the repeated lines.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64, U64
from bertloom.sealed_files import is_sealed, read_sealed, write_sealed
from pipeline.dataset import REPEATED, REPEATED_SCHEMA
from pipeline.inputs.documents import read_documents, text_versions
from pipeline.inputs.named_inputs import clean_of
from pipeline.inputs.sources import SplitGroup
from pipeline.options import flat
from pipeline.places import Places
from pipeline.stages.counters import increment
from pipeline.stages.parquet import parquet_bytes
from pipeline.stages.reading_notes import Note, no_note, reading
from pipeline.stages.sorted_rows import NUM_RANGES, range_edges, read_rows, write_rows
from pipeline.stages.transform import transform
from pipeline.stages.work_log import log_begin, log_piece
from pipeline.text.cleaning import CleanConfig, line_hashes
from pipeline.text.records import Document, Record, document_id

ENTRY = np.dtype([("line", "<u8"), ("document", "<u8")])
MAX_ENTRIES = 1 << 22  # of a list, and about of a range: 64 MB
VERSION = 6  # raise it with any change in the content of a list for the same text


@dataclass(frozen=True)
class LineList:
    """A file with the entries of some documents of a group of splits."""

    name: str
    num_entries: int


def list_lines(group: SplitGroup, config: CleanConfig, folder: str, note: Note = no_note) -> list[LineList]:
    """Write the lists of a group, unless they are there, and return them. note: is told which split is read next."""
    config = config.without_rejection()  # these steps come after the count
    versions = group.versions(partial(text_versions, config))
    key = [VERSION, group.ranges, flat(config), versions]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    finished = storage.join(folder, f"{digest}.json")
    if is_sealed(finished):
        found = [LineList(**fields) for fields in json.loads(read_sealed(finished))]
        if all(is_sealed(storage.join(folder, one.name)) for one in found):
            return found
    lists: list[LineList] = []
    for entries in _entries(group, config, note):
        lists.append(LineList(f"{digest}-{len(lists):05d}.lines", len(entries)))
        write_rows(storage.join(folder, lists[-1].name), entries, "line")
    write_sealed(finished, [json.dumps(list(map(asdict, lists))).encode()])
    return lists


def _entries(group: SplitGroup, config: CleanConfig, note: Note) -> Iterator[NDArray[np.void]]:
    """Yield the entries of a group's documents in batches: ENTRY (entries,), sorted, without duplicates."""
    held: list[NDArray[np.void]] = []
    size = 0
    for item in _items(group, config, note):
        if isinstance(item, Document):
            lines = np.unique(line_hashes(item.text.decode()))
            entries = np.empty(len(lines), ENTRY)
            entries["line"] = lines
            entries["document"] = document_id(item.text)
            held.append(entries)
            size += len(entries)
            if size >= MAX_ENTRIES:
                yield _distinct(held)
                held, size = [], 0
    if held:
        yield _distinct(held)


def _items(group: SplitGroup, config: CleanConfig, note: Note) -> Iterator[Record]:
    for split in group.splits:
        note(split, 0)
        yield from read_documents(split, config=config, keep_lines=True)


def _distinct(held: list[NDArray[np.void]]) -> NDArray[np.void]:
    """Return all entries, sorted, without duplicates."""
    entries = np.concatenate([np.zeros(0, ENTRY), *held])
    entries = entries[np.lexsort((entries["document"], entries["line"]))]
    return entries[np.append(True, entries[1:] != entries[:-1])[: len(entries)]]


def plan_ranges(lists: Iterable[LineList]) -> list[tuple[int, int]]:
    """Return (first, end) of the ranges of hashes that are counted in one call: each has about MAX_ENTRIES entries."""
    number = -(-sum(one.num_entries for one in lists) // MAX_ENTRIES)
    number = min(max(1, number), NUM_RANGES)
    return [range_edges(i, number) for i in range(number)]


def count_range(folder: str, names: Iterable[str], first: int, end: int, max_documents: int) -> tuple[U64, I64]:
    """Return (hashes, documents) of the lines of a range that are in more than `max_documents` documents, sorted."""
    entries = _distinct([read_rows(storage.join(folder, name), ENTRY, first, end) for name in names])
    lines, documents = np.unique(entries["line"], return_counts=True)
    return lines[documents > max_documents], documents[documents > max_documents]


@transform
class CountLines(beam.PTransform[Any, Any]):
    """SplitGroups -> REPEATED, in the scratch folder."""

    config: CleanConfig
    max_documents: int
    """A line that is in more documents is left out."""
    places: Places
    of_inputs: Sequence[CleanConfig] = ()
    """How the texts of each table of --inputs are cleaned."""

    def expand(self, groups: Any) -> Any:
        return (
            groups
            | "list lines" >> beam.FlatMap(self.list_lines)
            | "all lists" >> beam.GroupBy(lambda _: None)
            | "plan ranges" >> beam.FlatMapTuple(self.plan_ranges)
            | "spread ranges" >> beam.Reshuffle()
            | "count range" >> beam.MapTuple(self.count_range)
            | "all ranges" >> beam.GroupBy(lambda _: None)
            | "join ranges" >> beam.MapTuple(self.join_ranges)
        )

    def list_lines(self, group: SplitGroup) -> Iterator[LineList]:
        log_begin(self.places.work_log, "list lines")
        with reading(self.places.reading_notes) as note:
            config = clean_of(group.splits[0].source, self.config, self.of_inputs)
            lists = list_lines(group, config, self.places.lines, note)
        entries = sum(one.num_entries for one in lists)
        increment("list lines", splits_in=len(group.splits), lists_out=len(lists), entries_out=entries)
        yield from lists
        log_piece(self.places.work_log, "list lines", group.name, group.num_bytes)

    def plan_ranges(self, _: None, lists: Iterable[LineList]) -> list[tuple[int, int]]:
        lists = sorted(lists, key=lambda one: one.name)
        storage.write_whole(self._list_names, [json.dumps([one.name for one in lists]).encode()])
        ranges = plan_ranges(lists)
        log_begin(self.places.work_log, "count lines", len(ranges))
        return ranges

    def count_range(self, first: int, end: int) -> int:
        names = json.loads(storage.read(self._list_names))
        lines, documents = count_range(self.places.lines, names, first, end, self.max_documents)
        table = pa.Table.from_arrays([pa.array(lines), pa.array(documents)], schema=REPEATED_SCHEMA)
        storage.write_whole(self._counts(first), [parquet_bytes(table)])
        increment("count lines", ranges_in=1, lines_repeated=len(lines))
        log_piece(self.places.work_log, "count lines", str(first))
        return first

    def join_ranges(self, _: None, ranges: Iterable[int]) -> None:
        tables = [pq.read_table(pa.BufferReader(storage.read(self._counts(first)))) for first in sorted(ranges)]
        data = parquet_bytes(pa.concat_tables(tables).combine_chunks())
        storage.write_whole(storage.join(self.places.scratch, REPEATED), [data])

    @property
    def _list_names(self) -> str:
        return storage.join(self.places.scratch, "lines.json")

    def _counts(self, first: int) -> str:
        return storage.join(self.places.scratch, f"lines-{first:04d}.parquet")

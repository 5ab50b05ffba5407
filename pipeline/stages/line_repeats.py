"""Lines that repeat across documents, such as menus and notices: counted over all of the input, to be left out.

    list  : splits -> lists     the hash of every line and the id of its document, sorted, in files
    plan  : lists  -> ranges    of hashes, of about 2^22 entries each
    count : ranges -> counts    which lines of a range are in more than so many documents
    join  : counts -> REPEATED  the list that every worker reads while it cleans

A line counts once a document, and equal documents are one. The bulk goes by file: memory is that of one list, of one range,
and of the repeated lines.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertloom import storage
from pipeline.inputs.documents import TextConfig, read_documents, text_versions
from pipeline.inputs.sources import Split
from pipeline.options import flat
from pipeline.text.cleaning import line_hashes
from pipeline.text.records import Document, document_digest, joined_text

REPEATED = "repeated_lines.parquet"
SCHEMA = pa.schema(
    [
        pa.field("line", pa.uint64(), nullable=False),  # the first 8 bytes, little-endian, of the SHA-256 of the line
        pa.field("documents", pa.int64(), nullable=False),
    ]
)

_ENTRY = np.dtype([("line", "<u8"), ("document", "<u8")])
_ENTRIES = 1 << 22  # of a list, and about of a range: 64 MB
_RANGES = 1024  # of hashes, by their upper ten bits; a list begins with where each begins in it, and ends
_VERSION = 2  # raise it with any change in what a list holds for the same text


@dataclass(frozen=True)
class LineList:
    """The entries of some documents of a split, in a file."""

    name: str
    num_entries: int


def read_repeated(folder: str) -> NDArray[np.uint64]:
    """The hashes of the repeated lines that a folder of parts, or a data set, keeps: uint64 (lines,), sorted."""
    with storage.open_read(storage.join(folder, REPEATED)) as file:
        return pq.read_table(file)["line"].to_numpy()


# ---- lists


def list_lines(split: Split, config: TextConfig, folder: str) -> list[LineList]:
    """The lists of a split; they are written where they are not there."""
    clean = replace(config.clean, min_characters=0, max_characters=None, languages=(), quality_filter=())
    config = replace(config, clean=clean)  # these four steps come after the count
    source = split.source
    versions = text_versions(clean, source.format)
    key = [_VERSION, source.fingerprint, source.encoding, split.start, split.end, flat(config), versions]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    done = storage.join(folder, f"{digest}.json")
    if storage.exists(done):
        return [LineList(**row) for row in json.loads(storage.read(done))]
    lists: list[LineList] = []
    for entries in _entries(split, config):
        lists.append(LineList(f"{digest}-{len(lists):05d}.lines", len(entries)))
        edges = np.arange(_RANGES, dtype=np.uint64) << np.uint64(54)
        offsets = np.append(np.searchsorted(entries["line"], edges), len(entries)).astype("<u8")
        storage.write_whole(storage.join(folder, lists[-1].name), [offsets.tobytes(), entries.tobytes()])
    storage.write_whole(done, [json.dumps([asdict(one) for one in lists]).encode()])
    return lists


def _entries(split: Split, config: TextConfig) -> Iterator[NDArray[np.void]]:
    """Of the documents of a split, in portions: _ENTRY (entries,), sorted, each once."""
    held: list[NDArray[np.void]] = []
    size = 0
    for item in read_documents(split, config=config, keep_lines=True):
        if isinstance(item, Document):
            lines = np.unique(line_hashes(item.text.decode()))
            entries = np.empty(len(lines), _ENTRY)
            entries["line"] = lines
            entries["document"] = int.from_bytes(document_digest(joined_text(item.text))[:8], "big")
            held.append(entries)
            size += len(entries)
            if size >= _ENTRIES:
                yield _distinct(held)
                held, size = [], 0
    if held:
        yield _distinct(held)


def _distinct(held: list[NDArray[np.void]]) -> NDArray[np.void]:
    """All entries, sorted, each once."""
    entries = np.concatenate([np.zeros(0, _ENTRY), *held])
    entries = entries[np.lexsort((entries["document"], entries["line"]))]
    return entries[np.append(True, entries[1:] != entries[:-1])[: len(entries)]]


# ---- ranges


def plan_ranges(lists: Iterable[LineList]) -> list[tuple[int, int]]:
    """(first, end) of the ranges of hashes that are counted at a time, so that each holds about _ENTRIES."""
    size = -(-sum(one.num_entries for one in lists) // _ENTRIES)
    number = min(max(1, size), _RANGES)
    edges = [_RANGES * i // number for i in range(number + 1)]
    return list(zip(edges, edges[1:]))


def count_range(
    folder: str, names: Iterable[str], first: int, end: int, most: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """(hashes, documents) of the lines of a range that are in more than `most` documents, sorted."""
    held = []
    for name in names:
        with storage.open_read(storage.join(folder, name)) as file:
            header = (_RANGES + 1) * 8
            offsets = np.frombuffer(storage.read_at(file, 0, header), "<u8").astype(np.int64)
            begin, stop = offsets[first] * _ENTRY.itemsize, offsets[end] * _ENTRY.itemsize
            held.append(np.frombuffer(storage.read_at(file, int(header + begin), int(stop - begin)), _ENTRY))
    lines, documents = np.unique(_distinct(held)["line"], return_counts=True)
    return lines[documents > most], documents[documents > most]


# ---- Beam


class ListLines(beam.DoFn):
    """Split -> LineLists."""

    def __init__(self, folder: str, config: TextConfig):
        self.folder, self.config = folder, config

    def process(self, split: Split) -> Iterator[LineList]:
        yield from list_lines(split, self.config, self.folder)


class PlanRanges(beam.DoFn):
    """(None, all LineLists) -> ranges; the names of the lists go by file."""

    def __init__(self, scratch: str):
        self.scratch = scratch

    def process(self, group: tuple[None, Iterable[LineList]]) -> Iterator[tuple[int, int]]:
        lists = sorted(group[1], key=lambda one: one.name)
        storage.write_whole(_names_file(self.scratch), [json.dumps([one.name for one in lists]).encode()])
        yield from plan_ranges(lists)


class CountRange(beam.DoFn):
    """Range -> its first hash's number; what was counted goes by file."""

    def __init__(self, folder: str, scratch: str, most: int):
        self.folder, self.scratch, self.most = folder, scratch, most

    def process(self, span: tuple[int, int]) -> Iterator[int]:
        names = json.loads(storage.read(_names_file(self.scratch)))
        lines, documents = count_range(self.folder, names, *span, self.most)
        storage.write_whole(_range_file(self.scratch, span[0]), [_as_parquet(lines, documents)])
        yield span[0]


class JoinRanges(beam.DoFn):
    """(None, all ranges) -> nothing: writes REPEATED."""

    def __init__(self, scratch: str):
        self.scratch = scratch

    def process(self, group: tuple[None, Iterable[int]]) -> None:
        tables = [pq.read_table(pa.BufferReader(storage.read(_range_file(self.scratch, i)))) for i in sorted(group[1])]
        table = pa.concat_tables(tables)
        data = _as_parquet(table["line"].to_numpy(), table["documents"].to_numpy())
        storage.write_whole(storage.join(self.scratch, REPEATED), [data])


class CountLines(beam.PTransform):
    """Splits -> REPEATED, in the scratch folder."""

    def __init__(self, folder: str, scratch: str, config: TextConfig, most: int):
        """folder: for lists; most: documents that a line may be in."""
        super().__init__()
        self.folder, self.scratch, self.config, self.most = folder, scratch, config, most

    def expand(self, splits):
        return (
            splits
            | "list lines" >> beam.ParDo(ListLines(self.folder, self.config))
            | "all lists" >> beam.GroupBy(lambda _: None)
            | "plan ranges" >> beam.ParDo(PlanRanges(self.scratch))
            | "spread ranges" >> beam.Reshuffle()
            | "count range" >> beam.ParDo(CountRange(self.folder, self.scratch, self.most))
            | "all ranges" >> beam.GroupBy(lambda _: None)
            | "join ranges" >> beam.ParDo(JoinRanges(self.scratch))
        )


def _names_file(scratch: str) -> str:
    return storage.join(scratch, "lines.json")


def _range_file(scratch: str, first: int) -> str:
    return storage.join(scratch, f"lines-{first:04d}.parquet")


def _as_parquet(lines: NDArray[np.uint64], documents: NDArray[np.int64]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays([pa.array(lines), pa.array(documents)], schema=SCHEMA), sink, compression="zstd"
    )
    return sink.getvalue()

"""The list of a job's splits: a file that workers read, so that the job itself stays small whatever the number of files.

    magic, checksum | length of the next part | sources, an Arrow stream | splits, an Arrow stream

bertloom/sealed_files.py describes the checksum. The name of the file is a digest of its content, so that a worker may keep a
list that it has read.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from bertloom import storage
from bertloom.sealed_files import read_sealed, write_sealed
from pipeline.arrow_streams import as_stream
from pipeline.inputs.sources import ReadConfig, Source, Split, SplitGroup, differences

_NAMES = ("path", "name", "format", "codec", "encoding", "fingerprint")  # text


@dataclass(frozen=True)
class SplitList:
    """The splits of a job, in groups, and their sources. Only what is asked for becomes objects."""

    sources: pa.Table
    splits: pa.Table
    """Columns source, start, end, num_bytes and group, sorted by group."""

    @property
    def num_groups(self) -> int:
        """Number of groups."""
        return int(self.splits["group"][-1].as_py()) + 1 if len(self.splits) else 0

    def groups(self, first: int, end: int) -> Iterator[SplitGroup]:
        """Yield the groups first ... end - 1."""
        numbers = self.splits["group"].to_numpy()
        for group in range(first, end):
            low, high = np.searchsorted(numbers, [group, group + 1])
            rows = self.splits.slice(low, high - low).to_pydict()
            chosen = self.sources.take(pa.array(rows["source"]))
            named = zip(_sources(chosen), rows["start"], rows["end"], rows["num_bytes"], strict=True)
            yield SplitGroup(tuple(Split(*fields) for fields in named))

    def all_sources(self) -> list[Source]:
        """Return all sources in the order in which they were given."""
        return list(_sources(self.sources))


def write_split_list(folder: str, sources: Sequence[Source], groups: Sequence[SplitGroup]) -> str:
    """Write a list into a folder and return its path."""
    name, chunks = encode_split_list(sources, groups)
    path = storage.join(folder, name)
    write_sealed(path, chunks)
    return path


def encode_split_list(sources: Sequence[Source], groups: Sequence[SplitGroup]) -> tuple[str, list[bytes]]:
    """Return the name and the content of a list."""
    number = {source.name: i for i, source in enumerate(sources)}
    assert len(number) == len(sources)
    rows = [
        (number[split.source.name], split.start, split.end, split.num_bytes) for one in groups for split in one.splits
    ]
    splits: dict[str, Any] = {
        "source": pa.array([row[0] for row in rows], pa.uint32()),
        "start": pa.array([row[1] for row in rows], pa.int64()),
        "end": pa.array([row[2] for row in rows], pa.int64()),
        "num_bytes": pa.array([row[3] for row in rows], pa.int64()),
        "group": pa.array(np.repeat(np.arange(len(groups), dtype=np.uint32), [len(one.splits) for one in groups])),
    }
    first, second = (as_stream(pa.table(columns)) for columns in (_columns(sources), splits))
    chunks = [len(first).to_bytes(8, "little"), first, second]
    return f"splits-{hashlib.sha256(b''.join(chunks)).hexdigest()[:24]}", chunks


@lru_cache(maxsize=2)
def read_split_list(path: str) -> SplitList:
    """Return the list in a file. Cached: its path depends on its content."""
    content = memoryview(read_sealed(path))
    middle = 8 + int.from_bytes(content[:8], "little")
    first, second = (pa.ipc.open_stream(part).read_all() for part in (content[8:middle], content[middle:]))
    return SplitList(first.combine_chunks(), second.combine_chunks())  # a row of a table in pieces costs all of them


def _columns(sources: Sequence[Source]) -> dict[str, Any]:
    options = {read: json.dumps(differences(read, ReadConfig())) for read in {source.read for source in sources}}
    columns: dict[str, Any] = {
        name: pa.array([_encoded(getattr(source, name)) for source in sources], pa.binary()) for name in _NAMES
    }
    columns["size"] = pa.array([source.size for source in sources], pa.int64())
    columns["read"] = pa.array([options[source.read] for source in sources], pa.string())
    columns["input"] = pa.array([source.input for source in sources], pa.int32())
    columns["modified"] = pa.array([source.modified for source in sources], pa.float64())
    for name in ("held_out", "left_out"):
        columns[name] = pa.array([getattr(source, name) for source in sources], pa.bool_())
    assert columns.keys() == {field.name for field in fields(Source)}
    return columns


def _sources(table: pa.Table) -> Iterator[Source]:
    configs: dict[str, ReadConfig] = {}
    for row in table.to_pylist():
        text = row["read"]
        if text not in configs:
            configs[text] = ReadConfig(**json.loads(text))
        yield Source(**{**row, **{name: _decoded(row[name]) for name in _NAMES}, "read": configs[text]})


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode(errors="surrogatepass")  # a file's name need not be UTF-8


def _decoded(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="surrogatepass")

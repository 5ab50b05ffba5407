"""Packs: many small parts copied into one file.

Each bucket reads every file of tokens. A folder of a hundred thousand small texts has as many parts, and each bucket would
open them all. So before the plan is made, runs of small parts become packs. A pack has the layout of a part. Its name is a
digest of the names of its parts, so a restart finds it.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa

from bertloom import storage
from pipeline.tokens import PartRecord, TokenFile, read_entries, read_finished, read_range, write_tokens

VERSION = 2  # raise it with any change in the content of a pack of the same parts
SMALL = 1 << 18  # tokens; a smaller part is packed
FULL = 1 << 22  # tokens of a pack, at most
FEWEST = 16  # parts of a pack, at least
DOCUMENT_TOKENS = 32  # the space of a document's row, in tokens


@dataclass(frozen=True)
class Pack:
    """A file with the documents of consecutive parts."""

    first: int
    """Number of its first part. A document's part is this plus `part` of the document's row."""
    count: int
    """Number of parts."""
    file: TokenFile

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the pack with these fields, as `json.loads` gives them."""
        return cls(fields["first"], fields["count"], TokenFile.from_json(fields["file"]))


def pack_parts(parts: Sequence[PartRecord], folder: str) -> tuple[Pack, ...]:
    """Write the packs of all runs of small parts, unless they are there, and return them."""
    packs = []
    for first, count in small_runs([part.num_tokens + DOCUMENT_TOKENS * part.num_documents for part in parts]):
        if count >= FEWEST:
            packs.append(Pack(first, count, _write_pack(parts[first : first + count], folder)))
    return tuple(packs)


def token_files(parts: Sequence[PartRecord], packs: Sequence[Pack]) -> Iterator[tuple[int, TokenFile]]:
    """Yield (number of its first part, file) of all files that hold the documents, in the order of the parts."""
    pack_at = {pack.first: pack for pack in packs}
    number = 0
    while number < len(parts):
        pack = pack_at.get(number)
        yield number, pack.file if pack else parts[number]
        number += pack.count if pack else 1


def small_runs(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, count) of runs of small parts, none larger than FULL."""
    first = total = 0
    for i, size in enumerate([*sizes, SMALL]):  # the last run ends as if a large part followed
        if size < SMALL and total + size <= FULL:
            total += size
            continue
        yield first, i - first
        first, total = (i, size) if size < SMALL else (i + 1, 0)


def _write_pack(parts: Sequence[PartRecord], folder: str) -> TokenFile:
    key = json.dumps([VERSION, [part.name for part in parts]])
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.pack"
    path = storage.join(folder, name)
    if finished := read_finished(path, TokenFile):
        return finished
    blocks, entries = [], []
    for i, part in enumerate(parts):
        if (table := read_entries(storage.join(folder, part.name), part)) is not None:
            entries.append(table.set_column(0, "part", pa.array(np.full(len(table), i, np.uint32))))
        if part.num_documents:
            block = read_range(storage.join(folder, part.name), part, 0, 1 << 64)
            rows = block.documents.copy()
            rows["part"] = i
            blocks.append(replace(block, documents=rows))
    names = pa.concat_tables(entries) if entries else None
    return write_tokens(path, TokenFile, {"name": name}, blocks, np.dtype(parts[0].ids_dtype), entries=names)

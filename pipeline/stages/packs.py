"""Packs: many small parts copied into one file.

A bucket asks every file of tokens for its documents. A folder of a hundred thousand small texts has as many parts, each
of which would be opened for each bucket; so before the plan is made, runs of small parts become packs. A pack is laid out
as a part is, and its name tells which parts are in it: a started-again job finds it.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bertloom import storage
from pipeline.tokens import PartRecord, TokenFile, read_footer, read_range, write_tokens

VERSION = 1  # raise it with any change in how parts lie in a pack
SMALL = 1 << 18  # tokens of a part, below which it is packed
FULL = 1 << 22  # of a pack, at most
FEWEST = 16  # parts that make a pack
DOCUMENT_TOKENS = 32  # a row of a document takes as much room as so many


@dataclass(frozen=True)
class Pack:
    """A file with the documents of parts that follow each other."""

    first: int
    """Number of the first of them; to it is added `part` of a document's row."""
    count: int
    file: TokenFile

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "Pack":
        """From what JSON makes of it."""
        return cls(fields["first"], fields["count"], TokenFile.of(fields["file"]))


def pack_parts(parts: Sequence[PartRecord], folder: str) -> tuple[Pack, ...]:
    """The packs of all runs of small parts, written where they are not there."""
    packs = []
    for first, count in _runs([part.num_tokens + DOCUMENT_TOKENS * part.num_documents for part in parts]):
        if count >= FEWEST:
            packs.append(Pack(first, count, _write_pack(parts[first : first + count], folder)))
    return tuple(packs)


def token_files(parts: Sequence[PartRecord], packs: Sequence[Pack]) -> Iterator[tuple[int, TokenFile]]:
    """(number of its first part, file) of all files that hold the parts' documents, in the parts' order."""
    pack_at = {pack.first: pack for pack in packs}
    number = 0
    while number < len(parts):
        pack = pack_at.get(number)
        yield number, pack.file if pack else parts[number]
        number += pack.count if pack else 1


def _runs(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, count) of runs of small parts, none larger than FULL."""
    first = total = 0
    for i, size in enumerate([*sizes, SMALL]):  # the last run ends as if a large part came
        if size < SMALL and total + size <= FULL:
            total += size
            continue
        yield first, i - first
        first, total = (i, size) if size < SMALL else (i + 1, 0)


def _write_pack(parts: Sequence[PartRecord], folder: str) -> TokenFile:
    key = json.dumps([VERSION, [part.name for part in parts]])
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.pack"
    path = storage.join(folder, name)
    if storage.exists(path):
        return read_footer(path, TokenFile)
    blocks = []
    for i, part in enumerate(parts):
        if part.num_documents:
            block = read_range(storage.join(folder, part.name), part, 0, 1 << 64)
            rows = block.documents.copy()
            rows["part"] = i
            blocks.append(replace(block, documents=rows))
    return write_tokens(path, TokenFile, {"name": name}, blocks, np.dtype(parts[0].ids_dtype))

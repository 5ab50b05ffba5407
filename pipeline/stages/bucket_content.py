"""The documents of a bucket, read from all parts: in the order of ids, without duplicates and what else is left out."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64, U64, Bools
from pipeline.dataset import HeldOut
from pipeline.stages.document_places import find_places
from pipeline.stages.plan import Bucket, Plan
from pipeline.tokens import PartRecord, TokenBlock, read_range, take_ranges

MAX_HELD_BYTES = 32_000_000  # of a bucket before duplicates are dropped; without duplicates few buckets have more
READERS = 8
"""Parts of a store that are read at a time: waiting for answers takes longer than the rest."""
Held = tuple[TokenBlock, NDArray[np.intp]]  # documents, and the number of the part of each
Chooser = Callable[[int], Callable[[U64], Bools]]
"""Returns, for the number of a part, a function from ids in it to whether the documents are wanted."""


@dataclass(frozen=True)
class BucketContent:
    """The documents of a bucket."""

    tokens: TokenBlock
    """In id order, without duplicates."""
    sources: list[str]
    """Name of the file of each document."""
    part_of: NDArray[np.intp]
    """Number of the part of each document."""
    num_read: I64
    """Documents of each part, with duplicates: int64 (parts,)."""
    num_near: I64
    """Near duplicates that were dropped, without copies: int64 (parts,)."""

    @property
    def num_duplicates(self) -> int:
        """Near duplicates included."""
        return int(self.num_read.sum()) - len(self.part_of)


def read_bucket(
    bucket: Bucket,
    plan: Plan,
    folder: str,
    near_duplicate_ids: U64 | None = None,
    choose: Chooser | None = None,
) -> BucketContent:
    """Return a bucket's documents. Of equal documents the one whose source sorts first is kept.

    choose: which documents of a part the bucket has; by default the plan's fraction decides.
    """
    held: list[Held] = []
    num_bytes = 0
    num_read = np.zeros(len(plan.parts), np.int64)
    max_bytes = MAX_HELD_BYTES
    if choose is None:
        choose = documents_of_split(bucket, plan)
    number = -1  # not by `enumerate`, which would hold a block while the next one is read
    for block in read_blocks(bucket, plan.parts, folder, choose):
        number += 1
        ids = block.documents["id"]
        if len(ids) == 0:
            continue
        num_read[number] = len(ids)
        held.append((block, np.full(len(ids), number, np.intp)))
        if (ids[1:] == ids[:-1]).any():
            held[-1] = _distinct(held[-1:], plan, folder)
        del block
        num_bytes += _num_bytes(held[-1][0])
        if num_bytes > max_bytes:
            held = [_distinct(held, plan, folder)]
            num_bytes = _num_bytes(held[0][0])
            max_bytes = max(MAX_HELD_BYTES, 2 * num_bytes)  # a bucket of many texts must not be sorted after each part
    tokens, part_of = _distinct(held, plan, folder)
    num_near = np.zeros(len(plan.parts), np.int64)
    if near_duplicate_ids is not None:
        near = np.isin(tokens.documents["id"], near_duplicate_ids)
        num_near = np.bincount(part_of[near], minlength=len(plan.parts))
        tokens, part_of = _take([tokens], np.flatnonzero(~near)), part_of[~near]
    sources, positions = find_places(plan.parts, folder, part_of, tokens.documents)
    tokens.documents["position"] = positions
    return BucketContent(tokens, sources, part_of, num_read, num_near)


def documents_of_split(
    bucket: Bucket, plan: Plan, held_out_ids: U64 | None = None, near_duplicate_ids: U64 | None = None
) -> Chooser:
    """Return what chooses the documents of a bucket's split."""
    is_held_out, selection = HeldOut(plan.validation_fraction, held_out_ids), plan.selection

    def chosen(number: int, ids: U64) -> Bools:
        of_split = is_held_out(ids) == (bucket.split == "validation")
        if selection is None:
            return of_split
        return of_split & selection.chosen(ids, plan.parts[number].input, near_duplicate_ids)

    return lambda number: lambda ids: chosen(number, ids)


def read_blocks(bucket: Bucket, parts: Sequence[PartRecord], folder: str, choose: Chooser) -> Iterator[TokenBlock]:
    """Yield the documents of a bucket in each part. From a store, several parts are read at a time."""

    def read(number: int) -> TokenBlock:
        part = parts[number]
        return read_range(storage.join(folder, part.name), part, bucket.low, bucket.high, choose(number))

    if storage.is_local(folder):
        yield from map(read, range(len(parts)))
        return
    with ThreadPoolExecutor(READERS) as pool:
        for first in range(0, len(parts), READERS):
            yield from pool.map(read, range(first, min(first + READERS, len(parts))))


def _distinct(held: Sequence[Held], plan: Plan, folder: str) -> Held:
    """Return the documents in id order, the first of equal ones. ValueError if different documents have the same id."""
    rows = np.concatenate([block.documents for block, _ in held])
    part_of = np.concatenate([part_of for _, part_of in held])
    order = np.argsort(rows["id"], kind="stable")
    ids, low = rows["id"][order], rows["id_low"][order]
    repeated = np.zeros(len(order), bool)
    repeated[1:] = ids[1:] == ids[:-1]
    clash = np.flatnonzero(repeated[1:] & (low[1:] != low[:-1]))
    if len(clash):
        both = order[clash[0] : clash[0] + 2]
        sources, _ = find_places(plan.parts, folder, part_of[both], rows[both])
        raise ValueError(
            f"two different documents have the same id {ids[clash[0]]:016x}: remove one of them from the input "
            f"({' and '.join(sources)})"
        )
    return _take([block for block, _ in held], order[~repeated]), part_of[order[~repeated]]


def _take(blocks: Sequence[TokenBlock], order: NDArray[np.intp]) -> TokenBlock:
    """Return the documents with these numbers, counted through all blocks, in this order."""
    rows = np.concatenate([block.documents for block in blocks])

    def gather(name: str, column: str) -> NDArray[Any]:
        parts = [getattr(block, name) for block in blocks]
        values = np.concatenate(parts) if len(parts) > 1 else parts[0]  # of one block without a copy
        counts = rows[column].astype(np.int64)
        return take_ranges(values, (np.cumsum(counts) - counts)[order], counts[order])

    inside = gather("inside_words", "num_tokens") if blocks[0].inside_words is not None else None
    return TokenBlock(gather("ids", "num_tokens"), gather("sentence_lengths", "num_sentences"), rows[order], inside)


def _num_bytes(block: TokenBlock) -> int:
    return block.ids.nbytes + block.sentence_lengths.nbytes + block.documents.nbytes

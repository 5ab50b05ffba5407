"""Which documents of each source are used, where sources have budgets or data sets of their own.

Equal documents belong to the first source that has one. A budget takes the documents of the smallest draws, as --sample
does, while their tokens add up to at most the budget. The documents are read by ranges of ids, so memory holds one
range; a histogram of the draws finds the limit of each budget.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64, U64, Bools
from bertloom.draws import SAMPLE, mix
from bertloom.sealed_files import read_sealed, write_sealed
from pipeline.inputs.named_inputs import NamedInput
from pipeline.inputs.rejects import rejects_log
from pipeline.places import Places
from pipeline.stages.document_places import find_places
from pipeline.text.records import Reject
from pipeline.tokens import DOCUMENT, PartRecord, read_document_rows

OVER_BUDGET = "over-budget"
"""The reason of the rejects that are over a budget."""
RANGE_DOCUMENTS = 1 << 20  # of a range of ids, about: 100 MB
BINS = 16
"""Bits of a draw that choose its place in the histogram of a source."""
LOG_LINES = 10_000
"""Largest number of rejects in a gzip member."""
ELSEWHERE = np.dtype([("input", "<u4"), ("id", "<u8")])
"""A document of a source that an earlier source has, too."""


@dataclass(frozen=True)
class Selection:
    """Which documents are used. The keys of the dictionaries are numbers of sources, as strings."""

    limits: dict[str, int] = field(default_factory=dict)
    """Documents with this draw or a larger one are over the budget of the source."""
    over_budget: dict[str, int] = field(default_factory=dict)
    """Number of different documents that are over the budget."""
    duplicates: dict[str, int] = field(default_factory=dict)
    """Number of documents that another source has, or that equal another one over the budget."""
    elsewhere: str = ""
    """Path of the file of the documents that an earlier source has; empty if there are none."""
    elsewhere_sha256: str = ""

    @property
    def key(self) -> list[Any]:
        """What decides the documents, for digests."""
        return [self.limits, self.elsewhere_sha256]

    @cached_property
    def _ids_elsewhere(self) -> dict[int, U64]:
        """Number of a source -> ids of its documents that an earlier one has, sorted."""
        rows = np.frombuffer(read_sealed(self.elsewhere), ELSEWHERE) if self.elsewhere else np.zeros(0, ELSEWHERE)
        return {int(number): rows["id"][rows["input"] == number] for number in np.unique(rows["input"])}

    def chosen(self, ids: U64, number: int, near_duplicate_ids: U64 | None) -> Bools:
        """Return which documents of a source are used, or are near duplicates: bool (n,)."""
        chosen = np.ones(len(ids), bool)
        if str(number) in self.limits:
            chosen = draws_of(ids) < np.uint64(self.limits[str(number)])
            if near_duplicate_ids is not None:
                chosen |= np.isin(ids, near_duplicate_ids)
        if (elsewhere := self._ids_elsewhere.get(number)) is not None:
            chosen &= ~np.isin(ids, elsewhere)
        return chosen


def draws_of(ids: U64) -> U64:
    """Return the draw that decides whether a document is in a sample: uint64 (n,)."""
    return mix(ids ^ np.uint64(SAMPLE))


@dataclass(frozen=True)
class _Rows:
    """The documents of a range of ids, in the order of ids; equal ones in the order of parts."""

    rows: NDArray[np.void]
    part_of: NDArray[np.intp]
    input_of: I64
    is_first: Bools
    """Whether no equal document comes before it."""
    first: NDArray[np.intp]
    """Index of the first one of equal documents."""


class _Documents:
    """All documents of a job, by ranges of ids."""

    def __init__(self, parts: Sequence[PartRecord], folder: str):
        self.parts, self.folder = parts, folder
        self.num_ranges = max(1, -(-sum(part.num_documents for part in parts) // RANGE_DOCUMENTS))
        self._only: _Rows | None = None

    def __iter__(self) -> Iterator[_Rows]:
        for i in range(self.num_ranges):
            if self._only is None:
                rows = self._read(-(-(i << 64) // self.num_ranges), -(-(i + 1 << 64) // self.num_ranges))
                self._only = rows if self.num_ranges == 1 else None
            yield self._only or rows

    def _read(self, low: int, high: int) -> _Rows:
        tables = [read_document_rows(storage.join(self.folder, part.name), part, low, high) for part in self.parts]
        rows = np.concatenate([np.zeros(0, DOCUMENT), *tables])
        part_of = np.repeat(np.arange(len(self.parts)), [len(table) for table in tables])
        order = np.argsort(rows["id"], kind="stable")
        rows, part_of = rows[order], part_of[order]
        is_first = np.ones(len(rows), bool)
        is_first[1:] = rows["id"][1:] != rows["id"][:-1]
        first = np.flatnonzero(is_first)[np.cumsum(is_first) - 1] if len(rows) else np.zeros(0, np.intp)
        input_of = np.array([part.input for part in self.parts], np.int64)[part_of]
        return _Rows(rows, part_of, input_of, is_first, first)


def select_documents(
    parts: Sequence[PartRecord], inputs: Sequence[NamedInput], places: Places, near_duplicate_ids: U64 | None = None
) -> Selection:
    """Return which documents are used, and write the list of those that are over a budget.

    Args:
        parts: of all sources, in their order.
        near_duplicate_ids: documents that are left out in any case, and count for no budget.

    Raises:
        ValueError: nothing of a source is left.
    """
    documents = _Documents(parts, places.parts)
    budgets = {number: one.tokens for number, one in enumerate(inputs) if one.tokens is not None}
    used, duplicates, elsewhere = Counter[int](), Counter[int](), [np.zeros(0, ELSEWHERE)]
    tokens = {number: np.zeros(1 << BINS, np.int64) for number in budgets}
    for found in documents:
        copies = np.flatnonzero(found.input_of != found.input_of[found.first])
        duplicates.update(found.input_of[copies].tolist())
        rows = np.empty(len(copies), ELSEWHERE)
        rows["input"], rows["id"] = found.input_of[copies], found.rows["id"][copies]
        elsewhere.append(np.unique(rows))
        own = found.is_first & ~_is_near(found, near_duplicate_ids)
        used.update(found.input_of[own].tolist())
        for number, histogram in tokens.items():
            chosen = found.rows[own & (found.input_of == number)]
            places_of = (draws_of(chosen["id"]) >> np.uint64(64 - BINS)).astype(np.int64)
            np.add.at(histogram, places_of, chosen["num_tokens"].astype(np.int64))

    limits = _limits(documents, budgets, tokens, near_duplicate_ids)
    over = Counter[int]()
    if limits:
        over = _write_over_budget(documents, limits, budgets, places, duplicates, near_duplicate_ids)
    for number, one in enumerate(inputs):
        if used[number] == over[number]:
            raise ValueError(_nothing_left(number, one, parts, over[number], duplicates[number]))
    ids = np.concatenate(elsewhere)
    ids = ids[np.lexsort((ids["id"], ids["input"]))]
    path = storage.join(places.scratch, "elsewhere") if len(ids) else ""
    if path:
        write_sealed(path, [ids.tobytes()])
    return Selection(
        {str(number): limit for number, limit in limits.items()},
        {str(number): count for number, count in sorted(over.items())},
        {str(number): count for number, count in sorted(duplicates.items())},
        path,
        hashlib.sha256(ids.tobytes()).hexdigest() if path else "",
    )


def _is_near(found: _Rows, near_duplicate_ids: U64 | None) -> Bools:
    if near_duplicate_ids is None:
        return np.zeros(len(found.rows), bool)
    return np.isin(found.rows["id"], near_duplicate_ids)


def _limits(
    documents: _Documents, budgets: dict[int, int], tokens: dict[int, I64], near_duplicate_ids: U64 | None
) -> dict[int, int]:
    """Return number of a source -> the first draw that is over its budget, of the sources with more tokens than that.

    tokens: of each source by the first bits of the draw.
    """
    crossed = {}  # source -> (place in the histogram where the budget ends, tokens left for it)
    for number, histogram in tokens.items():
        ends = np.cumsum(histogram)
        if ends[-1] > budgets[number]:
            at = int(np.searchsorted(ends, budgets[number], side="right"))
            crossed[number] = at, budgets[number] - int(ends[at] - histogram[at])
    held: dict[int, list[tuple[U64, I64]]] = {number: [] for number in crossed}
    for found in documents if crossed else ():
        own = found.is_first & ~_is_near(found, near_duplicate_ids)
        for number, (at, _) in crossed.items():
            rows = found.rows[own & (found.input_of == number)]
            draws = draws_of(rows["id"])
            here = (draws >> np.uint64(64 - BINS)) == np.uint64(at)
            held[number].append((draws[here], rows["num_tokens"][here].astype(np.int64)))
    limits = {}
    for number, (_, left) in crossed.items():
        draws, counts = (np.concatenate(columns) for columns in zip(*held[number], strict=True))
        order = np.argsort(draws)
        over = np.searchsorted(np.cumsum(counts[order]), left, side="right")
        limits[number] = int(draws[order][over])
    return limits


def _write_over_budget(
    documents: _Documents,
    limits: dict[int, int],
    budgets: dict[int, int],
    places: Places,
    duplicates: Counter[int],
    near_duplicate_ids: U64 | None,
) -> Counter[int]:
    """Write the documents that are over a budget as rejects. Return their numbers by source, and count their duplicates."""
    storage.make_folder(places.over_budget)
    over = Counter[int]()
    for i, found in enumerate(documents):
        near = _is_near(found, near_duplicate_ids)
        draws = draws_of(found.rows["id"])
        for number, limit in limits.items():
            here = (found.input_of == number) & (found.input_of[found.first] == number) & ~near
            here &= draws >= np.uint64(limit)
            chosen = np.flatnonzero(here & found.is_first)
            duplicates[number] += int((here & ~found.is_first).sum())
            over[number] += len(chosen)
            log = _log(documents, found, chosen, budgets[number])
            storage.write_whole(storage.join(places.over_budget, f"{number:05d}-{i:05d}.jsonl.gz"), log)
    return over


def _log(documents: _Documents, found: _Rows, chosen: NDArray[np.intp], budget: int) -> Iterator[bytes]:
    """Yield gzip members with the rejects of the documents with these numbers."""
    for begin in range(0, len(chosen), LOG_LINES):
        some = chosen[begin : begin + LOG_LINES]
        rows = found.rows[some]
        sources, positions = find_places(documents.parts, documents.folder, found.part_of[some], rows)
        yield rejects_log(
            (
                source,
                Reject(position, OVER_BUDGET, f"{count} tokens; the source may have {budget:,}", "", piece=piece),
            )
            for source, position, count, piece in zip(
                sources, positions.tolist(), rows["num_tokens"].tolist(), rows["piece"].tolist(), strict=True
            )
        )


def over_budget_logs(places: Places, number: int | None = None) -> Iterator[bytes]:
    """Yield the lists of the documents over a budget: of a source, or of all."""
    for name in sorted(storage.names_in(places.over_budget)):
        if number is None or name.startswith(f"{number:05d}-"):
            yield storage.read(storage.join(places.over_budget, name))


def check_not_empty(parts: Sequence[PartRecord], inputs: Sequence[NamedInput]) -> None:
    """Raise ValueError if a source has no document."""
    found = Counter[int]()
    for part in parts:
        found[part.input] += part.num_documents
    for number, one in enumerate(inputs):
        if not found[number]:
            raise ValueError(_nothing_left(number, one, parts, 0, 0))


def _nothing_left(number: int, one: NamedInput, parts: Sequence[PartRecord], over: int, elsewhere: int) -> str:
    own = [part for part in parts if part.input == number]
    if not own:
        return (
            f"the source {one.name} has no file, because other tables of --inputs name all of its files, and a file belongs "
            f"to the last table that names it: name other files, or leave out this source"
        )
    reasons = Counter[str]()
    for part in own:
        reasons.update(part.rejected)
        reasons.update(part.passed_over)
    counts = [f"{count:,} {reason}" for reason, count in reasons.most_common()]
    counts += [f"{over:,} over its budget of {one.tokens:,} tokens"] if over else []
    counts += [f"{elsewhere:,} equal to documents of earlier sources"] if elsewhere else []
    return (
        f"the source {one.name} has no document left ({', '.join(counts) or 'its files are empty'}): change its options in "
        f"the file of --inputs, or leave out its table"
    )

"""The table of near duplicates, and the texts of its pairs, which are read again from their source files."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bertloom import storage
from bertloom.decoding import decoded
from bertloom.manifest import DAMAGED
from bertloom.parquet_files import UNREADABLE
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.inputs import inputs_of
from jobs.browser.lru import LruCache
from jobs.browser.text_comparison import Comparison, compare
from pipeline.checks.replay import read_from_source
from pipeline.dataset import (
    KNOWN_NEAR_DUPLICATES,
    KNOWN_NEAR_DUPLICATES_SCHEMA,
    NEAR_DUPLICATES,
    NEAR_DUPLICATES_SCHEMA,
    check_listed,
    repeated_lines_of,
)
from pipeline.inputs.sources import source_of
from pipeline.text.records import Document

BATCH = 1 << 14
"""Rows of the table that are decoded at a time."""
KEPT_COMPARISONS = 2
"""Each may hold two texts of 4 MB."""
BEGINNING_CHARACTERS = 200
"""Characters of a text in the list, as in the log of rejects."""
PLACE = pa.schema([NEAR_DUPLICATES_SCHEMA.field(name) for name in ("id", "source", "position", "piece")])


def near_of_others(counters: Mapping[str, Any]) -> int:
    """Return how many documents were left out because they resemble one of another data set."""
    return sum(numbers.get("near", 0) for numbers in counters.get("duplicates_of", {}).values())


class NearDuplicates:
    """The rows of near-duplicates.parquet, by number or by id. Each call reads the file."""

    def __init__(self, data_set: BrowsedDataSet, of_others: bool = False) -> None:
        """of_others: read the file of documents that resemble one of another data set."""
        self.dataset, counters = data_set.location, data_set.manifest["counters"]
        self.name = KNOWN_NEAR_DUPLICATES if of_others else NEAR_DUPLICATES
        self.schema = KNOWN_NEAR_DUPLICATES_SCHEMA if of_others else NEAR_DUPLICATES_SCHEMA
        self.sha256: str | None = data_set.manifest["files"].get(self.name)
        self.num_rows: int = near_of_others(counters) if of_others else counters.get("documents_near_duplicate", 0)
        self._is_checked = False
        self._lock = threading.Lock()

    def rows(self, first: int, number: int) -> list[dict[str, Any]]:
        """Return `number` rows from row `first` on, in id order."""
        found: list[dict[str, Any]] = []
        with self._opened() as file:
            start = 0
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if end > first:
                    for batch in _batches(file, group):
                        found += batch.slice(max(0, first - start), number - len(found)).to_pylist()
                        start += batch.num_rows
                        if len(found) == number:
                            return found
                start = end
        return found

    def row(self, document: int) -> dict[str, Any] | None:
        """Return the row of a document, None if it was not left out as a near duplicate."""
        number = self._find(document) if self.num_rows else None
        return None if number is None else self.rows(number, 1)[0]

    def _find(self, document: int) -> int | None:
        """Return the number of a document's row. Rows are in id order."""
        with self._opened() as file:
            start = 0
            for group in range(file.num_row_groups):
                for batch in _batches(file, group, ["id"]):
                    ids = batch.column("id").to_numpy()
                    at = int(np.searchsorted(ids, np.uint64(document)))
                    if at < len(ids):
                        return start + at if int(ids[at]) == document else None
                    start += len(ids)
        return None

    def sources(self) -> Iterator[pa.Array]:
        """Yield the column `source`."""
        if self.num_rows:
            with self._opened() as file:
                for group in range(file.num_row_groups):
                    for batch in _batches(file, group, ["source"]):
                        yield batch.column("source")

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        """Open the file. ValueError, with what `bertloom verify` prints, where it is damaged."""
        if self.sha256 is None:
            raise ValueError(f"manifest.json of {self.dataset} does not list {self.name}; {DAMAGED}")
        try:
            with self._lock:
                if not self._is_checked:
                    check_listed(self.dataset, self.name, self.sha256)
                self._is_checked = True
            with storage.open_read(storage.file_below(self.dataset, self.name)) as content:
                file = pq.ParquetFile(content)
                if not file.schema_arrow.equals(self.schema):
                    raise ValueError(f"{self.name}: its columns are not those of the format")
                yield file
        except UNREADABLE as error:
            raise ValueError(f"{' '.join(str(error).split())}; {DAMAGED}") from None


def _batches(file: pq.ParquetFile, group: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    for batch in decoded(file.iter_batches(BATCH, [group], columns, use_threads=False)):
        batch.validate(full=True)
        if any(column.null_count for column in batch.columns):
            raise ValueError(f"{NEAR_DUPLICATES}: it has values that are null")
        yield batch


class DuplicateTexts:
    """The texts of near duplicates. One request at a time reads source files."""

    def __init__(self, data_set: BrowsedDataSet) -> None:
        self.data_set = data_set
        self.table = NearDuplicates(data_set)
        self._comparisons = LruCache[Comparison](KEPT_COMPARISONS)
        self._lock = threading.Lock()

    def other(self, row: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Return (row of the document that a near duplicate resembles, whether that one was left out, too)."""
        number = row["resembles"]
        if found := self.data_set.document(number):
            return found, False
        if found := self.table.row(number):
            return found, True
        if others := [one["name"] for one in self.data_set.manifest.get("extends", ())]:
            raise ValueError(
                f"document {row['id']:016x} resembles document {number:016x}, which was left out because of one of a "
                f"data set that this one extends ({', '.join(others)}): open that data set"
            )
        if self.data_set.manifest.get("sources"):
            raise ValueError(
                f"document {row['id']:016x} resembles document {number:016x}, which is not in this data set: it is over the "
                f"budget of its source, or in the data set of another source of the same job"
            )
        raise ValueError(
            f"document {row['id']:016x} resembles document {number:016x}, which neither documents/ nor {NEAR_DUPLICATES} "
            f"holds; {DAMAGED}"
        )

    def comparison(self, row: dict[str, Any]) -> Comparison:
        """Compare a near duplicate with the document that it resembles; ValueError where a source is missing."""
        with self._lock:
            return self._comparisons.get(row["id"], lambda: self._compare(row))

    def _compare(self, row: dict[str, Any]) -> Comparison:
        other, _ = self.other(row)
        return compare(*(self._read([one])[one["id"]].text.decode() for one in (row, other)))

    def beginnings(self, rows: Sequence[dict[str, Any]]) -> tuple[dict[int, str], list[str]]:
        """Return (the beginning of the text of each document that can be read, why others cannot)."""
        by_source = defaultdict[str | None, list[dict[str, Any]]](list)
        for row in rows:
            by_source[source_of(row["source"], inputs_of(self.data_set))].append(row)
        found: dict[int, str] = {}
        errors: list[str] = []
        with self._lock:
            for of_source in by_source.values():
                try:
                    for number, document in self._read(of_source).items():
                        found[number] = document.text[: 4 * BEGINNING_CHARACTERS].decode(errors="ignore")
                except ValueError as error:
                    errors.append(str(error))
        return {number: text[:BEGINNING_CHARACTERS] for number, text in found.items()}, errors

    def _read(self, rows: Sequence[dict[str, Any]]) -> dict[int, Document]:
        """Return the documents of rows of one source."""
        data_set, inputs = self.data_set, inputs_of(self.data_set)
        if source_of(rows[0]["source"], inputs) is None:
            raise ValueError(f"manifest.json does not list the input {rows[0]['source']!r}; {DAMAGED}")
        has_lines = data_set.job.tokenize.max_line_repeats is not None
        lines = repeated_lines_of(data_set.location, data_set.manifest) if has_lines else None
        places = [{name: row[name] for name in PLACE.names} for row in rows]
        return read_from_source(pa.Table.from_pylist(places, PLACE), inputs, data_set.job, lines)
